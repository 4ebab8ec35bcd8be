/** A layer of an image in the store as the plain tar that its diff-id is of. */
import { createReadStream, statSync } from 'node:fs';
import { packingOfBlob } from '../../src/store/ensure-layers.ts';
import type { ImageRecord, Store } from '../../src/store/types.ts';
import { layerTar as tarOfLayer } from '../unpack/layer-tars.ts';

const CHUNK = 1024 * 1024;

export interface LayerTar {
  readonly size: number;
  read(): AsyncIterable<Uint8Array>;
}

/** From its blob, which is read twice unless it is a plain tar: the first time to learn how long the tar is. */
export async function layerTar(store: Store, image: ImageRecord, index: number): Promise<LayerTar> {
  const layer = image.layers[index];
  const described = store.manifest(image).value.layers[index];
  if (layer === undefined) throw new Error('the image has no such layer');
  const path = store.blobs.path(layer.blob.digest);
  if ((await packingOfBlob(path, described ?? layer.blob)) === 'none') {
    return {
      size: statSync(path).size,
      read: () => createReadStream(path, { highWaterMark: CHUNK }),
    };
  }
  const read = () => tarOfLayer(store, image, layer);
  let size = 0;
  for await (const chunk of read()) size += chunk.length;
  return { size, read };
}
