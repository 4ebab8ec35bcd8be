/** The networks of a pod that is about to run, where its flavor has any (nspawn and kvm; a stage1 image makes its own). */
import type { Context } from '../src/context.ts';
import { writePlan } from '../src/pod/folder.ts';
import type { PodHandle } from '../src/pod/lifecycle.ts';
import { wantsNetworks } from '../src/pod/net-request.ts';
import type { Pod } from '../src/pod/pod.ts';
import type { Flavor } from '../stage1-flavors/flavor.ts';
import { tearDownNetworks } from './net/tear-down.ts';

/** Whether its pods have networks of their own. */
export function hasNetworks(flavor: Flavor): boolean {
  return flavor.name === 'nspawn' || flavor.name === 'kvm';
}

/** What a pod has that starts without `--net`: rkt's default, where it is not the host's. */
export function defaultNet(flavor: Flavor): string | undefined {
  return hasNetworks(flavor) ? 'default' : undefined;
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
  if (!hasNetworks(flavor) || !wantsNetworks(pod.options.net)) return;
  const { setUpNetworks } = await import('./net/set-up.ts');
  const dns = setUpNetworks(context, pod, dir);
  const connected: Pod = {
    ...pod,
    ...(dns === undefined ? {} : { options: { ...pod.options, dns } }),
    ...(flavor.name === 'kvm' ? await takenOver(pod, dir) : {}),
  };
  if (connected.options !== pod.options || connected.interfaces !== undefined)
    writePlan(dir, flavor.plan(connected));
}

async function takenOver({ uuid }: Pod, dir: string): Promise<Pick<Pod, 'interfaces'>> {
  const { takeOverInterfaces } = await import('./net/machine.ts');
  return { interfaces: takeOverInterfaces(uuid, dir) };
}

/** Of a pod that did not come to run after all. */
export function disconnectPod({ uuid, dir }: PodHandle): void {
  tearDownNetworks(uuid, dir);
}
