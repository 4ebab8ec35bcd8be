/**
 * Resource limits under fly: a cgroup of the pod's own below the one that the starter is in, so that what
 * bounds the starter bounds the pod too. cgroup v1 (a folder in each hierarchy that is needed) and v2
 * (where the starter's cgroup hands its controllers down). A limit that can't be set is an error: a pod
 * that was asked to be bounded never runs unbounded.
 */
import type { Isolation } from '../../src/pod/isolators.ts';
import type { Step } from '../../src/pod/launch-plan.ts';
import { type CgroupView, cgroupName, hostCgroups, locate } from '../cgroup-places.ts';
import { unsupported } from '../isolation.ts';

/** µs; the kernel's default period. */
const CPU_PERIOD = 100_000n;
/** The kernel refuses a quota below 1 ms. */
const MIN_QUOTA = 1000n;

export interface CgroupPlan {
  readonly steps: readonly Step[];
  /** Absolute paths of what the launcher makes and gc removes. */
  readonly folders: readonly string[];
}

interface Need {
  readonly controller: 'memory' | 'cpu';
  /** For messages. */
  readonly option: string;
  readonly v1: readonly string[];
  readonly v2: readonly string[];
}

/** @throws TspodError 'unsupported' that names the option and what to do */
export function planCgroups(
  uuid: string,
  isolation: Isolation,
  view: () => CgroupView = hostCgroups,
): CgroupPlan {
  const needs = needsOf(isolation);
  if (needs.length === 0) return { steps: [], folders: [] };
  const host = view();
  const writes = new Map<string, string[]>();
  for (const need of needs) {
    const place = placeOf(need, host);
    const folder = `${place.folder}/${cgroupName(uuid)}`;
    writes.set(folder, [
      ...(writes.get(folder) ?? []),
      ...(place.version === 1 ? need.v1 : need.v2),
    ]);
  }
  return {
    steps: [...writes].map(([folder, words]): Step => ['cgroup', folder, ...words]),
    folders: [...writes.keys()],
  };
}

function needsOf({ memory, cpuMillis, cpuShares }: Isolation): readonly Need[] {
  const needs: Need[] = [];
  if (memory !== undefined) {
    const bytes = String(memory);
    needs.push({
      controller: 'memory',
      option: 'memory',
      v1: ['memory.limit_in_bytes', bytes],
      v2: ['memory.max', bytes],
    });
  }
  if (cpuMillis !== undefined) {
    const wanted = (cpuMillis * CPU_PERIOD) / 1000n;
    const quota = wanted < MIN_QUOTA ? MIN_QUOTA : wanted;
    needs.push({
      controller: 'cpu',
      option: 'cpu',
      v1: ['cpu.cfs_period_us', String(CPU_PERIOD), 'cpu.cfs_quota_us', String(quota)],
      v2: ['cpu.max', `${quota} ${CPU_PERIOD}`],
    });
  }
  if (cpuShares !== undefined) {
    needs.push({
      controller: 'cpu',
      option: 'cpu-shares',
      v1: ['cpu.shares', String(cpuShares)],
      v2: ['cpu.weight', String(weightOf(cpuShares))],
    });
  }
  return needs;
}

/** cgroup v1's 2..262144 onto v2's 1..10000, as OCI runtimes do it. */
function weightOf(shares: number): number {
  return 1 + Math.floor(((shares - 2) * 9999) / 262_142);
}

function placeOf(
  { controller, option }: Need,
  host: CgroupView,
): { readonly version: 1 | 2; readonly folder: string } {
  const lines = host.own
    .trim()
    .split('\n')
    .map(line => /^\d+:([^:]*):(.*)$/.exec(line));
  for (const match of lines) {
    const [, controllers = '', path = ''] = match ?? [];
    if (!controllers.split(',').includes(controller)) continue;
    const folder = locate(
      host.mounts,
      path,
      (type, superOptions) => type === 'cgroup' && superOptions.includes(controller),
    );
    if (folder !== undefined) return { version: 1, folder };
  }
  const unified = lines.find(match => match?.[1] === '')?.[2];
  const folder =
    unified === undefined ? undefined : locate(host.mounts, unified, type => type === 'cgroup2');
  if (folder === undefined) {
    throw unsupported(
      `--${option}: the ${controller} controller is not mounted`,
      `mount a cgroup hierarchy with ${controller}, or leave --${option} out`,
    );
  }
  const handedDown = host.read(`${folder}/cgroup.subtree_control`)?.trim().split(' ') ?? [];
  if (!handedDown.includes(controller)) {
    throw unsupported(
      `--${option}: cgroup ${folder} does not hand the ${controller} controller down to children`,
      'start the pod from a systemd unit with the limit in the unit (MemoryMax=, CPUQuota=, CPUWeight=), or in a cgroup that hands it down',
    );
  }
  return { version: 2, folder };
}
