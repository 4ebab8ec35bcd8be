/** `tspod app start|stop POD --app=NAME`: for every pod that has an init, sandboxes and others. */
import type { Context } from '../../src/context.ts';
import { readPod } from '../../src/pod/folder.ts';
import { findPod } from '../../src/pod/lifecycle.ts';
import { ask } from '../../stage1-flavors/nspawn/control.ts';
import { runningPod } from '../app/change.ts';
import { requireApp } from '../app/find.ts';

export interface AppArgs {
  readonly pod: string;
  readonly app: string;
}

export async function start(context: Context, { pod, app }: AppArgs): Promise<number> {
  const { uuid, dir } = runningPod(findPod(context.dir, pod));
  requireApp(readPod(dir, uuid), app);
  await ask(dir, ['start', app]);
  return 0;
}

/** Returns when the app has ended. */
export async function stop(context: Context, { pod, app }: AppArgs): Promise<number> {
  const { uuid, dir } = runningPod(findPod(context.dir, pod));
  requireApp(readPod(dir, uuid), app);
  await ask(dir, ['stop', app], { timeoutMs: Number.POSITIVE_INFINITY });
  return 0;
}
