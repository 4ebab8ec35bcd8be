/**
 * Compressed bytes to the tar's bytes, with the bounds on both. zlib and zstd work in libuv's threads, so
 * that the next megabyte is decompressed while the one before becomes files; gzip members and zstd frames
 * may follow one another (RFC 1952, 2.2; RFC 8878, 3). Node has neither bzip2 nor xz, and neither is common
 * enough in images for a library: these decoders are our own (bzip2.ts, xz.ts).
 */
import type { Readable, Transform } from 'node:stream';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import { reasonOf, TspodError } from '../../src/errors.ts';
import type { Compression } from '../../src/image/oci.ts';
import { type Bounds, overBound } from './bounds.ts';
import { decodeBzip2 } from './bzip2.ts';
import { decodeXz } from './xz.ts';

const CHUNK = 512 * 1024;
/** So much may lie ready, or the decoder would stand still while a piece becomes files. */
const AHEAD = 1024 * 1024;

/** Yields the uncompressed archive. @throws TspodError 'unpack', 'limit', 'unsupported' */
export async function* decompress(
  input: Readable,
  compression: Compression,
  bounds: Bounds,
): AsyncGenerator<Buffer> {
  let taken = 0;
  let given = 0;
  input.on('data', (chunk: Buffer) => {
    taken += chunk.length;
  });
  input.pause();
  const decoder = decoderOf(compression);
  const chunks = decoder === undefined ? ownDecoder(compression, ahead(input)) : ahead(decoder);
  // an error of the input, e.g. the idle time-out, ends the decoder as well
  if (decoder !== undefined) {
    input.on('error', error => decoder.destroy(error));
    input.pipe(decoder);
  }
  try {
    for await (const chunk of chunks) {
      given += chunk.length;
      if (given > bounds.ratioFloor && given > taken * bounds.ratio) {
        throw overBound('archive', bounds.ratio, 'bytes from one compressed byte');
      }
      yield chunk;
    }
  } catch (error) {
    if (error instanceof TspodError) throw error;
    throw new TspodError(
      'unpack',
      `layer: its ${compression} data is damaged: ${reasonOf(error)}`,
      {
        cause: error,
      },
    );
  }
}

/**
 * The chunks of a stream, one by one as they came, while more are made ready. A stream's own iterator would
 * join what is ready into one buffer, and with little ready the decoder would wait for its consumer.
 */
async function* ahead(stream: Readable): AsyncGenerator<Buffer> {
  const ready: Buffer[] = [];
  let bytes = 0;
  let ended = false;
  let failure: Error | undefined;
  let wake: (() => void) | undefined;
  const told = () => wake?.();
  stream.on('data', (chunk: Buffer) => {
    ready.push(chunk);
    bytes += chunk.length;
    if (bytes >= AHEAD) stream.pause();
    told();
  });
  stream.on('end', () => {
    ended = true;
    told();
  });
  stream.on('error', error => {
    failure = error;
    told();
  });
  stream.resume();
  for (;;) {
    const chunk = ready.shift();
    if (chunk !== undefined) {
      bytes -= chunk.length;
      if (bytes < AHEAD) stream.resume();
      yield chunk;
    } else if (failure !== undefined) {
      throw failure;
    } else if (ended) {
      return;
    } else {
      await new Promise<void>(resolve => {
        wake = resolve;
      });
    }
  }
}

function ownDecoder(compression: Compression, input: AsyncIterable<Buffer>): AsyncIterable<Buffer> {
  switch (compression) {
    case 'bzip2':
      return decodeBzip2(input);
    case 'xz':
      return decodeXz(input);
    default:
      return input;
  }
}

function decoderOf(compression: Compression): Transform | undefined {
  switch (compression) {
    case 'none':
      return undefined;
    case 'gzip':
      return createGunzip({ chunkSize: CHUNK });
    case 'zstd':
      return createZstdDecompress({ chunkSize: CHUNK });
    case 'bzip2':
    case 'xz':
      return undefined;
  }
}
