/**
 * The store as a whole (see types.ts for the life of an image in it, docs/store.md for the protocols).
 * Several processes use it at the same time, and each may be killed at any instant.
 */
import { lstatSync } from 'node:fs';
import { TspodError } from '../errors.ts';
import {
  APPC_IMAGE_MANIFEST_MAX_BYTES,
  type AppcImageManifest,
  parseAppcImageManifest,
} from '../image/appc-manifest.ts';
import { type Digest, fromAppcHash, toAppcHash } from '../image/digest.ts';
import type { ImageConfig, ImageManifest, Raw } from '../image/oci.ts';
import {
  CONFIG_MAX_BYTES,
  MANIFEST_MAX_BYTES,
  parseImageConfig,
  parseImageManifest,
} from '../image/oci-validate.ts';
import { faultPoint } from '../sys/fault.ts';
import { openBlobStore, readStored, verifyBlob } from './blobs.ts';
import { Database } from './database.ts';
import { imageDigests } from './digests.ts';
import { collectGarbage } from './gc.ts';
import { lastUse, markUsed, removeImageRecord, writeImageRecord } from './image-record.ts';
import { type Layers, openLayerStore, settleLayers } from './layers.ts';
import { Layout } from './layout.ts';
import { leasedDigests, openLease } from './leases.ts';
import { withStoreLock } from './locks.ts';
import { removeTree } from './remove-tree.ts';
import { moveToTrash } from './trash.ts';
import type { BlobStore, Download, ImageRecord, LayerForm, Lease, Store } from './types.ts';

/** rkt: `image ID too short`. */
const SHORTEST_PREFIX = 2;

export interface StoreOptions {
  /** In order of preference; the first that this machine can use gets new layers. */
  readonly forms: readonly LayerForm[];
  /** Nothing is made or changed; what would need it throws. */
  readonly readOnly?: boolean;
}

/**
 * Opens the store below `dir`. Makes nothing before the first write: a folder that is not there is an
 * empty store.
 * @throws TspodError 'store' when a folder of it is open to others.
 */
export function openStore(dir: string, options: StoreOptions): Store {
  const layout = new Layout(dir);
  layout.check();
  return new FileStore(layout, options);
}

class FileStore implements Store {
  readonly dir: string;
  readonly blobs: BlobStore;
  readonly layers: Layers;
  readonly #layout: Layout;
  readonly #database: Database;
  readonly #leases = new Set<Pick<Lease, 'release'>>();
  readonly #forms: readonly LayerForm[];
  readonly #readOnly: boolean;

  constructor(layout: Layout, options: StoreOptions) {
    this.dir = layout.dir;
    this.#layout = layout;
    this.#forms = options.forms;
    this.#readOnly = options.readOnly ?? false;
    this.#database = new Database(layout, this.#readOnly);
    const blobs = openBlobStore(layout);
    const layers = openLayerStore(layout, options.forms);
    this.blobs = this.#readOnly ? { ...blobs, open: refuseAsync, put: refuse } : blobs;
    this.layers = this.#readOnly ? { ...layers, open: refuseAsync, verify: refuseAsync } : layers;
  }

  lease(): Lease {
    this.#writable();
    const lease = openLease(this.#layout);
    this.#leases.add(lease);
    return {
      add: (...digests) => lease.add(...digests),
      discard: digest => this.#discardBlob(digest, lease.path),
      release: () => {
        lease.release();
        this.#leases.delete(lease);
      },
    };
  }

  addImage(image: Parameters<Store['addImage']>[0]): ImageRecord {
    this.#writable();
    const { manifest, config } = image;
    const { diffIds } = config.value;
    if (manifest.value.config.digest !== config.digest) {
      throw new TspodError(
        'protocol',
        `image ${config.digest}: its manifest names the config ${manifest.value.config.digest}`,
      );
    }
    if (manifest.value.layers.length !== diffIds.length) {
      throw new TspodError(
        'protocol',
        `image ${config.digest}: its manifest has ${manifest.value.layers.length} layers and its config ${diffIds.length}`,
      );
    }
    this.blobs.put(manifest.bytes, manifest.digest);
    this.blobs.put(config.bytes, config.digest);
    faultPoint('store-image-begin');
    const now = Date.now();
    return withStoreLock(this.#layout, 'shared', () => {
      const layers = manifest.value.layers.map(({ mediaType, digest, size }, index) => {
        const diffId = diffIds[index];
        if (diffId === undefined) throw new Error('diff-ids were counted above');
        return { diffId, blob: { mediaType, digest, size } };
      });
      const size = this.#sizeOf(config, manifest.bytes.length + config.bytes.length, layers);
      const record = this.#database.add(
        {
          id: config.digest,
          manifestDigest: manifest.digest,
          layers,
          verdict: image.verdict,
          importedAt: now,
          size,
          ...(image.appc === undefined ? {} : { appc: image.appc }),
        },
        image.name,
        now,
        stored => {
          const usedAt = stored.id === config.digest ? now : lastUse(this.#layout, stored.id);
          writeImageRecord(this.#layout, stored, usedAt);
          faultPoint('store-image-recorded');
        },
      );
      faultPoint('store-image-committed');
      return record;
    });
  }

  images(): readonly ImageRecord[] {
    return this.#database.all();
  }

  download(name: string): Download | undefined {
    return this.#database.download(name);
  }

  setDownload(name: string, download: Download): void {
    this.#writable();
    this.#database.setDownload(name, download);
  }

  byName(name: string): ImageRecord | undefined {
    return this.#database.byName(name);
  }

  byIdPrefix(prefix: string): ImageRecord | undefined {
    const whole = fromAppcHash(prefix);
    if (whole !== undefined) {
      return (
        this.#database.byId(whole) ??
        this.#database.byDigestPrefix('manifest_digest', whole)[0] ??
        this.#database.byDigestPrefix('appc_id', whole)[0]
      );
    }
    const match = /^(?:(sha256|sha512)[:-])?([0-9a-f]+)$/.exec(prefix);
    const hex = match?.[2] ?? '';
    if (match === null || hex.length < SHORTEST_PREFIX) return undefined;
    const prefixes =
      match[1] === undefined ? [`sha256:${hex}`, `sha512:${hex}`] : [`${match[1]}:${hex}`];
    for (const column of ['id', 'manifest_digest', 'appc_id'] as const) {
      const found = prefixes.flatMap(each => this.#database.byDigestPrefix(column, each));
      if (found.length > 1) {
        throw new TspodError('ambiguous', `ambiguous image ID: "${prefix}"`, {
          hint: 'give more of its digits',
        });
      }
      if (found[0] !== undefined) return found[0];
    }
    return undefined;
  }

  manifest(image: ImageRecord): Raw<ImageManifest> {
    const bytes = this.blobs.read(image.manifestDigest, MANIFEST_MAX_BYTES);
    return parseImageManifest(bytes, image.manifestDigest);
  }

  config(image: ImageRecord): Raw<ImageConfig> {
    const bytes = readStored(this.#layout, image.id, CONFIG_MAX_BYTES);
    try {
      return parseImageConfig(bytes, image.id);
    } catch (error) {
      // It could be read when it came: if it is damaged now, that is what to say.
      verifyBlob(this.#layout, image.id);
      throw error;
    }
  }

  appcManifest(image: ImageRecord): Raw<AppcImageManifest> | undefined {
    if (image.appc === undefined) return undefined;
    const { manifest } = image.appc;
    const bytes = readStored(this.#layout, manifest, APPC_IMAGE_MANIFEST_MAX_BYTES);
    try {
      const value = parseAppcImageManifest(bytes, `image ${toAppcHash(image.appc.id)}`);
      return { bytes, digest: manifest, value };
    } catch (error) {
      verifyBlob(this.#layout, manifest);
      throw error;
    }
  }

  touch(image: ImageRecord): void {
    if (!this.#readOnly) markUsed(this.#layout, image.id);
  }

  removeImage(id: Digest): void {
    this.#writable();
    withStoreLock(this.#layout, 'shared', () => {
      faultPoint('store-image-remove');
      if (this.#database.remove([id]).length === 0) {
        throw new TspodError('not-found', `image ${id}: it is not in the store`);
      }
      faultPoint('store-image-removed');
      removeImageRecord(this.#layout, id);
    });
  }

  settle(): void {
    this.#writable();
    settleLayers(this.#layout);
  }

  gc(options: Parameters<Store['gc']>[0]): ReturnType<Store['gc']> {
    this.#writable();
    // Without a store there is nothing to collect, and no reason to make one.
    if (lstatSync(this.#layout.root, { throwIfNoEntry: false }) === undefined) {
      return { images: [], layers: [], blobs: [], bytes: 0, failures: [] };
    }
    this.#layout.make();
    return collectGarbage(this.#layout, this.#database, {
      ...options,
      forms: this.#forms,
      now: Date.now(),
    });
  }

  close(): void {
    for (const lease of this.#leases) lease.release();
    this.#leases.clear();
    this.#database.close();
  }

  /** See Lease.discard. Decided and moved as gc does: under the exclusive lock, leases before images. */
  #discardBlob(digest: Digest, lease: string): void {
    const trash = withStoreLock(this.#layout, 'exclusive', () => {
      const named =
        leasedDigests(this.#layout, lease).has(digest) ||
        this.#database.all().some(image => imageDigests(image).includes(digest));
      return named ? undefined : moveToTrash(this.#layout, this.#layout.blob(digest));
    });
    if (trash !== undefined) removeTree(trash);
  }

  /** Bytes of the blobs and of the unpacked layers, which all have to be there. */
  #sizeOf(
    config: { readonly digest: Digest },
    documents: number,
    layers: ImageRecord['layers'],
  ): number {
    let size = documents;
    for (const { diffId, blob } of layers) {
      const info = this.layers.info(diffId);
      if (info === undefined || !this.blobs.has(blob.digest)) {
        const missing = info === undefined ? `layer ${diffId}` : `blob ${blob.digest}`;
        throw new TspodError(
          'store',
          `image ${config.digest}: its ${missing} is not in the store`,
          {
            hint: 'fetch the image again',
          },
        );
      }
      size += blob.size + info.bytes;
    }
    return size;
  }

  #writable(): void {
    if (this.#readOnly) refuse();
  }
}

function refuse(): never {
  throw new Error('the store was opened for reading');
}

async function refuseAsync(): Promise<never> {
  return refuse();
}
