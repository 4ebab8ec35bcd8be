/** `tspod stage1 build kvm`: makes the image that the machines of pods boot, and prints its id. */
import { cpSync, existsSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Context } from '../../src/context.ts';
import { systemError, TspodError } from '../../src/errors.ts';
import { requireRoot } from '../../src/sys/privilege.ts';
import { buildVmImage } from '../vm-image/build.ts';

export interface Stage1BuildArgs {
  readonly positionals: readonly string[];
  readonly kernel: string | undefined;
  /** A folder that is not there yet. */
  readonly out: string | undefined;
}

export async function run(context: Context, args: Stage1BuildArgs): Promise<number> {
  requireRoot(context.command);
  const [what, ...more] = args.positionals;
  if (what !== 'kvm' || more.length > 0) {
    throw new TspodError('usage', 'stage1 build: say what to build', {
      hint: 'only "stage1 build kvm" builds anything',
    });
  }
  if (args.out !== undefined && existsSync(args.out))
    throw new TspodError('usage', `stage1 build: --out=${args.out}: it is there already`);
  const image = await buildVmImage(context, args.kernel);
  if (args.out !== undefined) {
    try {
      cpSync(image.folder, resolve(args.out), { recursive: true });
    } catch (error) {
      throw systemError(`stage1 build: can't copy the image to ${args.out}`, error);
    }
  }
  process.stdout.write(`${image.id}\n`);
  return 0;
}
