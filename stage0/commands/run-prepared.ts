/** `tspod run-prepared POD`: start a pod that `prepare` made, with the flags of its surroundings given now. */
import { type Context, warn } from '../../src/context.ts';
import { TspodError } from '../../src/errors.ts';
import { readFlavorName, readPod, writePlan, writeRuntimeConfig } from '../../src/pod/folder.ts';
import { planToJson } from '../../src/pod/launch-plan.ts';
import { findPod, lockPod } from '../../src/pod/lifecycle.ts';
import type { Pod } from '../../src/pod/pod.ts';
import { requireRoot } from '../../src/sys/privilege.ts';
import { flavorOfPod } from '../../stage1-flavors/index.ts';
import type { RunPreparedArgs } from '../args/types.ts';
import { runtimeOptions } from '../assemble.ts';
import { launchPod } from '../launch.ts';
import { machineOptions } from '../machine.ts';
import { connectPod, defaultNet, disconnectPod, hasNetworks } from '../networks.ts';
import { checkResultFile, finishCommand } from '../result.ts';

/** Returns only for `--dry-run`; otherwise this process becomes the pod. */
export async function run(context: Context, args: RunPreparedArgs): Promise<number> {
  requireRoot(context.command);
  if (args.result !== undefined) checkResultFile(args.result);
  const { uuid } = findPod(context.dir, args.pod);
  const handle = lockPod(context.dir, uuid);
  if (handle === undefined || handle.folder !== 'prepared') {
    handle?.close();
    throw new TspodError('state', `run-prepared: pod "${uuid}" is not prepared`, {
      hint: `see "${context.program} status ${uuid.slice(0, 8)}"`,
    });
  }
  const prepared = readPod(handle.dir, uuid);
  const flavor = flavorOfPod(readFlavorName(handle.dir));
  const net = args.net ?? defaultNet(flavor);
  const pod: Pod = {
    ...prepared,
    options: {
      ...runtimeOptions(
        context,
        { ...args, ...(net === undefined ? {} : { net }) },
        {
          finish: finishCommand(context, args)(uuid, hasNetworks(flavor) ? net : undefined),
          privateUsers: prepared.options.privateUsers,
          noOverlay: prepared.options.noOverlay ?? false,
          stage1: prepared.options.stage1,
          vm: await machineOptions(context, flavor, args.vm, prepared.options.vm),
        },
      ),
      // Switched off when it was prepared stays switched off.
      insecure: prepared.options.insecure,
    },
  };
  flavor.check(pod);
  for (const text of flavor.warnings?.(pod) ?? []) warn(context, `warning: ${text}`);
  const plan = flavor.plan(pod);
  if (args.dryRun) {
    process.stdout.write(`${JSON.stringify(planToJson(plan), undefined, '\t')}\n`);
    handle.close();
    return 0;
  }
  if (pod.options.vm !== undefined)
    await (await import('../vm-image/disks.ts')).makeLayerDisks(pod, handle.dir);
  const disk = pod.options.vm?.disk;
  if (disk !== undefined && disk !== prepared.options.vm?.disk)
    (await import('../vm-image/scratch.ts')).makeScratch(handle.dir, disk);
  writeRuntimeConfig(handle.dir, pod);
  writePlan(handle.dir, plan);
  handle.moveTo('run');
  try {
    await connectPod(context, handle.dir, pod, flavor);
    return launchPod(handle);
  } catch (error) {
    disconnectPod(handle);
    handle.moveTo('prepared'); // it never ran
    throw error;
  }
}
