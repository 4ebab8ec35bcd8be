/**
 * `tspod fetch IMAGE...`: brings images into the store and prints the id of each, shortened as rkt does.
 * The ids of images that were fetched are printed at once, so that a failure of the next one loses nothing.
 */
import type { Context } from '../../src/context.ts';
import { TspodError } from '../../src/errors.ts';
import { openStore } from '../../src/store/store.ts';
import type { PullPolicy } from '../args/types.ts';
import { fetchImage } from '../fetch/fetch.ts';
import { layerForms } from '../unpack/forms.ts';
import { imageId, showImageId } from './image-id.ts';

const SHORT_DIGITS = 32;

export interface FetchArgs {
  readonly positionals: readonly string[];
  readonly flags: {
    readonly full: boolean;
    readonly pullPolicy: PullPolicy;
    readonly signature: string | undefined;
  };
}

export async function run(context: Context, { positionals, flags }: FetchArgs): Promise<number> {
  if (positionals.length === 0) {
    throw new TspodError('usage', 'fetch: must provide at least one image', {
      hint: 'for example docker://HOST/NAME:TAG, oci:FOLDER:TAG, HOST/NAME:VERSION or FILE.aci',
    });
  }
  if (flags.signature !== undefined && positionals.length > 1) {
    throw new TspodError('usage', 'fetch: --signature is for one image', {
      hint: 'fetch each image in a call of its own',
    });
  }
  const store = openStore(context.dir, { forms: layerForms(context.dir) });
  const lease = store.lease();
  try {
    for (const reference of positionals) {
      const { image } = await fetchImage(context, store, reference, {
        pullPolicy: flags.pullPolicy,
        lease,
        signature: flags.signature,
      });
      const id = showImageId(context, imageId(image), flags.full ? undefined : SHORT_DIGITS);
      process.stdout.write(`${id}\n`);
    }
  } finally {
    lease.release();
    store.close();
  }
  return 0;
}
