/** How large a pod's machine is. */
import type { Pod } from '../../src/pod/pod.ts';
import { isolationOf } from '../isolation.ts';

const MEBI = 1024 * 1024;
/** What the machine's kernel, our programs and the pages of files need beside the apps. */
const OVERHEAD = 128 * MEBI;
const DEFAULT_MEMORY = 512 * MEBI;

/** bytes: as asked for, else what the apps may have together and the overhead; with an app without limit the default at least. */
export function machineMemory(pod: Pod): number {
  const asked = pod.options.vm?.memory;
  if (asked !== undefined) return asked;
  const limits = pod.apps.map(app => isolationOf(pod, app).memory);
  const sum = limits.reduce<number>((total, limit) => total + Number(limit ?? 0), OVERHEAD);
  return limits.every(limit => limit !== undefined) ? sum : Math.max(sum, DEFAULT_MEMORY);
}

/** As asked for, else what the apps may use together, rounded up; 1 where nothing is said. */
export function machineCpus(pod: Pod, most: number): number {
  const asked = pod.options.vm?.cpus;
  if (asked !== undefined) return asked;
  const millis = pod.apps.reduce(
    (total, app) => total + Number(isolationOf(pod, app).cpuMillis ?? 0n),
    0,
  );
  return Math.max(1, Math.min(most, Math.ceil(millis / 1000)));
}
