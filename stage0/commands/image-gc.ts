/**
 * `tspod image gc`: removes images unused for the grace period, and everything that no image, pod or live
 * fetch uses. Runs beside everything else; killed, the next one finishes.
 */
import { type Context, warn } from '../../src/context.ts';
import { EXIT_FAILURE } from '../../src/errors.ts';
import { humanSize, parseDuration } from '../../src/humanize.ts';
import type { Digest } from '../../src/image/digest.ts';
import { podImageUses } from '../../src/pod/lifecycle.ts';
import { openStore } from '../../src/store/store.ts';
import { layerForms } from '../unpack/forms.ts';
import { showImageId } from './image-id.ts';

export interface ImageGcArgs {
  readonly positionals: readonly string[];
  readonly flags: {
    /** A Go duration; rkt's default is 24h0m0s. */
    readonly gracePeriod: string;
  };
}

export async function run(context: Context, { flags }: ImageGcArgs): Promise<number> {
  const graceMs = parseDuration(flags.gracePeriod, 'image gc: --grace-period');
  const store = openStore(context.dir, { forms: layerForms(context.dir) });
  try {
    const result = store.gc({ graceMs, inUse: () => podImageUses(context.dir) });
    const what = context.program === 'rkt' ? 'treestore' : 'layer';
    for (const diffId of result.layers) {
      warn(context, `removed ${what} "${showImageId(context, diffId)}"`);
    }
    reportRemoved(context, result.images, result.failures);
    if (result.bytes > 0 && context.program !== 'rkt') {
      warn(context, `${humanSize(result.bytes)} freed`);
    }
    return result.failures.length > 0 ? EXIT_FAILURE : 0;
  } finally {
    store.close();
  }
}

/** rkt's lines for removed images: each on stdout, the count on stderr. */
export function reportRemoved(
  context: Context,
  images: readonly Digest[],
  failures: readonly string[],
): void {
  const what = context.program === 'rkt' ? 'aci for image:' : 'image';
  for (const id of images) {
    process.stdout.write(`successfully removed ${what} "${showImageId(context, id)}"\n`);
  }
  if (images.length > 0) warn(context, `${images.length} image(s) successfully removed`);
  for (const failure of failures) warn(context, failure);
  if (failures.length > 0) warn(context, 'error(s) found while removing images');
}
