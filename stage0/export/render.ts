/** An image's files in a folder: its manifest, and its root file system as a pod would see it. */
import { chmodSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ImageRecord, Store } from '../../src/store/types.ts';
import { renderLayers } from '../unpack/render.ts';
import { imageManifest } from './appc-manifest.ts';

/** `own`: without what an ACI depends on. */
export type Part = 'all' | 'own';

/**
 * The caller holds a lease on the image.
 * @param folder exists and is empty; gets `manifest` and `rootfs`
 */
export async function renderImage(
  store: Store,
  image: ImageRecord,
  part: Part,
  folder: string,
): Promise<void> {
  const isOwn = part === 'own' && image.appc !== undefined;
  const rootfs = join(folder, 'rootfs');
  mkdirSync(rootfs);
  chmodSync(rootfs, 0o755);
  await renderLayers(store, image, isOwn ? image.layers.slice(-1) : image.layers, rootfs);
  writeFileSync(join(folder, 'manifest'), imageManifest(store, image));
}

/** `folder` becomes its own `rootfs`. */
export function keepRootfsOnly(folder: string): void {
  const aside = `${folder}.rootfs`;
  renameSync(join(folder, 'rootfs'), aside);
  rmSync(folder, { recursive: true });
  renameSync(aside, folder);
}
