/**
 * Blobs by digest, as they came. A blob is written to `tmp/blob.<algorithm>.<hex>.partial` under the lock
 * of that file, hashed on its way, and reaches its place only when size and digest are right and the bytes
 * are on the disk. So what lies under blobs/ is whole, whoever was killed when.
 */
import { createHash, type Hash, hash as hashOnce } from 'node:crypto';
import {
  closeSync,
  constants,
  existsSync,
  fdatasync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readSync,
  renameSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { errnoOf, systemError, TspodError } from '../errors.ts';
import { type Digest, digestAlgorithm, digestHex } from '../image/digest.ts';
import type { Descriptor } from '../image/oci.ts';
import { faultPoint } from '../sys/fault.ts';
import { native } from '../sys/native.ts';
import { type Layout, unwritable } from './layout.ts';
import { LockWait, lockEntry, withStoreLock } from './locks.ts';
import type { BlobStore, BlobWriter } from './types.ts';

/** Dirty bytes after which the disk is set to work in the background, so that commit has little to wait for. */
const SYNC_EVERY = 16 * 1024 * 1024;
const READ_CHUNK = 1024 * 1024;

export const PARTIAL_PREFIX = 'blob.';
export const DAMAGED_PREFIX = 'damaged.';

export function openBlobStore(layout: Layout): BlobStore {
  const store: BlobStore = {
    has: digest => existsSync(layout.blob(digest)),
    path: digest => layout.blob(digest),
    read: (digest, maxBytes) => readBlob(layout, digest, maxBytes),
    verify: digest => verifyBlob(layout, digest),
    open: (descriptor, onWait, signal) => openWriter(layout, descriptor, onWait, signal),
    put(bytes, digest) {
      if (store.has(digest)) return;
      const writer = lockPartial(layout, { digest, size: bytes.length });
      if (writer === 'done') return;
      if (writer === 'busy') {
        // Another process writes the same few bytes; it is no use to wait for it.
        putAside(layout, bytes, digest);
        return;
      }
      if (writer.offset > 0) writer.restart();
      writer.write(bytes);
      writer.commit();
    },
  };
  return store;
}

async function openWriter(
  layout: Layout,
  descriptor: Descriptor,
  onWait: (() => void) | undefined,
  signal: AbortSignal | undefined,
): Promise<BlobWriter | undefined> {
  const wait = new LockWait(onWait, signal);
  for (;;) {
    const writer = lockPartial(layout, descriptor);
    if (writer === 'done') return undefined;
    if (writer !== 'busy') return writer;
    await wait.pause();
  }
}

type Wanted = Pick<Descriptor, 'digest' | 'size'>;

function lockPartial(layout: Layout, wanted: Wanted): PartialBlob | 'done' | 'busy' {
  const final = layout.blob(wanted.digest);
  if (existsSync(final)) return 'done';
  layout.make();
  const { O_RDWR, O_CREAT, O_NOFOLLOW } = constants;
  const path = partialPath(layout, wanted.digest);
  let fd: number | undefined;
  try {
    fd = lockEntry(path, () => openSync(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0o600));
  } catch (error) {
    throw unwritable(layout.dir, error);
  }
  if (fd === undefined) return 'busy';
  if (existsSync(final)) {
    // It was completed between the look and the lock: this file is a new, empty one.
    unlinkSync(path);
    closeSync(fd);
    return 'done';
  }
  const blob = new PartialBlob(fd, path, final, wanted);
  return blob.resume() ? 'done' : blob;
}

export function partialPath(layout: Layout, digest: Digest): string {
  return `${layout.tmp}/${PARTIAL_PREFIX}${digest.replace(':', '.')}.partial`;
}

class PartialBlob implements BlobWriter {
  readonly #path: string;
  readonly #final: string;
  readonly #wanted: Wanted;
  #fd: number | undefined;
  #hash: Hash;
  #written = 0;
  #offset = 0;
  #synced = 0;
  #syncing = false;

  constructor(fd: number, path: string, final: string, wanted: Wanted) {
    this.#fd = fd;
    this.#path = path;
    this.#final = final;
    this.#wanted = wanted;
    this.#hash = createHash(digestAlgorithm(wanted.digest));
  }

  get offset(): number {
    return this.#offset;
  }

  /**
   * Takes up what an interrupted writer left, hashing it again: nothing says that it reached the disk.
   * True when the blob turned out to be complete and was committed.
   */
  resume(): boolean {
    const fd = this.#open();
    const { size } = fstatSync(fd);
    if (size === 0) return false;
    try {
      if (size > this.#wanted.size) {
        this.restart();
        return false;
      }
      this.#written = hashFile(fd, this.#hash);
      this.#offset = this.#written;
      if (this.#written < this.#wanted.size) return false;
      if (this.#hash.copy().digest('hex') !== digestHex(this.#wanted.digest)) {
        this.restart();
        return false;
      }
      this.commit();
      return true;
    } catch (error) {
      this.#close();
      throw systemError(`blob ${this.#wanted.digest}: can't resume`, error);
    }
  }

  /** Forgets what is there. */
  restart(): void {
    ftruncateSync(this.#open(), 0);
    this.#hash = createHash(digestAlgorithm(this.#wanted.digest));
    this.#written = 0;
    this.#offset = 0;
    this.#synced = 0;
  }

  write(chunk: Uint8Array): void {
    const fd = this.#open();
    if (this.#written + chunk.length > this.#wanted.size) {
      this.abort();
      throw new TspodError(
        'limit',
        `blob ${this.#wanted.digest}: longer than the ${this.#wanted.size} bytes of its descriptor`,
      );
    }
    faultPoint('store-blob-write');
    try {
      for (let done = 0; done < chunk.length; ) {
        done += writeSync(fd, chunk, done, chunk.length - done, this.#written + done);
      }
    } catch (error) {
      this.abort();
      throw systemError(`blob ${this.#wanted.digest}: can't write`, error);
    }
    this.#hash.update(chunk);
    this.#written += chunk.length;
    this.#startSync(fd);
  }

  commit(): void {
    const fd = this.#open();
    const { digest, size } = this.#wanted;
    if (this.#written !== size) {
      const written = this.#written;
      this.abort();
      throw new TspodError('digest', `blob ${digest}: ended after ${written} of ${size} bytes`);
    }
    const hex = this.#hash.digest('hex');
    if (hex !== digestHex(digest)) {
      const resumed = this.#offset > 0;
      this.abort();
      throw new TspodError(
        'digest',
        `blob ${digest}: its content has the digest ${digestAlgorithm(digest)}:${hex}`,
        resumed ? { hint: 'it was resumed from an interrupted download; fetch it once more' } : {},
      );
    }
    faultPoint('store-blob-verified');
    try {
      fsyncSync(fd);
      faultPoint('store-blob-synced');
      renameSync(this.#path, this.#final);
      faultPoint('store-blob-renamed');
      native().fsync(dirname(this.#final));
    } catch (error) {
      this.abort();
      throw systemError(`blob ${digest}: can't keep it`, error);
    }
    this.#close();
  }

  suspend(): void {
    if (this.#fd === undefined) return;
    // A file without a byte is no help to anybody.
    if (this.#written === 0) this.abort();
    else this.#close();
  }

  abort(): void {
    if (this.#fd === undefined) return;
    try {
      unlinkSync(this.#path);
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw systemError(`can't remove ${this.#path}`, error);
    } finally {
      this.#close();
    }
  }

  #open(): number {
    if (this.#fd === undefined) throw new Error('the blob writer was closed');
    return this.#fd;
  }

  #startSync(fd: number): void {
    if (this.#syncing || this.#written - this.#synced < SYNC_EVERY) return;
    this.#syncing = true;
    this.#synced = this.#written;
    // Its error, if any, comes again at fsync in commit.
    fdatasync(fd, () => {
      this.#syncing = false;
      if (this.#fd === undefined) closeSync(fd);
    });
  }

  #close(): void {
    const fd = this.#fd;
    if (fd === undefined) return;
    this.#fd = undefined;
    // A sync on its way still uses the descriptor and closes it when it is back.
    if (this.#syncing) native().flock(fd, 'unlock', false);
    else closeSync(fd);
  }
}

/**
 * `put` without the partial's lock: a file of its own name, renamed over the other's result, which is the
 * same. The store lock keeps gc from taking the file for a dead writer's before it is locked.
 */
function putAside(layout: Layout, bytes: Uint8Array, digest: Digest): void {
  const actual = hashOnce(digestAlgorithm(digest), bytes, 'hex');
  if (actual !== digestHex(digest)) {
    throw new TspodError(
      'digest',
      `blob ${digest}: its content has the digest ${digestAlgorithm(digest)}:${actual}`,
    );
  }
  const path = `${partialPath(layout, digest)}.${process.pid}`;
  try {
    withStoreLock(layout, 'shared', () => {
      const fd = openSync(path, 'w', 0o600);
      try {
        writeFileSync(fd, bytes);
        fsyncSync(fd);
        renameSync(path, layout.blob(digest));
      } catch (error) {
        unlinkSync(path);
        throw error;
      } finally {
        closeSync(fd);
      }
    });
    native().fsync(dirname(layout.blob(digest)));
  } catch (error) {
    throw systemError(`blob ${digest}: can't keep it`, error);
  }
}

function readBlob(layout: Layout, digest: Digest, maxBytes: number): Uint8Array {
  const bytes = readStored(layout, digest, maxBytes);
  if (hashOnce(digestAlgorithm(digest), bytes, 'hex') !== digestHex(digest)) {
    throw damaged(layout, digest);
  }
  return bytes;
}

/**
 * A small blob without hashing it again: it was verified when it came, and whoever can write to the store
 * since can as well change the layers, which nobody hashes at each run. (rkt gave it up in 1.26; the first
 * use of OpenSSL costs a quarter of Node's own start.)
 */
export function readStored(layout: Layout, digest: Digest, maxBytes: number): Uint8Array {
  const path = layout.blob(digest);
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw systemError(`blob ${digest}: can't read`, error);
    throw new TspodError('store', `blob ${digest}: it is not in the store`, {
      hint: 'fetch the image again',
    });
  }
  let bytes: Buffer;
  try {
    const { size } = fstatSync(fd);
    if (size > maxBytes) {
      throw new TspodError(
        'limit',
        `blob ${digest}: ${size} bytes is over the limit of ${maxBytes}`,
      );
    }
    bytes = Buffer.alloc(size);
    let done = 0;
    while (done < size) {
      const got = readSync(fd, bytes, done, size - done, done);
      if (got === 0) break;
      done += got;
    }
    bytes = bytes.subarray(0, done);
  } catch (error) {
    throw systemError(`blob ${digest}: can't read`, error);
  } finally {
    closeSync(fd);
  }
  return bytes;
}

/**
 * Hashes a blob of any size.
 * @throws TspodError 'store' when it is damaged; it is then out of the way, so that a fetch brings it anew.
 */
export function verifyBlob(layout: Layout, digest: Digest): void {
  const hash = createHash(digestAlgorithm(digest));
  try {
    const fd = openSync(layout.blob(digest), constants.O_RDONLY | constants.O_NOFOLLOW);
    try {
      hashFile(fd, hash);
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    throw systemError(`blob ${digest}: can't read`, error);
  }
  if (hash.digest('hex') !== digestHex(digest)) throw damaged(layout, digest);
}

/** Takes a damaged blob out of its place. Where the store can't be written it stays, and the error is the same. */
function damaged(layout: Layout, digest: Digest): TspodError {
  try {
    renameSync(layout.blob(digest), `${layout.tmp}/${DAMAGED_PREFIX}${digest.replace(':', '.')}`);
  } catch (error) {
    if (errnoOf(error) !== 'EROFS' && errnoOf(error) !== 'EACCES' && errnoOf(error) !== 'ENOENT') {
      return systemError(`blob ${digest}: it is damaged, and can't be put aside`, error);
    }
  }
  return new TspodError(
    'store',
    `blob ${digest}: its content is damaged, it no longer has this digest`,
    {
      hint: 'fetch the image again, and look at the disk',
    },
  );
}

/** Feeds the whole file to `hash`; the number of bytes. */
function hashFile(fd: number, hash: Hash): number {
  const buffer = Buffer.allocUnsafe(READ_CHUNK);
  let total = 0;
  for (;;) {
    const got = readSync(fd, buffer, 0, buffer.length, total);
    if (got === 0) return total;
    hash.update(buffer.subarray(0, got));
    total += got;
  }
}
