/**
 * Tars of an image's layers from their blobs, in whatever form the store keeps the layers: all of them as one
 * tar without whiteouts, or one as it is. They are made in the confined child.
 */
import { closeSync, mkdtempSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { TspodError } from '../../src/errors.ts';
import { compressionOf, type Packing, transformOf } from '../../src/image/oci.ts';
import { packingOfBlob } from '../../src/store/ensure-layers.ts';
import { Layout } from '../../src/store/layout.ts';
import { removeTree } from '../../src/store/remove-tree.ts';
import type { ImageRecord, Store } from '../../src/store/types.ts';
import { DEFAULT_BOUNDS } from './bounds.ts';
import { UnpackChild } from './child-process.ts';
import type { TarJob } from './message.ts';

const CHILD_IDLE_MS = 5 * 60_000;

export type Layers = ImageRecord['layers'];

/**
 * Layers together, as overlayfs would show them.
 * @param layers some of the image's or all, lowest first
 * @param prefix in front of every name, e.g. `rootfs/`
 * @throws TspodError 'store', 'digest' when a blob is missing or damaged
 */
export function mergedTar(
  store: Store,
  image: ImageRecord,
  layers: Layers,
  prefix: string,
): AsyncGenerator<Buffer> {
  return tars(store, image, layers, 'merge', prefix);
}

/** One layer's own tar, which its diff-id is the digest of. @throws as `mergedTar` */
export function layerTar(
  store: Store,
  image: ImageRecord,
  layer: Layers[number],
): AsyncGenerator<Buffer> {
  return tars(store, image, [layer], 'layer-tar', '');
}

/** The blob of an image's layer, only decompressed: of an ACI all of it. @throws as `mergedTar`, but for damage */
export function decompressedBlob(
  store: Store,
  image: ImageRecord,
  layer: Layers[number],
): AsyncGenerator<Buffer> {
  return tars(store, image, [layer], 'decompress', '');
}

/** The caller holds a lease on the image. */
async function* tars(
  store: Store,
  image: ImageRecord,
  layers: Layers,
  job: TarJob['job'],
  prefix: string,
): AsyncGenerator<Buffer> {
  const described = store.manifest(image).value.layers;
  const layout = new Layout(store.dir);
  const folder = mkdtempSync(join(layout.tmp, 'empty.'));
  const blobs: number[] = [];
  try {
    const packings: Packing[] = [];
    for (const layer of layers) {
      const path = blobPath(store, layer);
      blobs.push(openSync(path, 'r'));
      packings.push(
        await packingOfBlob(path, described[image.layers.indexOf(layer)] ?? layer.blob),
      );
    }
    const child = new UnpackChild(
      {
        job,
        folder,
        layers: layers.map(({ diffId }, index) => ({
          diffId,
          compression: compressionOf(packings[index] ?? 'none'),
        })),
        prefix,
        bounds: DEFAULT_BOUNDS,
      },
      CHILD_IDLE_MS,
      packings.map(packing => transformOf(packing) ?? null),
      blobs,
    );
    let isWhole = false;
    try {
      yield* child.tar();
      isWhole = true;
    } finally {
      if (!isWhole) await child.kill();
    }
  } finally {
    for (const fd of blobs) closeSync(fd);
    removeTree(folder);
  }
}

function blobPath(store: Store, { diffId, blob }: Layers[number]): string {
  if (!store.blobs.has(blob.digest)) {
    throw new TspodError('store', `layer ${diffId}: its blob is not in the store`, {
      hint: 'fetch the image again',
    });
  }
  return store.blobs.path(blob.digest);
}
