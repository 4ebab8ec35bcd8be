/**
 * `image verify`: whether what the store holds of an image is still what it was. Blobs are hashed; each layer
 * is made again beside the one that is there, from its blob, and compared with it. That proves the diff-id as
 * well, and works for every form.
 */
import { createReadStream } from 'node:fs';
import { TspodError } from '../errors.ts';
import type { Digest } from '../image/digest.ts';
import { packingOfBlob } from './ensure-layers.ts';
import type { ImageRecord, Store } from './types.ts';

export interface LayerVerdict {
  readonly diffId: Digest;
  /** `absent`: it is not unpacked, or in a form that this machine can't use. */
  readonly state: 'whole' | 'rebuilt' | 'in-use' | 'absent';
  /** The first difference, of one that was not whole. */
  readonly difference?: string;
}

/**
 * The caller holds a lease on the image.
 * @param inUse layers of pods: a damaged one of them is told and left, for pods see it
 * @throws TspodError 'store' for a damaged or missing blob
 */
export async function verifyImage(
  store: Store,
  image: ImageRecord,
  inUse: ReadonlySet<Digest>,
): Promise<readonly LayerVerdict[]> {
  const appc = image.appc === undefined ? [] : [image.appc.manifest];
  const blobs = [image.manifestDigest, image.id, ...appc, ...image.layers.map(l => l.blob.digest)];
  for (const digest of new Set(blobs)) store.blobs.verify(digest);
  const described = store.manifest(image).value.layers;
  const verdicts = new Map<Digest, LayerVerdict>();
  for (const [index, { diffId, blob }] of image.layers.entries()) {
    if (verdicts.has(diffId)) continue;
    const path = store.blobs.path(blob.digest);
    const packing = await packingOfBlob(path, described[index] ?? blob);
    const stream = createReadStream(path, { highWaterMark: 1024 * 1024 });
    const result = await store.layers.verify(diffId, packing, stream, inUse.has(diffId));
    verdicts.set(diffId, { diffId, ...result });
  }
  return [...verdicts.values()];
}

/** One sentence of a layer that was not whole; undefined for one that was. */
export function whyNotWhole({ diffId, difference }: LayerVerdict): string | undefined {
  return difference === undefined ? undefined : `layer ${diffId}: ${difference} differs`;
}

export function damagedInUse(verdict: LayerVerdict): TspodError {
  return new TspodError('store', `${whyNotWhole(verdict) ?? verdict.diffId}, and pods use it`, {
    hint: 'remove the pods of this image, and verify it again',
  });
}
