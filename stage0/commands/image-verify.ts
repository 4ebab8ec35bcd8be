/**
 * `tspod image verify IMAGE...`: hashes the blobs again and compares each unpacked layer with one that is made
 * again; a layer that differs is replaced, as rkt does with its tree cache, unless a pod uses it. rkt's lines.
 */
import { type Context, warn } from '../../src/context.ts';
import { EXIT_FAILURE, reasonOf, TspodError } from '../../src/errors.ts';
import type { Digest } from '../../src/image/digest.ts';
import { podImageUses } from '../../src/pod/lifecycle.ts';
import { imageDigests } from '../../src/store/digests.ts';
import { findImage } from '../../src/store/find-image.ts';
import { openStore } from '../../src/store/store.ts';
import type { ImageRecord, Store } from '../../src/store/types.ts';
import { damagedInUse, verifyImage, whyNotWhole } from '../../src/store/verify-image.ts';
import { layerForms } from '../unpack/forms.ts';
import { imageId, showImageId } from './image-id.ts';

export interface ImageVerifyArgs {
  readonly positionals: readonly string[];
}

export async function run(context: Context, { positionals }: ImageVerifyArgs): Promise<number> {
  if (positionals.length === 0) {
    throw new TspodError('usage', 'image verify: must provide at least one image');
  }
  const store = openStore(context.dir, { forms: layerForms(context.dir) });
  const lease = store.lease();
  let failed = 0;
  try {
    for (const text of positionals) {
      try {
        const image = findImage(store, text);
        lease.add(...imageDigests(image));
        await verify(context, store, image);
      } catch (error) {
        if (!(error instanceof TspodError)) throw error;
        warn(context, reasonOf(error));
        failed++;
      }
    }
  } finally {
    await store.layers.rest();
    lease.release();
    store.close();
  }
  return failed > 0 ? EXIT_FAILURE : 0;
}

async function verify(context: Context, store: Store, image: ImageRecord): Promise<void> {
  const id = showImageId(context, imageId(image));
  const shown = `"${image.names[0] ?? '<none>'}" ("${id}")`;
  const used = new Set<Digest>();
  for (const use of podImageUses(context.dir)) for (const layer of use.layers) used.add(layer);
  const layers = await verifyImage(store, image, used);
  for (const layer of layers) {
    if (layer.state === 'in-use') throw damagedInUse(layer);
    if (layer.state === 'rebuilt') {
      warn(
        context,
        `tree cache verification failed for image ${shown}: ${whyNotWhole(layer)}; rebuilding...`,
      );
    }
  }
  if (layers.length > 0 && layers.every(({ state }) => state === 'absent')) {
    process.stdout.write(`image ${shown} not rendered; no verification needed\n`);
    return;
  }
  process.stdout.write(`successfully verified checksum for image: ${shown}\n`);
  if (layers.length > 0 && layers.every(({ diffId }) => store.layers.sealed(diffId))) {
    process.stdout.write(`image ${shown} is sealed by fs-verity: the kernel checks every read\n`);
  }
}
