/** From flags to what a pod's machine is made of; loaded for pods of flavor kvm alone. */
import '../hot.ts';
import { availableParallelism } from 'node:os';
import { type Context, warn } from '../../src/context.ts';
import { TspodError } from '../../src/errors.ts';
import type { MachineOptions } from '../../src/pod/pod.ts';
import { parseQuantity } from '../../src/pod/quantity.ts';
import { vmImagesFolder } from '../../src/pod/vm-image.ts';
import type { MachineArgs } from '../args/types.ts';
import { chooseAccelerator } from './accelerator.ts';
import { ensureVmImage } from './build.ts';

const MEBI = 1024n * 1024n;
/** A kernel and its file system in memory do not fit into less. */
const LEAST_MEMORY = 96n * MEBI;
const MOST_MEMORY = 16n * 1024n * 1024n * MEBI;
const LEAST_DISK = 16n * MEBI;
const MOST_DISK = 64n * 1024n * 1024n * MEBI;
const MOST_CPUS = 255;

/** @throws TspodError 'usage', and as ensureVmImage and chooseAccelerator */
export async function planMachine(
  context: Context,
  args: MachineArgs,
  prepared: MachineOptions | undefined,
): Promise<MachineOptions> {
  const memory = bytes('--vm-memory', args.memory, LEAST_MEMORY, MOST_MEMORY) ?? prepared?.memory;
  const disk = bytes('--disk-size', args.diskSize, LEAST_DISK, MOST_DISK) ?? prepared?.disk;
  const cpus = processors(args.cpus) ?? prepared?.cpus;
  const wanted = args.accel ?? prepared?.accel ?? 'auto';
  if (wanted !== 'auto' && wanted !== 'kvm' && wanted !== 'tcg')
    throw wrong('--qemu-accel', wanted, 'it must be kvm, tcg or auto');
  const image = await ensureVmImage(context);
  const accel = await chooseAccelerator(wanted, image);
  if (accel === 'tcg' && wanted === 'auto')
    warn(context, 'warning: kvm does not work here: the machine is emulated, which is slow');
  return {
    image: image.id,
    imageFolder: vmImagesFolder(context.dir),
    smallBlocks: image.smallBlocks,
    accel,
    ...(memory === undefined ? {} : { memory }),
    ...(cpus === undefined ? {} : { cpus }),
    ...(disk === undefined ? {} : { disk }),
  };
}

function bytes(
  flag: string,
  text: string | undefined,
  least: bigint,
  most: bigint,
): number | undefined {
  if (text === undefined) return undefined;
  let value: bigint;
  try {
    value = parseQuantity(text, 0, flag);
  } catch {
    throw wrong(flag, text, 'it is no amount, e.g. 512Mi or 2Gi');
  }
  if (value < least || value > most)
    throw wrong(flag, text, `it must be from ${least / MEBI}Mi to ${most / MEBI}Mi`);
  return Number(value);
}

function processors(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const most = Math.min(MOST_CPUS, availableParallelism());
  if (!/^[1-9]\d{0,2}$/.test(text) || Number(text) > most)
    throw wrong('--vm-cpus', text, `it must be from 1 to ${most}`);
  return Number(text);
}

function wrong(flag: string, text: string, why: string): TspodError {
  return new TspodError('usage', `${flag}=${text.slice(0, 60)}: ${why}`);
}
