/**
 * Changing a pod that exists: who adds or removes an app holds `pod.lck` in the pod's folder meanwhile, so there
 * is one such command at a time. It is a lock of its own, because the pod's belongs to the running pod.
 */
import { closeSync, constants, openSync } from 'node:fs';
import { join } from 'node:path';
import type { Context } from '../../src/context.ts';
import { systemError, TspodError } from '../../src/errors.ts';
import { readFlavorName, readPod } from '../../src/pod/folder.ts';
import {
  findPod,
  lockPod,
  type PodFolder,
  type PodView,
  podProcess,
  viewPod,
} from '../../src/pod/lifecycle.ts';
import { isMutable } from '../../src/pod/mutable.ts';
import type { Pod } from '../../src/pod/pod.ts';
import { native } from '../../src/sys/native.ts';
import type { RunningPod } from '../../stage1-flavors/flavor.ts';
import type { LockedPod } from './apps-by.ts';

/** A pod as it is while its lock is held. */
export interface ChangedPod {
  readonly pod: Pod;
  readonly view: PodView;
  /** Absent: it has ended. */
  readonly running?: LockedPod;
}

/** @throws TspodError 'state' when its apps can't come and go, or when it neither runs nor has ended */
export async function changePod<T>(
  context: Context,
  text: string,
  action: (changed: ChangedPod) => Promise<T>,
): Promise<T> {
  const { uuid, dir } = findPod(context.dir, text);
  const fd = lockManifest(dir, uuid);
  try {
    // It may have ended while we waited.
    const view = viewPod(context.dir, uuid);
    if (view === undefined) throw new TspodError('not-found', `pod ${uuid}: it is gone`);
    const changed = { view, pod: podToChange(view) };
    if (view.state === 'running')
      return await action({ ...changed, running: { ...runningPod(view), lockFd: fd } });
    return await whileLocked(context, changed, action);
  } finally {
    closeSync(fd);
  }
}

/** One that has ended may be removed at any moment by who has its lock. */
async function whileLocked<T>(
  context: Context,
  { pod, view }: ChangedPod,
  action: (changed: ChangedPod) => Promise<T>,
): Promise<T> {
  const handle = lockPod(context.dir, view.uuid);
  if (handle === undefined || !ENDED.includes(handle.folder)) {
    handle?.close();
    throw new TspodError('busy', `pod ${view.uuid}: it is being removed`);
  }
  try {
    return await action({ pod, view: { ...view, dir: handle.dir } });
  } finally {
    handle.close();
  }
}

const ENDED: readonly PodFolder[] = ['run', 'exited-garbage'];

function lockManifest(dir: string, uuid: string): number {
  try {
    const path = join(dir, 'pod.lck');
    const fd = openSync(path, constants.O_RDONLY | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
    native().flock(fd, 'exclusive', true);
    return fd;
  } catch (error) {
    throw systemError(`pod ${uuid}: can't lock its manifest`, error);
  }
}

function podToChange({ uuid, state, dir }: PodView): Pod {
  if (state !== 'running' && state !== 'exited' && state !== 'exited garbage') {
    throw new TspodError('state', `pod ${JSON.stringify(uuid)} is ${state}`, {
      hint: 'only the apps of a pod that runs or has ended can be changed',
    });
  }
  const pod = readPod(dir, uuid);
  if (!isMutable(pod.manifest)) {
    throw new TspodError('state', `pod ${JSON.stringify(uuid)}: immutable pod`, {
      hint: 'start one with "app sandbox"',
    });
  }
  return pod;
}

/**
 * A pod whose apps can be started and stopped one by one.
 * @throws TspodError 'state' or 'unsupported'
 */
export function runningPod({ uuid, state, dir }: PodView): RunningPod {
  const process = state === 'running' ? podProcess(dir) : undefined;
  if (process === undefined) {
    throw new TspodError('state', `pod ${JSON.stringify(uuid)} isn't currently running`, {
      hint: `it is ${state === 'running' ? 'about to begin or to end' : state}`,
    });
  }
  requireInit(dir, uuid);
  return { uuid, dir, pid: process.pid };
}

function requireInit(dir: string, uuid: string): void {
  const flavor = readFlavorName(dir);
  if (flavor === 'nspawn' || flavor === 'kvm') return;
  if (flavor === 'foreign' && isMutable(readPod(dir, uuid).manifest)) return;
  throw new TspodError('unsupported', `flavor ${flavor}: its apps can't be started or stopped`, {
    hint: 'use --stage1-name=nspawn',
  });
}
