/** The networks of a pod that is about to run, where its flavor has any (nspawn; a stage1 image makes its own). */
import type { Context } from '../src/context.ts';
import { writePlan } from '../src/pod/folder.ts';
import type { PodHandle } from '../src/pod/lifecycle.ts';
import { wantsNetworks } from '../src/pod/net-request.ts';
import type { Pod } from '../src/pod/pod.ts';
import type { Flavor } from '../stage1-flavors/flavor.ts';
import { tearDownNetworks } from './net/tear-down.ts';

/** What a pod has that starts without `--net`: rkt's default, where it is not the host's. */
export function defaultNet(flavor: Flavor): string | undefined {
  return flavor.name === 'nspawn' ? 'default' : undefined;
}

/**
 * @param dir of the pod, which this process has locked; it lies in `run`
 * @throws TspodError; nothing is left of it then
 */
export async function connectPod(
  context: Context,
  dir: string,
  pod: Pod,
  flavor: Flavor,
): Promise<void> {
  if (flavor.name !== 'nspawn' || !wantsNetworks(pod.options.net)) return;
  const { setUpNetworks } = await import('./net/set-up.ts');
  const dns = setUpNetworks(context, pod, dir);
  if (dns !== undefined) writePlan(dir, flavor.plan({ ...pod, options: { ...pod.options, dns } }));
}

/** Of a pod that did not come to run after all. */
export function disconnectPod({ uuid, dir }: PodHandle): void {
  tearDownNetworks(uuid, dir);
}
