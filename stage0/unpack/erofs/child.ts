/**
 * The process that takes layers in as EROFS: decompresses, hashes, keeps the tar as it is and writes the
 * index beside it. What an image holds is parsed here, confined: chrooted into the store's folder for what
 * is being written, without capabilities and new privileges, killed with its parent. It makes three files
 * per layer, by names of our own; no name of an archive ever becomes a path.
 *
 * One process for several layers: each Node process costs 50 MB, and what takes time runs in other threads
 * anyway: decompression in libuv's, hashing and writing in one of the file's own.
 */
import { closeSync, ftruncateSync, openSync } from 'node:fs';
import { Socket } from 'node:net';
import { systemError } from '../../../src/errors.ts';
import type { Compression } from '../../../src/image/oci.ts';
import { openDigestFile } from '../../../src/sys/digest-file.ts';
import { native } from '../../../src/sys/native.ts';
import { usedUp } from '../../../src/sys/scavenge.ts';
import { AciRewriter } from '../aci-rewrite.ts';
import { decompress } from '../decompress.ts';
import { answerOf } from '../message.ts';
import { TarReader } from '../tar-reader.ts';
import { confine, writeAll } from './confined.ts';
import { FrameReader } from './frames.ts';
import { ErofsIndexer } from './index-writer.ts';
import {
  type ErofsRecord,
  FIRST_SLOT,
  type IndexAnswer,
  type Indexed,
  type IndexJob,
  META_FILE,
  RECORD_FILE,
  SLOTS,
  TAR_FILE,
} from './message.ts';

const BLOCK = 512;
const PROGRESS_MS = 2000;
/** Decoded by Node or not at all: each chunk is a buffer of its own. */
const OTHERS_DECODE: ReadonlySet<Compression> = new Set<Compression>(['none', 'gzip', 'zstd']);

function create(path: string): number {
  return openSync(path, 'wx', 0o600);
}

async function index(
  { folder, compression, algorithm, transform, bounds }: IndexJob,
  frames: FrameReader,
  working: () => void,
): Promise<Indexed> {
  const tar = create(`${folder}/${TAR_FILE}`);
  const output = openDigestFile(tar, algorithm);
  try {
    const indexer = new ErofsIndexer();
    const reader = new TarReader(indexer, bounds);
    const rewriter = transform && new AciRewriter(transform, { bounds });
    // What is made here, and what our own decoders give, is overwritten by what comes next.
    const stays = rewriter === undefined && OTHERS_DECODE.has(compression);
    let tarBytes = 0;
    let told = performance.now();
    const take = (piece: Buffer) => {
      output.write(stays ? piece : Buffer.from(piece));
      reader.write(piece);
      tarBytes += piece.length;
    };
    for await (const chunk of decompress(frames.data(), compression, bounds)) {
      if (rewriter === undefined) take(chunk);
      else for (const piece of rewriter.write(chunk)) take(piece);
      usedUp(chunk.length);
      const now = performance.now();
      if (now - told > PROGRESS_MS) {
        told = now;
        working();
      }
    }
    for (const piece of rewriter?.end() ?? []) take(piece);
    reader.end();
    const hex = output.end();
    if (tarBytes % BLOCK !== 0) ftruncateSync(tar, tarBytes + BLOCK - (tarBytes % BLOCK));
    const metaBytes = writeMeta(`${folder}/${META_FILE}`, indexer.finish(tarBytes));
    const record: ErofsRecord = { version: 1, tarBytes, root: indexer.root };
    const fd = create(`${folder}/${RECORD_FILE}`);
    try {
      writeAll(fd, Buffer.from(JSON.stringify(record)));
    } finally {
      closeSync(fd);
    }
    return {
      diffId: `${algorithm}:${hex}`,
      bytes: tarBytes + metaBytes,
      entries: indexer.entries,
    };
  } finally {
    output.close();
    closeSync(tar);
  }
}

function writeMeta(path: string, chunks: Iterable<Uint8Array>): number {
  const fd = create(path);
  let bytes = 0;
  try {
    for (const chunk of chunks) {
      writeAll(fd, chunk);
      bytes += chunk.length;
    }
  } finally {
    closeSync(fd);
  }
  return bytes;
}

async function serve(fd: number): Promise<void> {
  const socket = new Socket({ fd, readable: true, writable: true });
  const frames = new FrameReader(socket);
  for (;;) {
    const head = await frames.job();
    if (head === undefined) return;
    let answer: IndexAnswer;
    try {
      const job: IndexJob = JSON.parse(head.toString());
      answer = { ok: true, result: await index(job, frames, () => socket.write('\n')) };
    } catch (error) {
      // A full disk has a code of its own.
      const failure = answerOf(systemError("layer: can't unpack", error));
      if (failure.ok) throw error;
      answer = failure;
    }
    socket.write(`${JSON.stringify(answer)}\n`);
    await frames.skip();
  }
}

async function main(): Promise<void> {
  const { parent, root }: { parent: number; root: string } = JSON.parse(process.argv[2] ?? '');
  native().dieWithParent(parent);
  const slots = Array.from({ length: SLOTS }, (_, slot) => FIRST_SLOT + slot);
  confine(root);
  await Promise.all(slots.map(serve));
  process.exit(0);
}

await main();
