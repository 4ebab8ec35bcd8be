/**
 * How a sparse file of the archive becomes chunks. Where its pieces lie on blocks in the file and in the
 * tar, chunks point into the tar. Where they don't, the chunks that have data are kept in memory and
 * written into the image; that is bounded, since nothing else of a layer's data ever is kept. An image that
 * has its data itself has whole chunks, filled when it is written.
 */
import { overBound } from '../bounds.ts';
import type { TarEntry } from '../tar-entry.ts';
import type { Budget } from './budget.ts';
import { mostChunkBits, type Shape, TAR_INDEX } from './format.ts';

/** Over all sparse files of a layer. */
export const SPARSE_BOUNDS = {
  /** 8 bytes of image each. */
  chunks: 16 * 1024 ** 2,
  copiedBytes: 64 * 1024 ** 2,
};

const LEAST_COPIED_BITS = 12;
const MOST_COPIED_CHUNKS = 1024 ** 2;

export interface SparsePlan {
  readonly chunkBits: number;
  readonly chunks: number;
  /** offset, length, offset, length, … in the file, whole chunks but for its end; they follow each other in the tar. */
  readonly segments: readonly number[];
  readonly tarOffset: number;
  /** Of an image that has its data: chunks that are no holes. */
  readonly dataChunks: number;
  /** Data by the chunk's number instead, ascending. */
  readonly copied: ReadonlyMap<number, Buffer> | undefined;
}

/** What the sparse files of a layer have used of the bounds. */
export class SparsePlanner {
  readonly #budget: Budget;
  readonly #shape: Shape;
  #chunks = 0;
  #copiedBytes = 0;

  constructor(budget: Budget, shape: Shape = TAR_INDEX) {
    this.#budget = budget;
    this.#shape = shape;
  }

  /** @throws TspodError 'limit' */
  plan(entry: TarEntry): SparsePlan {
    this.#budget.take(entry.segments.length * 16);
    const segments = nonEmpty(entry.segments);
    const plan = this.#shape.hasData ? filled(entry, segments) : this.#inTar(entry, segments);
    this.#chunks += plan.chunks;
    if (this.#chunks > SPARSE_BOUNDS.chunks) {
      throw overBound('archive', SPARSE_BOUNDS.chunks, 'chunks of sparse files');
    }
    return plan;
  }

  #inTar(entry: TarEntry, segments: readonly number[]): SparsePlan {
    const bits = alignedBits(entry.size, segments, this.#shape);
    return bits === undefined ? this.#copied(entry, segments) : aligned(entry, segments, bits);
  }

  #copied(entry: TarEntry, segments: readonly number[]): SparsePlan {
    const chunkBits = bitsOf(entry.size);
    const chunk = 2 ** chunkBits;
    const copied = new Map<number, Buffer>();
    for (let at = 0; at < segments.length; at += 2) {
      const start = segments[at] ?? 0;
      const end = start + (segments[at + 1] ?? 0);
      for (let number = Math.floor(start / chunk); number * chunk < end; number += 1) {
        if (copied.has(number)) continue;
        this.#copiedBytes += chunk;
        if (this.#copiedBytes > SPARSE_BOUNDS.copiedBytes) {
          throw overBound(
            'archive',
            SPARSE_BOUNDS.copiedBytes,
            `bytes of sparse files whose pieces don't lie on blocks of ${this.#shape.block} bytes`,
          );
        }
        copied.set(number, Buffer.alloc(chunk));
      }
    }
    const chunks = Math.ceil(entry.size / chunk);
    return { chunkBits, chunks, segments: [], tarOffset: 0, dataChunks: 0, copied };
  }
}

function bitsOf(size: number): number {
  let bits = LEAST_COPIED_BITS;
  while (size / 2 ** bits > MOST_COPIED_CHUNKS) bits += 1;
  return bits;
}

function filled(entry: TarEntry, segments: readonly number[]): SparsePlan {
  const chunkBits = bitsOf(entry.size);
  const chunk = 2 ** chunkBits;
  let dataChunks = 0;
  for (const [first, last] of runs(segments, chunk)) dataChunks += last - first + 1;
  const chunks = Math.ceil(entry.size / chunk);
  return {
    chunkBits,
    chunks,
    segments,
    tarOffset: entry.dataOffset,
    dataChunks,
    copied: undefined,
  };
}

/** Numbers of the first and last chunk of each run that has data; runs ascend and have no chunk twice. */
export function* runs(
  segments: readonly number[],
  chunk: number,
): Generator<readonly [first: number, last: number], void, undefined> {
  let next = 0;
  for (let at = 0; at < segments.length; at += 2) {
    const start = segments[at] ?? 0;
    const first = Math.max(next, Math.floor(start / chunk));
    const last = Math.ceil((start + (segments[at + 1] ?? 0)) / chunk) - 1;
    if (last < first) continue;
    yield [first, last];
    next = last + 1;
  }
}

/** Takes a piece of a file whose data is kept. */
export function copyData(plan: SparsePlan, piece: Uint8Array, position: number): void {
  if (plan.copied === undefined) return;
  const chunk = 2 ** plan.chunkBits;
  for (let done = 0; done < piece.length; ) {
    const number = Math.floor((position + done) / chunk);
    const from = position + done - number * chunk;
    const length = Math.min(chunk - from, piece.length - done);
    plan.copied.get(number)?.set(piece.subarray(done, done + length), from);
    done += length;
  }
}

/** The smallest chunk of a power of two that holds `size` bytes, or the largest there is. */
export function wholeBits(size: number, shape: Shape): number {
  let bits = shape.blockBits;
  while (bits < mostChunkBits(shape) && 2 ** bits < size) bits += 1;
  return bits;
}

function aligned(entry: TarEntry, segments: readonly number[], chunkBits: number): SparsePlan {
  const chunks = Math.ceil(entry.size / 2 ** chunkBits);
  return {
    chunkBits,
    chunks,
    segments,
    tarOffset: entry.dataOffset,
    dataChunks: 0,
    copied: undefined,
  };
}

/** The largest chunk that no piece begins or ends within; undefined when that is less than a block. */
function alignedBits(size: number, segments: readonly number[], shape: Shape): number | undefined {
  let bits = wholeBits(size, shape);
  for (let at = 0; at < segments.length; at += 2) {
    const start = segments[at] ?? 0;
    const end = start + (segments[at + 1] ?? 0);
    while (start % 2 ** bits !== 0) bits -= 1;
    if (end !== size) while (end % 2 ** bits !== 0) bits -= 1;
    if (bits < shape.blockBits) return undefined;
  }
  return bits;
}

function nonEmpty(map: readonly number[]): readonly number[] {
  const segments: number[] = [];
  for (let at = 0; at < map.length; at += 2) {
    const length = map[at + 1] ?? 0;
    if (length > 0) segments.push(map[at] ?? 0, length);
  }
  return segments;
}
