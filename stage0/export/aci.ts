/**
 * An image as an ACI (appc 0.8.11, "Image Archives"): of what came as one, the tar as it came, uncompressed, as
 * rkt exports it; of anything else its manifest in appc's words and its layers as one root file system. That is
 * a stream from the layers' blobs: no file of the image is ever made, and the same image gives the same bytes.
 */
import type { ImageRecord, Store } from '../../src/store/types.ts';
import { decompressedBlob, mergedTar } from '../unpack/layer-tars.ts';
import { padding, plainFile } from '../unpack/merge/tar-member.ts';
import { imageManifest } from './appc-manifest.ts';
import { writeAll } from './write-all.ts';

/** The caller holds a lease on the image. */
export async function writeAci(store: Store, image: ImageRecord, fd: number): Promise<void> {
  for await (const piece of aciOf(store, image)) await writeAll(fd, piece);
}

async function* aciOf(store: Store, image: ImageRecord): AsyncGenerator<Uint8Array> {
  const own = image.layers.at(-1);
  if (image.appc !== undefined && own !== undefined) {
    yield* decompressedBlob(store, image, own);
    return;
  }
  const manifest = imageManifest(store, image);
  yield plainFile('manifest', manifest.length);
  yield manifest;
  yield padding(manifest.length);
  yield* mergedTar(store, image, image.layers, 'rootfs/');
}
