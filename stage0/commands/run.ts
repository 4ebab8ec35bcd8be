/** `tspod run`: prepare a pod and become it. */
import type { Context } from '../../src/context.ts';
import { planToJson } from '../../src/pod/launch-plan.ts';
import type { PodArgs } from '../args/types.ts';
import { launchPod } from '../launch.ts';
import { connectPod } from '../networks.ts';
import { withPlannedPod, writePreparedPod } from '../prepare.ts';
import { removeLockedPod } from '../remove-pod.ts';
import { checkResultFile, finishCommand } from '../result.ts';

/** Returns only for `--dry-run`; otherwise this process becomes the pod. */
export async function run(context: Context, args: PodArgs): Promise<number> {
  if (args.result !== undefined) checkResultFile(args.result);
  if (args.dryRun) {
    await withPlannedPod(context, args, finishCommand(context, args), async ({ plan }) => {
      process.stdout.write(`${JSON.stringify(planToJson(plan), undefined, '\t')}\n`);
    });
    return 0;
  }
  const { handle, planned } = await withPlannedPod(
    context,
    args,
    finishCommand(context, args),
    async (planned, store) => ({
      planned,
      handle: await writePreparedPod(context, store, planned, {
        uuidFile: args.uuidFileSave,
      }),
    }),
  );
  handle.moveTo('run');
  try {
    await connectPod(context, handle.dir, planned.pod, planned.flavor);
    return launchPod(handle);
  } catch (error) {
    removeLockedPod(handle); // it never ran
    throw error;
  }
}
