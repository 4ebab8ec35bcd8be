/**
 * Layers into the store: each chunk from the source goes to the blob and to the unpacker in one pass,
 * several layers at a time. Whoever is slower sets the pace, so memory stays at a few chunks per layer.
 *
 * Blob before layer, always: two processes that take the locks in one order can't wait for each other.
 */
import { createReadStream } from 'node:fs';
import { TspodError } from '../../src/errors.ts';
import type { Digest } from '../../src/image/digest.ts';
import type { AciTransform, Compression, Descriptor, Packing } from '../../src/image/oci.ts';
import { shortDigest } from '../../src/image/reference.ts';
import type { BlobWriter, Lease, Store } from '../../src/store/types.ts';
import { usedUp } from '../../src/sys/scavenge.ts';
import type { Progress, ProgressItem } from '../progress.ts';
import { checkCompression, compressionOfBytes, SNIFF_BYTES } from './compression.ts';
import type { ImageSource } from './source.ts';

/** As Docker and containerd: more gains nothing on one registry and costs a process each. */
const AT_ONCE = 4;
const CHUNK = 1024 * 1024;

export interface WantedLayer {
  readonly blob: Descriptor;
  readonly diffId: Digest;
  /** The blob is an ACI. */
  readonly transform?: AciTransform;
}

export interface LayerContext {
  readonly store: Store;
  readonly lease: Pick<Lease, 'discard'>;
  readonly source: Pick<ImageSource, 'blob'>;
  readonly progress: Progress;
  /** Told once per layer that another process is writing. */
  readonly onWait: () => void;
  /** Aborted when one layer has failed; the source stops by the same signal. */
  readonly stop: AbortController;
}

/** All of them, or an error: the first one; the others then stop at once. */
export async function fetchLayers(
  context: LayerContext,
  layers: readonly WantedLayer[],
): Promise<void> {
  const queue = distinct(layers).filter(
    ({ blob, diffId }) =>
      !context.store.blobs.has(blob.digest) || !context.store.layers.has(diffId),
  );
  let failed: { readonly error: unknown } | undefined;
  const worker = async () => {
    for (let layer = queue.shift(); layer !== undefined; layer = queue.shift()) {
      if (failed !== undefined) return;
      try {
        await fetchLayer(context, layer);
      } catch (error) {
        failed ??= { error };
        context.stop.abort();
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, queue.length) }, worker));
  await context.store.layers.rest();
  if (failed !== undefined) throw failed.error;
}

/** An image may have the same layer several times. */
function distinct(layers: readonly WantedLayer[]): WantedLayer[] {
  return [
    ...new Map(layers.map(layer => [`${layer.blob.digest} ${layer.diffId}`, layer])).values(),
  ];
}

async function fetchLayer(context: LayerContext, layer: WantedLayer): Promise<void> {
  const { blob } = layer;
  const item = context.progress.add(shortDigest(blob.digest), blob.size);
  try {
    await downloadLayer(context, layer, item);
  } catch (error) {
    // What has its own digest and is still no such layer helps nobody.
    if (isUnpackFailure(error)) context.lease.discard(blob.digest);
    throw error;
  }
  item.done('done');
}

async function downloadLayer(
  context: LayerContext,
  layer: WantedLayer,
  item: ProgressItem,
): Promise<void> {
  const { store, onWait, stop } = context;
  for (let again = false; ; again = true) {
    const writer = await store.blobs.open(layer.blob, onWait, stop.signal);
    if (writer === undefined) break;
    const resumed = writer.offset > 0;
    item.advance(writer.offset);
    try {
      if (!resumed) return await streamLayer(context, layer, writer, item);
      await streamBlob(context, layer.blob, writer, item);
      break;
    } catch (error) {
      // What an earlier run had left may have been bad: once more from the start.
      const stale = error instanceof TspodError && error.code === 'digest';
      if (!resumed || again || !stale) throw error;
    }
  }
  await unpackBlob(context, layer);
}

/** The rest of a blob of which a part was there: unpacking needs its beginning, so it comes after. */
async function streamBlob(
  { source, stop }: LayerContext,
  blob: Descriptor,
  writer: BlobWriter,
  item: ProgressItem,
): Promise<void> {
  try {
    for await (const chunk of source.blob(blob, writer.offset)) {
      stop.signal.throwIfAborted();
      writer.write(chunk);
      item.advance(chunk.length);
      usedUp(chunk.length);
    }
  } catch (error) {
    writer.suspend();
    throw error;
  }
  writer.commit();
}

type LayerWriter = NonNullable<Awaited<ReturnType<Store['layers']['open']>>>;

/** Failures that a wrong blob would explain. */
const UNPACK_CODES: ReadonlySet<string> = new Set(['unpack', 'digest', 'protocol']);

function isUnpackFailure(error: unknown): error is TspodError {
  return error instanceof TspodError && UNPACK_CODES.has(error.code);
}

/** Blob and layer in one pass. */
async function streamLayer(
  { store, source, onWait, stop }: LayerContext,
  { blob, diffId, transform }: WantedLayer,
  writer: BlobWriter,
  item: ProgressItem,
): Promise<void> {
  let layer: LayerWriter | undefined;
  /** A layer that does not unpack is often a blob that is not what it should be: the digest tells. */
  let unpackFailure: TspodError | undefined;
  const unpack = async (work: () => Promise<void>) => {
    try {
      await work();
    } catch (error) {
      if (!isUnpackFailure(error)) throw error;
      unpackFailure = error;
      await layer?.abort();
      layer = undefined;
    }
  };
  try {
    let opened = false;
    let head: Buffer = Buffer.alloc(0);
    const open = async () => {
      opened = true;
      await unpack(async () => {
        const packing = packingOf(blob, transform, compressionOfBytes(head));
        layer = await store.layers.open(diffId, packing, onWait, stop.signal);
        if (head.length > 0) await layer?.write(head);
      });
    };
    for await (const chunk of source.blob(blob, 0)) {
      stop.signal.throwIfAborted();
      writer.write(chunk);
      item.advance(chunk.length);
      usedUp(chunk.length);
      if (!opened) {
        head = head.length === 0 ? Buffer.from(chunk) : Buffer.concat([head, chunk]);
        if (head.length >= SNIFF_BYTES) await open();
        continue;
      }
      const current = layer;
      if (current !== undefined) await unpack(() => current.write(chunk));
    }
    if (!opened) await open();
  } catch (error) {
    await layer?.abort();
    // Only what came over a broken line is worth keeping; a refused layer leaves nothing.
    if (stop.signal.aborted || (error instanceof TspodError && error.code === 'network')) {
      writer.suspend();
    } else writer.abort();
    throw error;
  }
  try {
    writer.commit();
  } catch (error) {
    await layer?.abort();
    throw error;
  }
  if (unpackFailure !== undefined) throw unpackFailure;
  await layer?.commit();
}

/** From the verified blob in the store. */
async function unpackBlob(
  { store, onWait, stop }: LayerContext,
  { blob, diffId, transform }: WantedLayer,
): Promise<void> {
  if (store.layers.has(diffId)) return;
  const path = store.blobs.path(blob.digest);
  const packing = packingOf(blob, transform, await sniffFile(path));
  const layer = await store.layers.open(diffId, packing, onWait, stop.signal);
  if (layer === undefined) return;
  try {
    for await (const chunk of createReadStream(path, { highWaterMark: CHUNK })) {
      stop.signal.throwIfAborted();
      await layer.write(chunk);
    }
  } catch (error) {
    await layer.abort();
    throw error;
  }
  await layer.commit();
}

/** An ACI says by its bytes alone how it is compressed. */
function packingOf(
  blob: Descriptor,
  transform: AciTransform | undefined,
  actual: Compression,
): Packing {
  return transform === undefined
    ? checkCompression(blob, actual)
    : { compression: actual, transform };
}

async function sniffFile(path: string): Promise<Compression> {
  for await (const chunk of createReadStream(path, { start: 0, end: SNIFF_BYTES - 1 })) {
    return compressionOfBytes(chunk);
  }
  return 'none';
}
