/** node:child_process, loaded at the first call. */
import type * as ChildProcess from 'node:child_process';

const real = (): typeof ChildProcess => process.getBuiltinModule('node:child_process');

export const spawn = ((...args: Parameters<typeof ChildProcess.spawn>) =>
  real().spawn(...args)) as typeof ChildProcess.spawn;
export const spawnSync = ((...args: Parameters<typeof ChildProcess.spawnSync>) =>
  real().spawnSync(...args)) as typeof ChildProcess.spawnSync;
export const execFile = ((...args: Parameters<typeof ChildProcess.execFile>) =>
  real().execFile(...args)) as typeof ChildProcess.execFile;
