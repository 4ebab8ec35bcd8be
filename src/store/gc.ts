/**
 * Garbage collection of the store. Three moments, in this order, make it safe beside everything else and
 * safe to kill:
 *
 *   1. Under the exclusive store lock: read the live leases, then what pods use, then the images. (A pod
 *      that is being prepared writes down what it uses before it drops its lease; read in this order,
 *      one of the two is seen.)
 *   2. Still under it: the records of unused images go in one transaction; then everything that nothing
 *      names is renamed into tmp. Records first, so that no record ever leads to something moved away.
 *   3. Without any lock: what was moved is deleted. What a killed gc left in tmp, the next one finds.
 */
import { closeSync, constants, type Dirent, lstatSync, openSync, readdirSync } from 'node:fs';
import { errnoOf, systemError, TspodError } from '../errors.ts';
import { type Digest, isDigest } from '../image/digest.ts';
import { faultPoint } from '../sys/fault.ts';
import { PARTIAL_PREFIX } from './blobs.ts';
import type { Database } from './database.ts';
import { imageDigests } from './digests.ts';
import { recordedIds, removeImageRecord } from './image-record.ts';
import { bytesOnDisk, isTrusted, LAYER_TMP_PREFIX, layerPlaces, settleLayers } from './layers.ts';
import type { Layout } from './layout.ts';
import { leasedDigests } from './leases.ts';
import { lockEntry, withStoreLock } from './locks.ts';
import { removeTree } from './remove-tree.ts';
import { sealLayers } from './seal.ts';
import { moveToTrash } from './trash.ts';
import type { GcResult, ImageRecord, LayerForm, PodImageUse } from './types.ts';

export interface GcOptions {
  readonly graceMs: number;
  readonly maxBytes?: number;
  readonly dryRun?: boolean;
  readonly seal?: boolean;
  readonly forms: readonly LayerForm[];
  readonly inUse: () => Iterable<PodImageUse>;
  /** ms since the epoch */
  readonly now: number;
}

export function collectGarbage(layout: Layout, database: Database, options: GcOptions): GcResult {
  if (options.dryRun !== true) settleLayers(layout);
  faultPoint('store-gc-begin');
  const collection = new Collection(layout);
  const shortOfSpace = collect(layout, database, options, collection);
  if (shortOfSpace !== undefined) {
    // The transaction itself needs a few kilobytes: there may be room for it now.
    if (!collection.removedSomething) throw shortOfSpace;
    const again = collect(layout, database, options, collection);
    if (again !== undefined) throw again;
  }
  faultPoint('store-gc-deleted');
  // Last: it reads every layer that is kept, once.
  if (options.seal === true && options.dryRun !== true)
    collection.failures.push(...sealLayers(layout, options.forms));
  return collection;
}

/**
 * The three moments, once. On a full disk the records of unused images can't be taken out; then only their
 * layers go, which can be unpacked again from their blobs, and the error is returned.
 */
function collect(
  layout: Layout,
  database: Database,
  options: GcOptions,
  collection: Collection,
): TspodError | undefined {
  const shortOfSpace = withStoreLock(layout, 'exclusive', () => {
    const leased = leasedDigests(layout);
    const used = podDigests(options.inUse());
    const images = database.all();
    const bytesOf = sizer(layout);
    const { removed, kept } = sortImages(images, leased, used, options, bytesOf);
    if (options.dryRun === true) {
      collection.images.push(...removed);
      collection.bytes = Math.max(0, bytesOf(images) - bytesOf(kept));
      return undefined;
    }
    faultPoint('store-gc-decided');
    const error = removeRecords(database, removed);
    faultPoint('store-gc-records');
    const recorded = error === undefined ? kept : images;
    if (error === undefined) collection.images.push(...removed);
    removeOrphanRecords(layout, recorded);
    collection.moveBlobs(new Set([...leased, ...used, ...recorded.flatMap(imageDigests)]));
    collection.moveLayers(new Set([...leased, ...used, ...kept.flatMap(imageDigests)]));
    collection.moveDeadWriters(options.now - options.graceMs);
    faultPoint('store-gc-moved');
    return error;
  });
  collection.deleteMoved();
  return shortOfSpace;
}

/** The error, if the disk is full. */
function removeRecords(database: Database, ids: readonly Digest[]): TspodError | undefined {
  try {
    database.remove(ids);
    return undefined;
  } catch (error) {
    if (error instanceof TspodError && error.code === 'disk-full') return error;
    throw error;
  }
}

/** Images that nothing uses go; the others keep what they name. */
function sortImages(
  images: readonly ImageRecord[],
  leased: ReadonlySet<Digest>,
  used: ReadonlySet<Digest>,
  { graceMs, now, maxBytes }: GcOptions,
  bytesOf: (images: readonly ImageRecord[]) => number,
): { removed: Digest[]; kept: ImageRecord[] } {
  const removed: Digest[] = [];
  const kept: ImageRecord[] = [];
  const usedAt = (image: ImageRecord) => Math.max(image.lastUsedAt, image.importedAt);
  const needed = ({ id, manifestDigest }: ImageRecord) =>
    [id, manifestDigest].some(digest => leased.has(digest) || used.has(digest));
  for (const image of images) {
    const unusedMs = now - usedAt(image);
    if (needed(image) || unusedMs < graceMs) kept.push(image);
    else removed.push(image.id);
  }
  if (maxBytes !== undefined) {
    const oldest = kept.filter(image => !needed(image)).sort((a, b) => usedAt(a) - usedAt(b));
    for (const image of oldest) {
      if (bytesOf(kept) <= maxBytes) break;
      kept.splice(kept.indexOf(image), 1);
      removed.push(image.id);
    }
  }
  return { removed, kept };
}

/** Counts blobs and unpacked layers, each once, however many images share it; looks at each layer once. */
function sizer(layout: Layout): (images: readonly ImageRecord[]) => number {
  const known = new Map<Digest, number>();
  const layerBytes = (diffId: Digest) => {
    const found = known.get(diffId);
    if (found !== undefined) return found;
    let bytes = 0;
    for (const form of ['directory', 'erofs']) {
      bytes += bytesOnDisk(layout.layer(form, diffId));
    }
    known.set(diffId, bytes);
    return bytes;
  };
  return images => {
    const sizes = new Map<string, number>();
    for (const { blob, diffId } of images.flatMap(({ layers }) => layers)) {
      sizes.set(`blob ${blob.digest}`, blob.size);
      sizes.set(diffId, layerBytes(diffId));
    }
    return [...sizes.values()].reduce((sum, size) => sum + size, 0);
  };
}

function podDigests(uses: Iterable<PodImageUse>): Set<Digest> {
  const digests = new Set<Digest>();
  for (const use of uses) {
    for (const digest of [use.id, use.manifestDigest, ...use.layers]) digests.add(digest);
  }
  return digests;
}

/** A record whose image the database does not have: left by a crash, or just taken out. */
function removeOrphanRecords(layout: Layout, kept: readonly ImageRecord[]): void {
  const ids = new Set(kept.map(image => image.id));
  for (const id of recordedIds(layout)) if (!ids.has(id)) removeImageRecord(layout, id);
}

class Collection implements GcResult {
  readonly images: Digest[] = [];
  readonly layers: Digest[] = [];
  readonly blobs: Digest[] = [];
  readonly failures: string[] = [];
  bytes = 0;
  readonly #layout: Layout;
  readonly #moved: string[] = [];

  constructor(layout: Layout) {
    this.#layout = layout;
  }

  get removedSomething(): boolean {
    return this.blobs.length > 0 || this.layers.length > 0;
  }

  moveBlobs(marked: ReadonlySet<Digest>): void {
    for (const algorithm of ['sha256', 'sha512']) {
      const folder = `${this.#layout.blobsRoot}/${algorithm}`;
      for (const { name } of entries(folder)) {
        const digest = `${algorithm}:${name}`;
        if (!isDigest(digest) || marked.has(digest)) continue;
        const size = lstatSync(`${folder}/${name}`, { throwIfNoEntry: false })?.size ?? 0;
        if (!this.#move(`${folder}/${name}`)) continue;
        this.blobs.push(digest);
        this.bytes += size;
        faultPoint('store-gc-blob-moved');
      }
    }
  }

  moveLayers(marked: ReadonlySet<Digest>): void {
    for (const { diffId, path } of layerPlaces(this.#layout)) {
      // One that an earlier boot did not get to the disk is of no use to anybody.
      if (marked.has(diffId) && isTrusted(path)) continue;
      const bytes = bytesOnDisk(path);
      if (!this.#move(path)) continue;
      this.layers.push(diffId);
      this.bytes += bytes;
      faultPoint('store-gc-layer-moved');
    }
  }

  /**
   * Everything in tmp that no process holds. A partial blob is kept for a resume while it is younger than
   * the grace period.
   */
  moveDeadWriters(partialsBefore: number): void {
    for (const entry of entries(this.#layout.tmp)) {
      const path = `${this.#layout.tmp}/${entry.name}`;
      if (entry.name.startsWith(LAYER_TMP_PREFIX)) {
        this.#moveUnlocked(path, constants.O_RDONLY | constants.O_DIRECTORY);
      } else if (entry.name.startsWith(PARTIAL_PREFIX)) {
        const stat = lstatSync(path, { throwIfNoEntry: false });
        if (stat === undefined || (stat.mtimeMs > partialsBefore && stat.size > 0)) continue;
        this.#moveUnlocked(path, constants.O_RDWR);
      } else {
        // Already trash, a damaged blob, or a record whose writer held the store lock, which we hold now.
        this.#moved.push(path);
      }
    }
  }

  deleteMoved(): void {
    for (const path of this.#moved.splice(0)) this.failures.push(...removeTree(path));
  }

  #moveUnlocked(path: string, flags: number): void {
    let fd: number | undefined;
    try {
      fd = lockEntry(path, () => openSync(path, flags | constants.O_NOFOLLOW));
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return;
      throw systemError(`gc: can't open ${path}`, error);
    }
    if (fd === undefined) return;
    try {
      this.#move(path);
    } finally {
      closeSync(fd);
    }
  }

  #move(path: string): boolean {
    try {
      const trash = moveToTrash(this.#layout, path);
      if (trash === undefined) return false;
      this.#moved.push(trash);
      return true;
    } catch (error) {
      this.failures.push(systemError(`can't remove ${path}`, error).message);
      return false;
    }
  }
}

function entries(folder: string): Dirent[] {
  try {
    return readdirSync(folder, { withFileTypes: true });
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw systemError(`gc: can't read ${folder}`, error);
  }
}
