/** What the command line says of a pod's machine (flavor kvm), and what it boots. */
import type { Context } from '../src/context.ts';
import { TspodError } from '../src/errors.ts';
import type { MachineOptions } from '../src/pod/pod.ts';
import type { Flavor } from '../stage1-flavors/flavor.ts';
import type { MachineArgs } from './args/types.ts';

const FLAGS: Readonly<Record<keyof MachineArgs, string>> = {
  memory: '--vm-memory',
  cpus: '--vm-cpus',
  diskSize: '--disk-size',
  accel: '--qemu-accel',
};

/**
 * Undefined for flavors without a machine. What is not said is as it was when the pod was prepared. The first pod of kvm on a machine builds the image that it boots.
 * @throws TspodError 'usage' for a flag that says nothing here, or nothing at all
 */
export async function machineOptions(
  context: Context,
  flavor: Flavor,
  args: MachineArgs,
  prepared?: MachineOptions,
): Promise<MachineOptions | undefined> {
  if (flavor.name === 'kvm') {
    const { planMachine } = await import('./vm-image/plan-machine.ts');
    return planMachine(context, args, prepared);
  }
  for (const [key, flag] of Object.entries(FLAGS)) {
    if (key in args) {
      throw new TspodError('usage', `${flag}: only a pod of flavor kvm has a machine`, {
        hint: 'give --stage1-name=kvm too',
      });
    }
  }
  return undefined;
}
