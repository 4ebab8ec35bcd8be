/**
 * The last act of stage0: this process becomes the launcher, and the launcher becomes the pod. Nothing
 * of Node stays behind. What crosses over is the pod's lock, the sockets of socket activation, and the
 * few variables that the launcher reads; the app's own environment is in its plan.
 */
import { readFileSync } from 'node:fs';
import type { PodHandle } from '../src/pod/lifecycle.ts';
import { artifact } from '../src/sys/artifacts.ts';
import { faultPoint } from '../src/sys/fault.ts';
import { handOff } from '../src/sys/handoff.ts';

/** What the launcher or a `finish` command reads of the caller's environment. */
const PASSED = [
  'PATH',
  'LISTEN_FDS',
  'LISTEN_PID',
  'LISTEN_FDNAMES',
  'NOTIFY_SOCKET',
  'WATCHDOG_PID',
  'WATCHDOG_USEC',
  'TSPOD_FAULT',
] as const;

/** First descriptor of socket activation (sd_listen_fds(3)). */
const LISTEN_FDS_START = 3;

/** Never returns but by throwing: the pod in `run`, locked by `handle`, starts in this process. */
export function launchPod(handle: PodHandle): never {
  faultPoint('run-handoff');
  const env = [`TSPOD_LOCK_FD=${handle.lockFd}`, `RKT_LOCK_FD=${handle.lockFd}`];
  for (const name of PASSED) {
    const value = process.env[name];
    if (value !== undefined) env.push(`${name}=${value}`);
  }
  const launcher = artifact('launch');
  return handOff({
    path: launcher,
    argv: [launcher, handle.dir],
    env,
    keepFds: [...activationFds(process.env, process.pid), handle.lockFd],
  });
}

/**
 * The descriptors that were passed to this very process by socket activation.
 * @returns 3, 4, … or nothing when LISTEN_PID names another process
 */
export function activationFds(env: NodeJS.ProcessEnv, pid: number): readonly number[] {
  if (env['LISTEN_PID'] !== String(pid)) return [];
  const count = Number(env['LISTEN_FDS']);
  if (!Number.isInteger(count) || count < 1 || count > openFileLimit()) return [];
  return Array.from({ length: count }, (_, index) => LISTEN_FDS_START + index);
}

function openFileLimit(): number {
  const soft = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'latin1'))?.[1];
  return Number(soft ?? 1024);
}
