/**
 * `tspod gc`, as rkt's: expired prepared pods and failed preparations go to the garbage, ended pods to the
 * exited garbage, and what has been there for the grace period is removed. The age is the ctime of the
 * folder, which the rename into it set. Runs beside everything else and may be killed at any instant.
 */
import { lstatSync } from 'node:fs';
import { type Context, warn } from '../../src/context.ts';
import { reasonOf, TspodError } from '../../src/errors.ts';
import { formatDuration, parseDuration } from '../../src/humanize.ts';
import {
  listPods,
  lockPod,
  type PodHandle,
  type PodView,
  whileNobodyMakesPods,
} from '../../src/pod/lifecycle.ts';
import { faultPoint } from '../../src/sys/fault.ts';
import { requireRoot } from '../../src/sys/privilege.ts';
import { removeLockedPod } from '../remove-pod.ts';

export interface GcArgs {
  readonly gracePeriod: string;
  readonly expirePrepared: string;
  readonly markOnly: boolean;
}

export async function run(context: Context, args: GcArgs): Promise<number> {
  requireRoot(context.command);
  const graceMs = parseDuration(args.gracePeriod, 'gc: --grace-period');
  const expireMs = parseDuration(args.expirePrepared, 'gc: --expire-prepared');
  const failures: string[] = [];
  const guarded = (pod: PodView, action: () => void) => {
    try {
      action();
    } catch (error) {
      if (!(error instanceof TspodError)) throw error;
      failures.push(reasonOf(error));
      warn(context, `gc: pod "${pod.uuid}": ${reasonOf(error)}`);
    }
  };
  whileNobodyMakesPods(context.dir, () => {
    for (const pod of listPods(context.dir)) {
      if (pod.state === 'embryo') guarded(pod, () => mark(context, pod, expireMs));
    }
  });
  for (const pod of listPods(context.dir)) {
    if (pod.state !== 'embryo') guarded(pod, () => mark(context, pod, expireMs));
  }
  if (!args.markOnly) {
    for (const pod of listPods(context.dir)) guarded(pod, () => collect(context, pod, graceMs));
  }
  if (failures.length > 0) {
    throw new TspodError('state', `gc: ${failures.length} pod(s) could not be collected`);
  }
  return 0;
}

/** Moves what is over to where it waits for its removal. */
function mark(context: Context, pod: PodView, expireMs: number): void {
  if (pod.state === 'embryo') {
    moveLocked(context, pod, 'garbage', `moving unfinished pod "${pod.uuid}" to garbage`);
  } else if (pod.state === 'aborted prepare') {
    moveLocked(context, pod, 'garbage', `moving failed prepare "${pod.uuid}" to garbage`);
  } else if (pod.state === 'prepared' && age(pod) >= expireMs) {
    moveLocked(context, pod, 'garbage', `moving expired prepared pod "${pod.uuid}" to garbage`);
  } else if (pod.state === 'exited') {
    moveLocked(context, pod, 'exited-garbage', `moving pod "${pod.uuid}" to garbage`);
  }
}

function moveLocked(
  context: Context,
  pod: PodView,
  folder: 'garbage' | 'exited-garbage',
  message: string,
): void {
  const handle = lockInState(context, pod);
  if (handle === undefined) return;
  try {
    warn(context, `gc: ${message}`);
    handle.moveTo(folder);
  } finally {
    handle.close();
  }
}

function collect(context: Context, pod: PodView, graceMs: number): void {
  if (pod.state !== 'exited garbage' && pod.state !== 'garbage') return;
  const left = graceMs - age(pod);
  // What never ran has nothing that anybody could want to look at.
  if (pod.state === 'exited garbage' && left > 0) {
    const seconds = Math.ceil(left / 1000) * 1000;
    warn(
      context,
      `gc: pod "${pod.uuid}" not removed: still within grace period (${formatDuration(seconds)})`,
    );
    return;
  }
  const handle = lockInState(context, pod);
  if (handle === undefined) return;
  process.stdout.write(`Garbage collecting pod "${pod.uuid}"\n`);
  faultPoint('gc-remove');
  removeLockedPod(handle);
}

/** Undefined when somebody makes the pod, or when it has moved on since we looked: it is somebody else's, or the next gc's. */
function lockInState(context: Context, pod: PodView): PodHandle | undefined {
  const handle = lockPod(context.dir, pod.uuid);
  if (handle === undefined || handle.dir === pod.dir) return handle;
  handle.close();
  return undefined;
}

function age(pod: PodView): number {
  const stat = lstatSync(pod.dir, { throwIfNoEntry: false });
  // a time stamp is finer than Date.now(), so a pod of this very millisecond lies in the future
  return stat === undefined ? 0 : Math.max(0, Date.now() - stat.ctimeMs);
}
