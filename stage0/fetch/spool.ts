/**
 * An archive as a descriptor that can be read at any place: the file itself where it is a plain one, else a
 * copy in the store's tmp, uncompressed. Standard input is copied as it comes first, because what it is and what a
 * signature is over is known only then. A copy's name is taken away as soon as it is made, so that the
 * kernel frees it whatever happens to this process.
 */
import {
  closeSync,
  constants,
  createReadStream,
  fstatSync,
  openSync,
  readSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { Readable } from 'node:stream';
import { isatty } from 'node:tty';
import { errnoOf, systemError, TspodError } from '../../src/errors.ts';
import type { Compression } from '../../src/image/oci.ts';
import { Layout } from '../../src/store/layout.ts';
import { DEFAULT_BOUNDS } from '../unpack/bounds.ts';
import { decompress } from '../unpack/decompress.ts';
import { compressionOfBytes, SNIFF_BYTES } from './compression.ts';

const CHUNK = 1024 * 1024;
export const STDIN = '-';

export interface PlainArchive {
  /** Of a plain tar. */
  readonly plain: number;
  /** Of the archive as it is, which may be the same one. */
  readonly whole: number;
}

/**
 * @param dir the data folder
 * @param path of a file, or `-` for standard input
 * @param shown e.g. `image oci-archive:/x.tar`
 * @param input what `copyOfInput` gave; closed by this on failure
 * @returns descriptors to be closed by the caller
 * @throws TspodError 'not-found', 'usage' for a terminal, 'unpack', 'limit', 'disk-full'
 */
export async function openPlainArchive(
  dir: string,
  path: string,
  shown: string,
  input?: number,
): Promise<PlainArchive> {
  const fd = input ?? (path === STDIN ? await copyOfInput(dir, shown) : openFile(path, shown));
  try {
    const head = Buffer.alloc(SNIFF_BYTES);
    const got = readSync(fd, head, 0, SNIFF_BYTES, 0);
    if (compressionOfBytes(head.subarray(0, got)) === 'none') return { plain: fd, whole: fd };
    // A descriptor of its own: destroying a stream closes it.
    const stream = createReadStream(`/proc/self/fd/${fd}`, { highWaterMark: CHUNK });
    return { plain: await spool(dir, stream, shown, compressionOfBytes), whole: fd };
  } catch (error) {
    closeSync(fd);
    throw systemError(`${shown}: can't read it`, error);
  }
}

/**
 * Standard input, to its end, as it is.
 * @param shown e.g. `image -`
 * @returns a descriptor of a file without a name
 * @throws TspodError 'usage' for a terminal, 'protocol' when nothing comes, 'limit', 'disk-full'
 */
export function copyOfInput(dir: string, shown: string): Promise<number> {
  if (isatty(0)) {
    throw new TspodError('usage', `${shown}: standard input is a terminal`, {
      hint: 'redirect an archive into it',
    });
  }
  const input = createReadStream('', { fd: 0, autoClose: false, highWaterMark: CHUNK });
  return spool(dir, input, shown, () => 'none');
}

function openFile(path: string, shown: string): number {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') throw new TspodError('not-found', `${shown}: no such file`);
    throw systemError(`${shown}: can't open it`, error);
  }
  if (fstatSync(fd).isFile()) return fd;
  closeSync(fd);
  throw new TspodError('not-found', `${shown}: not a regular file`);
}

/** @param packing by the first bytes */
async function spool(
  dir: string,
  input: Readable,
  shown: string,
  packing: (head: Buffer) => Compression,
): Promise<number> {
  const chunks = input[Symbol.asyncIterator]();
  let head: Buffer = Buffer.alloc(0);
  const fd = unnamedFile(dir);
  try {
    while (head.length < SNIFF_BYTES) {
      const { value, done } = await chunks.next();
      if (done === true) break;
      head = Buffer.concat([head, asBuffer(value)]);
    }
    if (head.length === 0) throw new TspodError('protocol', `${shown}: it is empty`);
    const whole = Readable.from(prepend(head, chunks), { objectMode: false });
    let written = 0;
    for await (const chunk of decompress(whole, packing(head), DEFAULT_BOUNDS)) {
      if (written + chunk.length > DEFAULT_BOUNDS.archiveBytes) {
        throw new TspodError('limit', `${shown}: over ${DEFAULT_BOUNDS.archiveBytes} bytes`);
      }
      for (let done = 0; done < chunk.length; ) {
        done += writeSync(fd, chunk, done, chunk.length - done, written + done);
      }
      written += chunk.length;
    }
    return fd;
  } catch (error) {
    closeSync(fd);
    input.destroy();
    throw named(error, shown);
  }
}

async function* prepend(head: Buffer, rest: AsyncIterator<unknown>): AsyncGenerator<Buffer> {
  yield head;
  for (;;) {
    const { value, done } = await rest.next();
    if (done === true) return;
    yield asBuffer(value);
  }
}

function asBuffer(chunk: unknown): Buffer {
  if (Buffer.isBuffer(chunk)) return chunk;
  throw new Error('a stream of files gives buffers');
}

/** A new file in the data folder's tmp that has no name any more. */
export function unnamedFile(dir: string): number {
  const layout = new Layout(dir);
  layout.make();
  const { O_RDWR, O_CREAT, O_EXCL } = constants;
  for (let tries = 0; ; tries += 1) {
    const path = `${layout.tmp}/archive.${process.pid}.${tries}`;
    try {
      const fd = openSync(path, O_RDWR | O_CREAT | O_EXCL, 0o600);
      try {
        unlinkSync(path);
      } catch (error) {
        // gc has done it already.
        if (errnoOf(error) !== 'ENOENT') throw error;
      }
      return fd;
    } catch (error) {
      if (errnoOf(error) !== 'EEXIST') throw systemError("can't write an archive's copy", error);
    }
  }
}

/** The decoder speaks of layers. */
function named(error: unknown, shown: string): unknown {
  if (!(error instanceof TspodError)) return systemError(`${shown}: can't copy it`, error);
  if (error.message.startsWith(shown)) return error;
  const message = `${shown}: ${error.message.replace(/^layer:? /, '')}`;
  return new TspodError(error.code, message, {
    ...(error.hint === undefined ? {} : { hint: error.hint }),
    cause: error,
  });
}
