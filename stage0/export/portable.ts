/**
 * An image as other programs can read it: its manifest and blobs as they are, unless it came as an ACI. An
 * ACI's layers are of a type of our own, so each is made into an ordinary one, a tar packed by gzip, with a
 * manifest that says so; its config, which is its id, stays. The copies have no names: they are gone with the
 * process. The same image always gives the same manifest.
 */
import { createHash } from 'node:crypto';
import { closeSync, createReadStream, writeSync } from 'node:fs';
import { Readable } from 'node:stream';
import { createGzip } from 'node:zlib';
import { systemError, TspodError } from '../../src/errors.ts';
import { aciTransform } from '../../src/image/aci-layer.ts';
import { appFromImageConfig } from '../../src/image/convert.ts';
import { type Digest, parseDigest } from '../../src/image/digest.ts';
import { type Descriptor, type ImageManifest, MEDIA, type Raw } from '../../src/image/oci.ts';
import { parseImageManifest } from '../../src/image/oci-validate.ts';
import type { ImageRecord, Store } from '../../src/store/types.ts';
import { digestOf } from '../fetch/source.ts';
import { unnamedFile } from '../fetch/spool.ts';
import { layerTar } from '../unpack/layer-tars.ts';

const CHUNK = 1024 * 1024;
const GZIP_LAYER = 'application/vnd.oci.image.layer.v1.tar+gzip';

export interface PortableImage {
  readonly manifest: Raw<ImageManifest>;
  /** Config and layers, each once. */
  readonly blobs: readonly Descriptor[];
  /** A blob's bytes, or those from `start` to before `end`. */
  read(blob: Descriptor, start?: number, end?: number): Readable;
  close(): void;
}

/**
 * The caller holds a lease on the image.
 * @throws TspodError 'unsupported' for an ACI that no OCI config can describe, 'store' for a missing blob
 */
export async function portableImage(store: Store, image: ImageRecord): Promise<PortableImage> {
  const manifest = store.manifest(image);
  const copies = new Map<Digest, number>();
  const close = () => {
    for (const fd of copies.values()) closeSync(fd);
  };
  const made = (whole: Raw<ImageManifest>): PortableImage => {
    const { config, layers } = whole.value;
    const blobs = [...new Map([...layers, config].map(blob => [blob.digest, blob])).values()];
    for (const blob of blobs) checkBlob(store, copies, blob);
    return {
      manifest: whole,
      blobs,
      read: ({ digest }, start = 0, end = Number.POSITIVE_INFINITY) => {
        const fd = copies.get(digest);
        if (end <= start) return Readable.from([]);
        const from = { start, end: end - 1, highWaterMark: CHUNK };
        return fd === undefined
          ? createReadStream(store.blobs.path(digest), from)
          : createReadStream('', { ...from, fd, autoClose: false });
      },
      close,
    };
  };
  try {
    if (image.appc === undefined) return made(manifest);
    checkConfig(store, image);
    const layers: Descriptor[] = [];
    for (const [index, layer] of image.layers.entries()) {
      const described = manifest.value.layers[index] ?? layer.blob;
      if (aciTransform(described) === undefined) layers.push(described);
      else layers.push(await copyOf(store, image, layer, copies));
    }
    const { config } = manifest.value;
    const text = { schemaVersion: 2, mediaType: MEDIA.ociManifest, config, layers };
    const bytes = Buffer.from(JSON.stringify(text));
    return made(parseImageManifest(bytes, digestOf(bytes)));
  } catch (error) {
    close();
    throw error;
  }
}

function checkBlob(
  store: Store,
  copies: ReadonlyMap<Digest, number>,
  { digest }: Descriptor,
): void {
  if (copies.has(digest) || store.blobs.has(digest)) return;
  throw new TspodError('store', `blob ${digest}: it is not in the store`, {
    hint: 'fetch the image again',
  });
}

/** appc has users that are paths of the image; who reads the config would not run it. */
function checkConfig(store: Store, image: ImageRecord): void {
  const name = image.names[0] ?? image.id;
  try {
    appFromImageConfig(store.config(image).value, name);
  } catch (error) {
    if (!(error instanceof TspodError)) throw error;
    throw new TspodError('unsupported', `${error.message}, which no OCI image can say`, {
      hint: 'export it with --format=aci',
      cause: error,
    });
  }
}

async function copyOf(
  store: Store,
  image: ImageRecord,
  layer: ImageRecord['layers'][number],
  copies: Map<Digest, number>,
): Promise<Descriptor> {
  const fd = unnamedFile(store.dir);
  try {
    const hash = createHash('sha256');
    const packed = Readable.from(layerTar(store, image, layer), { objectMode: false });
    const gzip = createGzip({ chunkSize: CHUNK });
    packed.on('error', error => gzip.destroy(error));
    let size = 0;
    for await (const chunk of packed.pipe(gzip)) {
      const bytes: Uint8Array = chunk;
      hash.update(bytes);
      for (let done = 0; done < bytes.length; ) {
        done += writeSync(fd, bytes, done, bytes.length - done, size + done);
      }
      size += bytes.length;
    }
    const digest = parseDigest(`sha256:${hash.digest('hex')}`, 'layer');
    if (copies.has(digest)) closeSync(fd);
    else copies.set(digest, fd);
    return { mediaType: GZIP_LAYER, digest, size };
  } catch (error) {
    closeSync(fd);
    throw systemError(`layer ${layer.diffId}: can't copy it`, error);
  }
}
