/**
 * An image's root filesystem as plain files, from its blobs, whatever form the store keeps the layers in: one
 * confined child makes one tar of all layers, without whiteouts, a second one unpacks it. So each file is
 * written once, and nothing is ever written that a higher layer hides.
 */
import { resolve } from 'node:path';
import type { ImageRecord, Store } from '../../src/store/types.ts';
import { DEFAULT_BOUNDS } from './bounds.ts';
import { UnpackChild } from './child-process.ts';
import { type Layers, mergedTar } from './layer-tars.ts';

const IDLE_MS = 15 * 60_000;
const CHILD_IDLE_MS = 5 * 60_000;

/**
 * The caller holds a lease on the image.
 * @param layers those of the image that are wanted, lowest first
 * @param target an existing, empty folder; what is in it after a failure is the caller's to remove
 * @throws TspodError 'privilege', 'store' and 'digest' for a missing or damaged blob, 'disk-full', 'system'
 */
export async function renderLayers(
  store: Store,
  image: ImageRecord,
  layers: Layers,
  target: string,
): Promise<void> {
  const child = new UnpackChild(
    {
      job: 'unpack',
      folder: resolve(target),
      compression: 'none',
      algorithm: 'sha256',
      bounds: DEFAULT_BOUNDS,
      idleMs: IDLE_MS,
      plain: true,
    },
    CHILD_IDLE_MS,
  );
  try {
    for await (const piece of mergedTar(store, image, layers, '')) await child.write(piece);
    await child.finish();
  } catch (error) {
    await child.kill();
    throw error;
  }
}
