/** A layer of an image in the store as the plain tar that its diff-id is of. */
import { createReadStream, statSync } from 'node:fs';
import { compressionOf, transformOf } from '../../src/image/oci.ts';
import { packingOfBlob } from '../../src/store/ensure-layers.ts';
import type { ImageRecord, Store } from '../../src/store/types.ts';
import { rewriteAci } from '../unpack/aci-rewrite.ts';
import { DEFAULT_BOUNDS } from '../unpack/bounds.ts';
import { decompress } from '../unpack/decompress.ts';

const CHUNK = 1024 * 1024;

export interface LayerTar {
  readonly size: number;
  read(): AsyncIterable<Uint8Array>;
}

/** From its blob, which is read twice: the first time to learn how long the tar is. */
export async function layerTar(store: Store, image: ImageRecord, index: number): Promise<LayerTar> {
  const layer = image.layers[index];
  const described = store.manifest(image).value.layers[index];
  if (layer === undefined) throw new Error('the image has no such layer');
  const path = store.blobs.path(layer.blob.digest);
  const packing = await packingOfBlob(path, described ?? layer.blob);
  const compression = compressionOf(packing);
  const transform = transformOf(packing);
  const read = (): AsyncIterable<Uint8Array> => {
    const input = createReadStream(path, { highWaterMark: CHUNK });
    const tar = decompress(input, compression, DEFAULT_BOUNDS);
    return transform === undefined ? tar : rewriteAci(tar, transform);
  };
  if (compression === 'none' && transform === undefined) return { size: statSync(path).size, read };
  let size = 0;
  for await (const chunk of read()) size += chunk.length;
  return { size, read };
}
