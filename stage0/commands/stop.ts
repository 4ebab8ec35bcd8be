/** `tspod stop POD...`: asks pods to end, or kills them; prints each UUID in quotes, as rkt. */
import { type Context, warn } from '../../src/context.ts';
import { reasonOf, TspodError } from '../../src/errors.ts';
import { readFlavorName } from '../../src/pod/folder.ts';
import { findPod, type PodView, podProcess, viewPod } from '../../src/pod/lifecycle.ts';
import { flavorOfPod } from '../../stage1-flavors/index.ts';

export interface StopArgs {
  readonly pods: readonly string[];
  readonly force: boolean;
}

export async function run(context: Context, { pods, force }: StopArgs): Promise<number> {
  let failed = 0;
  for (const text of pods) {
    try {
      const uuid = stopPod(context, text, force);
      process.stdout.write(`${JSON.stringify(uuid)}\n`);
    } catch (error) {
      if (!(error instanceof TspodError)) throw error;
      warn(context, `stop: ${reasonOf(error)}`);
      failed++;
    }
  }
  if (failed > 0) throw new TspodError('state', `stop: failed to stop ${failed} pod(s)`);
  return 0;
}

function stopPod(context: Context, text: string, force: boolean): string {
  const { uuid, state, dir } = findPod(context.dir, text);
  if (hasExited(state)) return alreadyStopped(context, uuid);
  if (state !== 'running') {
    throw new TspodError('state', `pod ${JSON.stringify(uuid)} is ${state}`, {
      hint: 'only a running pod can be stopped',
    });
  }
  const process = podProcess(dir);
  if (process === undefined) {
    // It may have ended since we looked.
    const now = viewPod(context.dir, uuid);
    if (now === undefined || hasExited(now.state)) return alreadyStopped(context, uuid);
    throw new TspodError('state', `pod ${JSON.stringify(uuid)} has no process yet or any more`, {
      hint: 'try again',
    });
  }
  flavorOfPod(readFlavorName(dir)).stop({ uuid, dir, pid: process.pid }, force);
  return uuid;
}

function hasExited(state: PodView['state']): boolean {
  return state === 'exited' || state === 'exited garbage' || state === 'exited deleting';
}

function alreadyStopped(context: Context, uuid: string): string {
  warn(context, `stop: pod ${JSON.stringify(uuid)} is already stopped`);
  return uuid;
}
