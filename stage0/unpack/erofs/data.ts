/** Files' data in an image that has it: block by block, in the order of the inodes. */
import { FileInode, SparseInode } from './inodes.ts';
import type { Layout } from './layout.ts';
import type { Output } from './output.ts';
import { runs } from './sparse-plan.ts';

export interface DataSource {
  /**
   * Fills `into` with the file's data from `position` on; of a sparse file: of its pieces, which follow each other.
   * @throws TspodError when there is less
   */
  read(file: FileInode | SparseInode, position: number, into: Buffer): void;
}

/** What is read at once; no more than a piece of the image. */
const MOST_READ = 256 * 1024;

export function* writeData(
  out: Output,
  layout: Layout,
  source: DataSource,
): Generator<Uint8Array, void, undefined> {
  for (const inode of layout.inodes) {
    if (inode instanceof FileInode) yield* writeFile(out, layout, inode, source);
    else if (inode instanceof SparseInode) yield* writeSparse(out, layout, inode, source);
  }
}

function* writeFile(
  out: Output,
  { shape: { block }, dataAt }: Layout,
  file: FileInode,
  source: DataSource,
): Generator<Uint8Array, void, undefined> {
  const length = file.isInline ? file.size - (file.size % block) : file.size;
  const most = Math.min(MOST_READ, out.pieceBytes);
  const place = dataAt + file.block * block;
  for (let done = 0; done < length; done += most) {
    const part = Math.min(most, length - done);
    const at = out.to(place + done, part);
    source.read(file, done, out.buffer.subarray(at, at + part));
    yield* out.full();
  }
}

/** Whole chunks, wherever data touches them. */
function* writeSparse(
  out: Output,
  { shape: { block }, dataAt }: Layout,
  file: SparseInode,
  source: DataSource,
): Generator<Uint8Array, void, undefined> {
  const { segments, chunkBits } = file.plan;
  const chunk = 2 ** chunkBits;
  const most = Math.min(MOST_READ, out.pieceBytes);
  let place = dataAt + file.block * block;
  let segment = 0;
  let position = 0;
  for (const [first, last] of runs(segments, chunk)) {
    const end = (last + 1) * chunk;
    // The place of the run's first byte; what no segment fills stays zero.
    const base = place - first * chunk;
    let written = first * chunk;
    for (; segment < segments.length; segment += 2) {
      const start = segments[segment] ?? 0;
      const length = segments[segment + 1] ?? 0;
      if (start >= end) break;
      // Step by step, for a piece of the image at a time is in memory.
      for (; start - written > most; written += most) {
        out.to(base + written, most);
        yield* out.full();
      }
      for (let done = 0; done < length; done += most) {
        const part = Math.min(most, length - done);
        const at = out.to(base + start + done, part);
        source.read(file, position + done, out.buffer.subarray(at, at + part));
        yield* out.full();
      }
      position += length;
      written = start + length;
    }
    for (; end - written > most; written += most) {
      out.to(base + written, most);
      yield* out.full();
    }
    place += (last - first + 1) * chunk;
  }
}
