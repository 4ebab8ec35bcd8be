/**
 * A layer of the store as one EROFS image that needs nothing else: metadata and data, blocks of 4096 bytes. It is for
 * kernels that can't mount blocks of 512 bytes (before Linux 6.4) and for machines that get a layer as a disk. Its
 * tree is what the layer's own form shows, whiteouts and opaque folders as overlayfs has them.
 *
 * Two passes over a tar, which is seekable: first the tree, then the data, so that ends of files lie with their inodes.
 */
import { closeSync, fstatSync, fsyncSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { systemError, TspodError } from '../../../src/errors.ts';
import { type Bounds, DEFAULT_BOUNDS } from '../bounds.ts';
import { TarReader } from '../tar-reader.ts';
import type { DataSource } from './data.ts';
import { FolderImager } from './folder-imager.ts';
import { SELF_CONTAINED } from './format.ts';
import { ErofsIndexer } from './index-writer.ts';
import { FileInode, type SparseInode } from './inodes.ts';

const PASS_BYTES = 1024 * 1024;

/** A layer as the store keeps it (`LayerTree`), as far as is read of it. */
export type LayerSource =
  | { readonly form: 'erofs'; readonly tar: string }
  | { readonly form: 'directory'; readonly path: string };

export interface SelfContained {
  /** Of the image: a multiple of 4096. */
  readonly bytes: number;
}

/**
 * Synchronous: to be called where nothing else waits. Equal layers give equal images.
 * @param path of the image, which must not exist yet; written, fsynced, and removed again when it can't be finished
 * @throws TspodError 'limit' when the image would be more than twice the layer and 512 MiB, 'store' when the
 * layer's files changed meanwhile, and what reading the archive throws
 */
export function writeSelfContained(
  layer: LayerSource,
  path: string,
  bounds: Bounds = DEFAULT_BOUNDS,
): SelfContained {
  let out: number;
  try {
    out = openSync(path, 'wx', 0o600);
  } catch (error) {
    throw systemError(`layer: can't write ${path}`, error);
  }
  let isWhole = false;
  try {
    const bytes =
      layer.form === 'erofs' ? ofTar(layer.tar, out, bounds) : ofFolder(layer.path, out);
    fsyncSync(out);
    isWhole = true;
    return { bytes };
  } catch (error) {
    throw systemError(`layer: can't make an image at ${path}`, error);
  } finally {
    closeSync(out);
    if (!isWhole) rmSync(path, { force: true });
  }
}

function ofTar(path: string, out: number, bounds: Bounds): number {
  const tar = openSync(path, 'r');
  try {
    const indexer = new ErofsIndexer({ shape: SELF_CONTAINED });
    const reader = new TarReader(indexer, bounds);
    const piece = Buffer.alloc(PASS_BYTES);
    for (;;) {
      const length = readSync(tar, piece);
      if (length === 0) break;
      reader.write(piece.subarray(0, length));
    }
    reader.end();
    return writeAll(out, indexer.finishWithData(fstatSync(tar).size, new TarData(tar)));
  } finally {
    closeSync(tar);
  }
}

function ofFolder(path: string, out: number): number {
  const imager = new FolderImager(path);
  try {
    return writeAll(out, imager.image());
  } finally {
    imager.close();
  }
}

function writeAll(fd: number, pieces: Iterable<Uint8Array>): number {
  let bytes = 0;
  for (const piece of pieces) {
    for (let done = 0; done < piece.length; ) done += writeSync(fd, piece, done);
    bytes += piece.length;
  }
  return bytes;
}

class TarData implements DataSource {
  readonly #fd: number;

  constructor(fd: number) {
    this.#fd = fd;
  }

  read(file: FileInode | SparseInode, position: number, into: Buffer): void {
    const start = file instanceof FileInode ? file.tarOffset : file.plan.tarOffset;
    for (let done = 0; done < into.length; ) {
      const length = readSync(this.#fd, into, done, into.length - done, start + position + done);
      if (length === 0) throw new TspodError('store', 'layer: its tar ends before its data');
      done += length;
    }
  }
}
