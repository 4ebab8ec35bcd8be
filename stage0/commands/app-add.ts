/**
 * `tspod app add POD IMAGE`: one more app for a running sandbox. It is not started.
 *
 * Killed at any instant: until the manifest is replaced the pod does not have the app; what lies about of it is taken away by the next `app add` of that name, or with the pod.
 */
import type { Context } from '../../src/context.ts';
import { TspodError } from '../../src/errors.ts';
import { readFlavorName, writeAppFolders } from '../../src/pod/folder.ts';
import { openStore } from '../../src/store/store.ts';
import { faultPoint } from '../../src/sys/fault.ts';
import { requireRoot } from '../../src/sys/privilege.ts';
import { flavorOfPod } from '../../stage1-flavors/index.ts';
import { appsBy } from '../app/apps-by.ts';
import { withAddedApp } from '../app/assemble-added.ts';
import { changePod } from '../app/change.ts';
import { hasRemains, removeFiles } from '../app/remains.ts';
import type { ImageArgs } from '../args/types.ts';
import { fetchImage } from '../fetch/fetch.ts';
import { canOverlay, makeEmptyVolume, makeRootFs } from '../prepare.ts';
import { describeApps } from '../stage1-image.ts';
import { directoryForm } from '../unpack/directory.ts';
import { layerForms } from '../unpack/forms.ts';

export interface AppAddArgs {
  readonly pod: string;
  readonly image: ImageArgs;
  readonly mntVolumes: readonly string[];
}

export async function run(context: Context, args: AppAddArgs): Promise<number> {
  requireRoot(context.command);
  await changePod(context, args.pod, async ({ pod: before, view, running }) => {
    if (running === undefined) {
      throw new TspodError('state', `pod ${JSON.stringify(view.uuid)} isn't currently running`, {
        hint: `it is ${view.state}`,
      });
    }
    const { dir } = running;
    const by = appsBy(before);
    const noOverlay = before.options.noOverlay ?? false;
    const overlay = by.mounts && canOverlay(context, { noOverlay });
    const store = openStore(context.dir, {
      forms: overlay ? layerForms(context.dir) : [directoryForm],
    });
    try {
      const lease = store.lease();
      const { image: record, name } = await fetchImage(context, store, args.image.reference, {
        pullPolicy: 'never',
        lease,
      });
      const input = { context, store, pod: before, image: args.image, record, name, overlay };
      const { pod, app } = withAddedApp({ ...input, mntVolumes: args.mntVolumes });
      flavorOfPod(readFlavorName(dir)).check(pod);
      if (hasRemains(dir, app.name)) {
        await by.remove(before, app.name, running);
        removeFiles(dir, app.name);
      }
      writeAppFolders(dir, app);
      if (before.options.stage1 !== undefined) describeApps(dir, store, [app]);
      faultPoint('app-add-folders');
      await makeRootFs(dir, store, app);
      const known = new Set(before.manifest.volumes.map(volume => volume.name));
      for (const volume of pod.manifest.volumes)
        if (!known.has(volume.name)) makeEmptyVolume(dir, volume);
      await by.add(pod, app, running, before);
      store.touch(record);
    } finally {
      store.close();
    }
  });
  return 0;
}
