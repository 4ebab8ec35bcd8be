/**
 * The process that makes a layer's disks for machines whose kernel mounts no blocks of 512 bytes (before Linux 6.4): an
 * index with blocks of 4096 bytes, and beside it the files' data alone, each on a block of its own. It reads the
 * layer's tar as the one who took it in did, by the same code, and is confined likewise, in the layer's own folder.
 */
import { closeSync, fsyncSync, openSync, readSync, renameSync, rmSync } from 'node:fs';
import { systemError } from '../../../src/errors.ts';
import { native } from '../../../src/sys/native.ts';
import { DEFAULT_BOUNDS } from '../bounds.ts';
import { answerOf } from '../message.ts';
import type { TarEntry, TarHandler } from '../tar-entry.ts';
import { TarReader } from '../tar-reader.ts';
import { confine, writeAll } from './confined.ts';
import { DISK_DATA_FILE, DISK_META_FILE, TAR_FILE } from './disk-files.ts';
import { DATA_APART } from './format.ts';
import { ErofsIndexer } from './index-writer.ts';

const BLOCK = DATA_APART.block;
const READ = 1024 * 1024;
const ZEROS = new Uint8Array(BLOCK);

/** Writes the data of files one after another, each from a block's beginning. */
class Realigner implements TarHandler {
  readonly #indexer: ErofsIndexer;
  readonly #fd: number;
  readonly #pending: Uint8Array[] = [];
  #pendingBytes = 0;
  /** Bytes of the disk so far. */
  bytes = 0;

  constructor(indexer: ErofsIndexer, fd: number) {
    this.#indexer = indexer;
    this.#fd = fd;
  }

  begin(entry: TarEntry): void {
    this.align();
    this.#indexer.begin({ ...entry, dataOffset: this.bytes });
  }

  data(entry: TarEntry, chunk: Uint8Array, position: number): void {
    this.#indexer.data(entry, chunk, position);
    this.#write(Uint8Array.from(chunk));
  }

  end(): void {
    this.#indexer.end();
  }

  align(): void {
    const over = this.bytes % BLOCK;
    if (over > 0) this.#write(ZEROS.subarray(over));
  }

  flush(): void {
    if (this.#pendingBytes > 0) writeAll(this.#fd, Buffer.concat(this.#pending.splice(0)));
    this.#pendingBytes = 0;
  }

  #write(chunk: Uint8Array): void {
    this.#pending.push(chunk);
    this.#pendingBytes += chunk.length;
    this.bytes += chunk.length;
    if (this.#pendingBytes >= READ) this.flush();
  }
}

function convert(aside: string): void {
  const tar = openSync(TAR_FILE, 'r');
  const data = openSync(`${DISK_DATA_FILE}${aside}`, 'wx', 0o644);
  const meta = openSync(`${DISK_META_FILE}${aside}`, 'wx', 0o644);
  try {
    const indexer = new ErofsIndexer({ shape: DATA_APART });
    const realigner = new Realigner(indexer, data);
    const reader = new TarReader(realigner, DEFAULT_BOUNDS);
    const buffer = Buffer.alloc(READ);
    for (let got = readSync(tar, buffer); got > 0; got = readSync(tar, buffer))
      reader.write(buffer.subarray(0, got));
    reader.end();
    realigner.align();
    realigner.flush();
    // A device has a block at least.
    if (realigner.bytes === 0) writeAll(data, ZEROS);
    for (const chunk of indexer.finish(Math.max(realigner.bytes, BLOCK))) writeAll(meta, chunk);
    fsyncSync(data);
    fsyncSync(meta);
  } finally {
    for (const fd of [tar, data, meta]) closeSync(fd);
  }
  // Who sees the second has the first.
  renameSync(`${DISK_DATA_FILE}${aside}`, DISK_DATA_FILE);
  renameSync(`${DISK_META_FILE}${aside}`, DISK_META_FILE);
}

function main(): void {
  const { parent, root }: { parent: number; root: string } = JSON.parse(process.argv[2] ?? '');
  native().dieWithParent(parent);
  const aside = `.${process.pid}`;
  confine(root);
  try {
    convert(aside);
  } catch (error) {
    for (const name of [DISK_DATA_FILE, DISK_META_FILE]) rmSync(`${name}${aside}`, { force: true });
    const failure = answerOf(systemError("layer: can't make its disk", error));
    process.stdout.write(JSON.stringify(failure));
  }
}

main();
