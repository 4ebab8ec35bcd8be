/** `tspod app start|stop POD --app=NAME`: for every pod that has an init, sandboxes and others. */
import type { Context } from '../../src/context.ts';
import { readPod } from '../../src/pod/folder.ts';
import { findPod } from '../../src/pod/lifecycle.ts';
import type { Pod } from '../../src/pod/pod.ts';
import type { RunningPod } from '../../stage1-flavors/flavor.ts';
import { appsBy } from '../app/apps-by.ts';
import { runningPod } from '../app/change.ts';
import { requireApp } from '../app/find.ts';

export interface AppArgs {
  readonly pod: string;
  readonly app: string;
}

export async function start(context: Context, args: AppArgs): Promise<number> {
  const { pod, running } = podOfApp(context, args);
  await appsBy(pod).start(pod, args.app, running);
  return 0;
}

/** Returns when the app has ended. */
export async function stop(context: Context, args: AppArgs): Promise<number> {
  const { pod, running } = podOfApp(context, args);
  await appsBy(pod).stop(pod, args.app, running);
  return 0;
}

function podOfApp(
  context: Context,
  args: AppArgs,
): { readonly pod: Pod; readonly running: RunningPod } {
  const running = runningPod(findPod(context.dir, args.pod));
  const pod = readPod(running.dir, running.uuid);
  requireApp(pod, args.app);
  return { pod, running };
}
