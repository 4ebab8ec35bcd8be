/**
 * `tspod app rm POD --app=NAME`: stops an app of a sandbox and takes it out of the pod, which may have ended.
 *
 * The manifest is replaced when the app runs no more and before its files go: killed before, the pod still has
 * the app and `app rm` goes on with it; killed after, what is left goes with the next app of that name or the pod.
 */
import { join } from 'node:path';
import type { Context } from '../../src/context.ts';
import { writeManifest, writeRuntimeConfig } from '../../src/pod/folder.ts';
import { removeTree } from '../../src/store/remove-tree.ts';
import { faultPoint } from '../../src/sys/fault.ts';
import { requireRoot } from '../../src/sys/privilege.ts';
import { appsBy } from '../app/apps-by.ts';
import { withoutApp } from '../app/assemble-added.ts';
import { changePod } from '../app/change.ts';
import { requireApp } from '../app/find.ts';
import { removeFiles } from '../app/remains.ts';

export async function run(
  context: Context,
  args: { readonly pod: string; readonly app: string },
): Promise<number> {
  requireRoot(context.command);
  await changePod(context, args.pod, async ({ pod, view, running }) => {
    requireApp(pod, args.app);
    if (running !== undefined) await appsBy(pod).remove(pod, args.app, running);
    const rest = withoutApp(pod, args.app);
    writeManifest(view.dir, rest.pod);
    faultPoint('app-rm-manifest');
    writeRuntimeConfig(view.dir, rest.pod);
    removeFiles(view.dir, args.app);
    for (const volume of rest.volumes)
      if (volume.kind === 'empty') removeTree(join(view.dir, 'sharedVolumes', volume.name));
  });
  return 0;
}
