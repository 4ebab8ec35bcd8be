/** What an image consists of, for leases and for gc. */
import type { Digest } from '../image/digest.ts';
import type { ImageRecord } from './types.ts';

/** Every blob and every layer of the image. A lease on these keeps all of it. */
export function imageDigests(
  image: Pick<ImageRecord, 'id' | 'manifestDigest' | 'layers' | 'appc'>,
): Digest[] {
  return [
    image.id,
    image.manifestDigest,
    ...(image.appc === undefined ? [] : [image.appc.manifest]),
    ...image.layers.flatMap(layer => [layer.diffId, layer.blob.digest]),
  ];
}
