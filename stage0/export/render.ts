/**
 * An image's root file system as plain files: its layers, unpacked and laid over one another by the confined
 * child. The unpacked layers stay in the store, as for pods without an overlay, until the image is removed.
 */
import { chmodSync, mkdirSync, renameSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Context } from '../../src/context.ts';
import { warn } from '../../src/context.ts';
import { imageDigests } from '../../src/store/digests.ts';
import { ensureLayers } from '../../src/store/ensure-layers.ts';
import { openStore } from '../../src/store/store.ts';
import type { ImageRecord } from '../../src/store/types.ts';
import { directoryForm } from '../unpack/directory.ts';
import { flattenLayers } from '../unpack/flatten.ts';
import { imageManifest } from './appc-manifest.ts';

/** `own`: without what an ACI depends on. */
export type Part = 'all' | 'own';

/** @param folder exists and is empty; gets `manifest` and `rootfs` */
export async function renderImage(
  context: Context,
  image: ImageRecord,
  part: Part,
  folder: string,
): Promise<void> {
  const store = openStore(context.dir, { forms: [directoryForm] });
  const lease = store.lease();
  try {
    lease.add(...imageDigests(image));
    await ensureLayers(store, image, () => {
      warn(context, 'another process is unpacking the same layer, waiting...');
    });
    const layers =
      part === 'own' && image.appc !== undefined ? image.layers.slice(-1) : image.layers;
    const trees = layers.flatMap(({ diffId }) => {
      const tree = store.layers.tree(diffId);
      return tree.form === 'directory' ? [tree.path] : [];
    });
    const rootfs = join(folder, 'rootfs');
    mkdirSync(rootfs);
    chmodSync(rootfs, 0o755);
    await flattenLayers(trees, rootfs);
    const manifest = join(folder, 'manifest');
    writeFileSync(manifest, imageManifest(store, image));
    // Of no layer: the same image gives the same files.
    utimesSync(manifest, 0, 0);
    utimesSync(rootfs, 0, 0);
  } finally {
    lease.release();
    store.close();
  }
}

/** `folder` becomes its own `rootfs`. */
export function keepRootfsOnly(folder: string): void {
  const aside = `${folder}.rootfs`;
  renameSync(join(folder, 'rootfs'), aside);
  rmSync(folder, { recursive: true });
  renameSync(aside, folder);
}
