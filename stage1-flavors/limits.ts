/** What limits of an app are in the files of cgroup v1 and v2. */
import type { Isolation } from '../src/pod/isolators.ts';

/** µs; the kernel's default period. */
const CPU_PERIOD = 100_000n;
/** The kernel refuses a quota below 1 ms. */
const MIN_QUOTA = 1000n;

export interface Limit {
  readonly controller: 'memory' | 'cpu' | 'pids';
  readonly isolator: string;
  /** For messages. */
  readonly option: string;
  /** File, value, file, value … */
  readonly v1: readonly string[];
  readonly v2: readonly string[];
}

export function limitsOf({ memory, cpuMillis, cpuShares, pids }: Isolation): readonly Limit[] {
  const limits: Limit[] = [];
  if (memory !== undefined) {
    const bytes = String(memory);
    limits.push({
      controller: 'memory',
      isolator: 'resource/memory',
      option: 'memory',
      v1: ['memory.limit_in_bytes', bytes],
      v2: ['memory.max', bytes],
    });
  }
  if (cpuMillis !== undefined) {
    const wanted = (cpuMillis * CPU_PERIOD) / 1000n;
    const quota = wanted < MIN_QUOTA ? MIN_QUOTA : wanted;
    limits.push({
      controller: 'cpu',
      isolator: 'resource/cpu',
      option: 'cpu',
      v1: ['cpu.cfs_period_us', String(CPU_PERIOD), 'cpu.cfs_quota_us', String(quota)],
      v2: ['cpu.max', `${quota} ${CPU_PERIOD}`],
    });
  }
  if (cpuShares !== undefined) {
    limits.push({
      controller: 'cpu',
      isolator: 'os/linux/cpu-shares',
      option: 'cpu-shares',
      v1: ['cpu.shares', String(cpuShares)],
      v2: ['cpu.weight', String(weightOf(cpuShares))],
    });
  }
  if (pids !== undefined) {
    const most = String(pids);
    limits.push({
      controller: 'pids',
      isolator: 'os/linux/pids-limit',
      option: 'pids-limit',
      v1: ['pids.max', most],
      v2: ['pids.max', most],
    });
  }
  return limits;
}

/** cgroup v1's 2..262144 onto v2's 1..10000, as OCI runtimes do it. */
function weightOf(shares: number): number {
  return 1 + Math.floor(((shares - 2) * 9999) / 262_142);
}
