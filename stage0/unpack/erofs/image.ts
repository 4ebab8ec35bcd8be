/** Writes an image that was laid out, from its first byte to its last, a piece at a time. */
import {
  BLOCK,
  CHUNK_BASED,
  CHUNK_INDEX,
  COMPACT_INODE,
  chunkFormat,
  DIRENT,
  EXTENDED_INODE,
  encodeHead,
  FILE_TYPES,
  FLAT_INLINE,
  FLAT_PLAIN,
  NO_ADDRESS,
  roundUp,
  S_IFMT,
  SLOT,
  write64,
} from './format.ts';
import {
  FileInode,
  FolderInode,
  type Inode,
  SparseInode,
  SpecialInode,
  SymlinkInode,
} from './inodes.ts';
import { isCompact, type Layout } from './layout.ts';
import { wholeBits } from './sparse-plan.ts';

/** More than any single record but a chunk table, which is written index by index. */
export const PIECE = 1024 * 1024;
/** The device that is the tar; 0 is the image. */
const TAR = 1;

/**
 * @param deviceBlocks blocks that the tar has
 * @param pieceBytes PIECE; smaller, but over any single record, in tests
 */
export function* image(
  layout: Layout,
  uuid: Uint8Array,
  deviceBlocks: number,
  pieceBytes: number,
): Generator<Uint8Array, void, undefined> {
  const root = layout.inodes[0];
  if (root === undefined) throw new Error('an image without a root');
  yield encodeHead({
    rootNid: root.at / SLOT,
    inodes: layout.inodes.length,
    time: layout.time,
    blocks: layout.length / BLOCK,
    deviceBlocks,
    xattrBlock: layout.sharedAt / BLOCK,
    uuid,
  });
  const out = new Output(root.at, pieceBytes);
  let number = 0;
  for (const inode of layout.inodes) {
    number += 1;
    writeInode(out, layout, inode, number);
    if (inode instanceof SparseInode) yield* sparseIndexes(out, layout, inode);
    yield* out.full();
  }
  for (const inode of layout.inodes) {
    writeBlocks(out, layout, inode);
    yield* out.full();
  }
  for (const xattr of layout.shared.members) {
    const at = out.to(layout.sharedAt + xattr.shared, xattr.size);
    xattr.write(out.buffer, at);
    yield* out.full();
  }
  yield* out.end(layout.length);
}

/** The piece in hand. Places ascend; what is passed over is zero. */
class Output {
  buffer: Buffer;
  readonly #pieceBytes: number;
  /** Place of the piece's first byte. */
  #start: number;
  #used = 0;
  #full: Buffer[] = [];

  constructor(start: number, pieceBytes: number) {
    this.#start = start;
    this.#pieceBytes = pieceBytes;
    this.buffer = Buffer.alloc(pieceBytes);
  }

  /** Makes room for `length` bytes at `place`; returns where that is in `buffer`, which may be a new one. */
  to(place: number, length: number): number {
    if (place < this.#start + this.#used) throw new Error('an image is written backwards');
    if (place + length > this.#start + this.#pieceBytes) this.#next(place);
    const at = place - this.#start;
    this.#used = at + length;
    return at;
  }

  /** What there is ends at `place`, where the next piece begins. */
  #next(place: number): void {
    for (; place - this.#start > this.#pieceBytes; this.#start += this.#pieceBytes) {
      this.#push(this.#pieceBytes);
    }
    this.#push(place - this.#start);
    this.#start = place;
    this.#used = 0;
  }

  #push(length: number): void {
    if (length === 0) return;
    this.#full.push(this.buffer.subarray(0, length));
    this.buffer = Buffer.alloc(this.#pieceBytes);
  }

  *full(): Generator<Uint8Array, void, undefined> {
    if (this.#full.length === 0) return;
    yield* this.#full;
    this.#full = [];
  }

  *end(place: number): Generator<Uint8Array, void, undefined> {
    this.#next(place);
    yield* this.full();
  }
}

function writeInode(out: Output, layout: Layout, inode: Inode, number: number): void {
  const compact = isCompact(inode, layout.time);
  const own = compact ? COMPACT_INODE : EXTENDED_INODE;
  const attributes = inode.xattrs?.size ?? 0;
  const at = out.to(inode.at, own + attributes);
  const into = out.buffer;
  const [dataLayout, data] = content(layout, inode);
  into.writeUInt16LE((compact ? 0 : 1) | (dataLayout << 1), at);
  into.writeUInt16LE(attributes === 0 ? 0 : (attributes - 8) / 4, at + 2);
  into.writeUInt16LE(inode.mode, at + 4);
  into.writeUInt32LE(data, at + 16);
  into.writeUInt32LE(number, at + 20);
  if (compact) {
    into.writeUInt16LE(inode.nlink, at + 6);
    into.writeUInt32LE(inode.size, at + 8);
    into.writeUInt16LE(inode.uid, at + 24);
    into.writeUInt16LE(inode.gid, at + 26);
  } else {
    write64(into, inode.size, at + 8);
    into.writeUInt32LE(inode.uid, at + 24);
    into.writeUInt32LE(inode.gid, at + 28);
    write64(into, inode.mtimeSec, at + 32);
    into.writeUInt32LE(inode.mtimeNsec, at + 40);
    into.writeUInt32LE(inode.nlink, at + 44);
  }
  inode.xattrs?.write(into, at + own);
  writeBehind(out, inode, inode.at + own + attributes);
}

/** The data layout, and the 32 bits that say where the data is. */
function content(layout: Layout, inode: Inode): [dataLayout: number, data: number] {
  if (inode instanceof SpecialInode) return [FLAT_PLAIN, inode.rdev];
  if (inode.size === 0) return [FLAT_PLAIN, NO_ADDRESS];
  if (inode instanceof FileInode) return [CHUNK_BASED, chunkFormat(wholeBits(inode.size))];
  if (inode instanceof SparseInode) return [CHUNK_BASED, chunkFormat(inode.plan.chunkBits)];
  const first = inode.size < BLOCK && inode.isInline ? NO_ADDRESS : firstBlock(layout, inode);
  return [inode.isInline ? FLAT_INLINE : FLAT_PLAIN, first];
}

function firstBlock(layout: Layout, inode: Inode): number {
  return layout.blocksAt / BLOCK + inode.block;
}

/** What follows inode and attributes: inline data, or the index of a file's only chunk. */
function writeBehind(out: Output, inode: Inode, place: number): void {
  if (inode instanceof FileInode) {
    if (inode.size === 0) return;
    const at = out.to(roundUp(place, CHUNK_INDEX), CHUNK_INDEX);
    writeIndex(out.buffer, at, TAR, inode.tarOffset / BLOCK);
  } else if (inode instanceof SymlinkInode && inode.isInline) {
    const from = inode.size - (inode.size % BLOCK);
    const rest = Buffer.from(inode.target.slice(from), 'latin1');
    const at = out.to(place, rest.length);
    out.buffer.set(rest, at);
  } else if (inode instanceof FolderInode && inode.isInline) {
    const rest = inode.sorted.slice(inode.inlineFrom);
    const at = out.to(place, inode.directoryBytes % BLOCK);
    writeDirents(out.buffer, at, inode, rest);
  }
}

function writeIndex(into: Buffer, at: number, device: number, block: number): void {
  into.writeUInt16LE(device, at + 2);
  into.writeUInt32LE(block, at + 4);
}

function* sparseIndexes(
  out: Output,
  layout: Layout,
  inode: SparseInode,
): Generator<Uint8Array, void, undefined> {
  if (inode.size === 0) return;
  const { chunks, chunkBits, segments, copied } = inode.plan;
  const own = isCompact(inode, layout.time) ? COMPACT_INODE : EXTENDED_INODE;
  let place = roundUp(inode.at + own + (inode.xattrs?.size ?? 0), CHUNK_INDEX);
  const chunkBytes = 2 ** chunkBits;
  const chunkBlocks = chunkBytes / BLOCK;
  let copy = firstBlock(layout, inode);
  let segment = 0;
  let tar = inode.plan.tarOffset;
  for (let chunk = 0; chunk < chunks; chunk += 1) {
    const at = out.to(place, CHUNK_INDEX);
    place += CHUNK_INDEX;
    const start = chunk * chunkBytes;
    if (copied !== undefined) {
      const has = copied.has(chunk);
      writeIndex(out.buffer, at, 0, has ? copy : NO_ADDRESS);
      if (has) copy += chunkBlocks;
    } else {
      while (segment < segments.length && start >= end(segments, segment)) {
        tar += segments[segment + 1] ?? 0;
        segment += 2;
      }
      const from = segments[segment] ?? Number.POSITIVE_INFINITY;
      if (start < from) writeIndex(out.buffer, at, 0, NO_ADDRESS);
      else writeIndex(out.buffer, at, TAR, (tar + start - from) / BLOCK);
    }
    yield* out.full();
  }
}

function end(segments: readonly number[], at: number): number {
  return (segments[at] ?? 0) + (segments[at + 1] ?? 0);
}

/** Blocks behind the inodes. */
function writeBlocks(out: Output, layout: Layout, inode: Inode): void {
  let place = layout.blocksAt + inode.block * BLOCK;
  if (inode instanceof FolderInode) {
    let block: string[] = [];
    let used = 0;
    const flush = () => {
      if (block.length === 0) return;
      const at = out.to(place, BLOCK);
      writeDirents(out.buffer, at, inode, block);
      place += BLOCK;
      block = [];
      used = 0;
    };
    for (let at = 0; at < inode.inlineFrom; at += 1) {
      const name = inode.sorted[at] ?? '';
      if (used + DIRENT + name.length > BLOCK) flush();
      used += DIRENT + name.length;
      block.push(name);
    }
    flush();
  } else if (inode instanceof SymlinkInode) {
    const length = inode.isInline ? inode.size - (inode.size % BLOCK) : inode.size;
    const bytes = Buffer.from(inode.target.slice(0, length), 'latin1');
    if (length === 0) return;
    const at = out.to(place, length);
    out.buffer.set(bytes, at);
  } else if (inode instanceof SparseInode) {
    for (const chunk of inode.plan.copied?.values() ?? []) {
      for (let done = 0; done < chunk.length; done += BLOCK) {
        const at = out.to(place, BLOCK);
        out.buffer.set(chunk.subarray(done, done + BLOCK), at);
        place += BLOCK;
      }
    }
  }
}

/** One block of a directory: entries, then their names; a name ends at the next one or at a zero. */
function writeDirents(
  into: Buffer,
  start: number,
  folder: FolderInode,
  names: readonly string[],
): void {
  let at = start;
  let name = start + names.length * DIRENT;
  for (const one of names) {
    const inode = folder.entry(one);
    write64(into, inode.at / SLOT, at);
    into.writeUInt16LE(name - start, at + 8);
    into.writeUInt8(FILE_TYPES.get(inode.mode & S_IFMT) ?? 0, at + 10);
    into.write(one, name, 'latin1');
    name += one.length;
    at += DIRENT;
  }
}
