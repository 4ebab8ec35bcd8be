/**
 * Getting hold of an image that is in the store. `holdImage` is the whole protocol: find, lease, and look
 * again. `ensureLayers` unpacks again what is missing of an image's layers, from its blobs: a layer that
 * had not reached the disk when the power failed, or one in a form that this machine can no longer use;
 * where nothing is missing it costs one stat per layer.
 */
import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { systemError, TspodError } from '../errors.ts';
import { aciTransform } from '../image/aci-layer.ts';
import type { Compression, Descriptor, Packing } from '../image/oci.ts';
import { verifyBlob } from './blobs.ts';
import { imageDigests } from './digests.ts';
import { Layout } from './layout.ts';
import type { ImageRecord, Lease, Store } from './types.ts';

/** A name that keeps moving to other images is somebody else's fault; this many times it is followed. */
const MOST_LOOKS = 10;

/**
 * Finds an image in the store and keeps it, whole, for as long as the lease lives.
 * @param find looks it up, e.g. `() => store.byName(name)`; called again after the lease names the image
 * @param onWait called once when another process unpacks a missing layer
 * @returns undefined when it is not there, or was removed in between
 * @throws TspodError 'store' when a layer is missing and can't be unpacked again
 */
export async function holdImage(
  store: Store,
  lease: Lease,
  find: () => ImageRecord | undefined,
  onWait?: () => void,
): Promise<ImageRecord | undefined> {
  let found = find();
  for (let looks = 0; found !== undefined && looks < MOST_LOOKS; looks++) {
    lease.add(...imageDigests(found));
    const again = find();
    if (again?.id === found.id && again.manifestDigest === found.manifestDigest) {
      await ensureLayers(store, again, onWait);
      return again;
    }
    found = again;
  }
  return undefined;
}

/**
 * The caller holds a lease on the image.
 * @throws TspodError 'store' when a blob is missing or damaged; the way out is a new fetch.
 */
export async function ensureLayers(
  store: Store,
  image: ImageRecord,
  onWait?: () => void,
): Promise<void> {
  const missing = image.layers.filter(layer => !store.layers.has(layer.diffId));
  if (missing.length === 0) return;
  const { layers } = store.manifest(image).value;
  try {
    for (const [index, layer] of image.layers.entries()) {
      if (missing.includes(layer)) await restore(store, layer, layers[index], onWait);
    }
  } finally {
    await store.layers.rest();
  }
}

async function restore(
  store: Store,
  { diffId, blob }: ImageRecord['layers'][number],
  described: Descriptor | undefined,
  onWait: (() => void) | undefined,
): Promise<void> {
  if (!store.blobs.has(blob.digest)) {
    throw new TspodError('store', `layer ${diffId}: neither it nor its blob is in the store`, {
      hint: 'fetch the image again',
    });
  }
  const path = store.blobs.path(blob.digest);
  const packing = await packingOfBlob(path, described ?? blob);
  const writer = await store.layers.open(diffId, packing, onWait);
  if (writer === undefined) return;
  try {
    for await (const chunk of createReadStream(path, { highWaterMark: 1024 * 1024 })) {
      await writer.write(chunk);
    }
    await writer.commit();
  } catch (error) {
    await writer.abort();
    // A damaged blob explains any failure to unpack it, and says what to do.
    verifyBlob(new Layout(store.dir), blob.digest);
    throw systemError(`layer ${diffId}: can't unpack it again`, error);
  }
}

/** How a blob of the store is packed: by its first bytes, and what its descriptor says of an ACI. */
export async function packingOfBlob(path: string, layer: Descriptor): Promise<Packing> {
  const compression = await compressionOf(path);
  const transform = aciTransform(layer);
  return transform === undefined ? compression : { compression, transform };
}

const MAGIC: readonly (readonly [Compression, string])[] = [
  ['gzip', '1f8b'],
  ['zstd', '28b52ffd'],
  ['bzip2', '425a68'],
  ['xz', 'fd377a585a00'],
];

/** By the first bytes: media types of layers in the wild do not always say what is inside. */
async function compressionOf(path: string): Promise<Compression> {
  const file = await open(path);
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(6), 0, 6, 0);
    const start = buffer.subarray(0, bytesRead).toString('hex');
    return MAGIC.find(([, magic]) => start.startsWith(magic))?.[0] ?? 'none';
  } finally {
    await file.close();
  }
}
