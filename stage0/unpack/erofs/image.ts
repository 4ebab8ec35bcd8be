/** Writes an image that was laid out, from its first byte to its last, a piece at a time. */
import { type DataSource, writeData } from './data.ts';
import {
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
import { Output } from './output.ts';
import { runs, wholeBits } from './sparse-plan.ts';

/** More than any single record but a chunk table, which is written index by index. */
export const PIECE = 1024 * 1024;
/** The device that is the tar; 0 is the image. */
const TAR = 1;

export interface ImageOptions {
  readonly uuid: Uint8Array;
  /** Blocks that the tar has; 0 for an image that has its data. */
  readonly deviceBlocks: number;
  /** PIECE; smaller, but over any single record, in tests. */
  readonly pieceBytes: number;
  /** For an image that has its data. */
  readonly source?: DataSource;
}

export function* image(
  layout: Layout,
  { uuid, deviceBlocks, pieceBytes, source }: ImageOptions,
): Generator<Uint8Array, void, undefined> {
  const root = layout.inodes[0];
  if (root === undefined) throw new Error('an image without a root');
  const { shape } = layout;
  yield encodeHead({
    shape,
    hasChunks: !shape.hasData || layout.inodes.some(inode => inode instanceof SparseInode),
    rootNid: root.at / SLOT,
    inodes: layout.inodes.length,
    time: layout.time,
    blocks: layout.length / shape.block,
    deviceBlocks,
    xattrBlock: layout.sharedAt / shape.block,
    uuid,
  });
  const out = new Output(root.at, pieceBytes);
  let number = 0;
  for (const inode of layout.inodes) {
    number += 1;
    writeInode(out, layout, inode, number, source);
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
  if (source !== undefined) yield* writeData(out, layout, source);
  yield* out.end(layout.length);
}

function writeInode(
  out: Output,
  layout: Layout,
  inode: Inode,
  number: number,
  source: DataSource | undefined,
): void {
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
  writeBehind(out, layout, inode, inode.at + own + attributes, source);
}

/** The data layout, and the 32 bits that say where the data is. */
function content(layout: Layout, inode: Inode): [dataLayout: number, data: number] {
  if (inode instanceof SpecialInode) return [FLAT_PLAIN, inode.rdev];
  if (inode.size === 0) return [FLAT_PLAIN, NO_ADDRESS];
  const { shape } = layout;
  if (inode instanceof FileInode && !shape.hasData) {
    return [CHUNK_BASED, chunkFormat(wholeBits(inode.size, shape), shape)];
  }
  if (inode instanceof SparseInode) {
    return [CHUNK_BASED, chunkFormat(inode.plan.chunkBits, shape)];
  }
  const first = inode.size < shape.block && inode.isInline ? NO_ADDRESS : firstBlock(layout, inode);
  return [inode.isInline ? FLAT_INLINE : FLAT_PLAIN, first];
}

function firstBlock({ shape, blocksAt, dataAt }: Layout, inode: Inode): number {
  const isData = inode instanceof FileInode || inode instanceof SparseInode;
  return (shape.hasData && isData ? dataAt : blocksAt) / shape.block + inode.block;
}

/** What follows inode and attributes: inline data, or the index of a file's only chunk. */
function writeBehind(
  out: Output,
  { shape: { block, hasData } }: Layout,
  inode: Inode,
  place: number,
  source: DataSource | undefined,
): void {
  if (inode instanceof FileInode && hasData) {
    if (!inode.isInline) return;
    const rest = inode.size % block;
    const at = out.to(place, rest);
    source?.read(inode, inode.size - rest, out.buffer.subarray(at, at + rest));
  } else if (inode instanceof FileInode) {
    if (inode.size === 0) return;
    const at = out.to(roundUp(place, CHUNK_INDEX), CHUNK_INDEX);
    writeIndex(out.buffer, at, TAR, inode.tarOffset / block);
  } else if (inode instanceof SymlinkInode && inode.isInline) {
    const from = inode.size - (inode.size % block);
    const rest = Buffer.from(inode.target.slice(from), 'latin1');
    const at = out.to(place, rest.length);
    out.buffer.set(rest, at);
  } else if (inode instanceof FolderInode && inode.isInline) {
    const rest = inode.sorted.slice(inode.inlineFrom);
    const at = out.to(place, inode.directoryBytes % block);
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
  const chunkBlocks = chunkBytes / layout.shape.block;
  let copy = firstBlock(layout, inode);
  const filled = layout.shape.hasData ? runs(segments, chunkBytes) : undefined;
  let run = filled?.next().value;
  let segment = 0;
  let tar = inode.plan.tarOffset;
  for (let chunk = 0; chunk < chunks; chunk += 1) {
    const at = out.to(place, CHUNK_INDEX);
    place += CHUNK_INDEX;
    const start = chunk * chunkBytes;
    if (copied !== undefined || filled !== undefined) {
      if (run !== undefined && chunk > run[1]) run = filled?.next().value;
      const has = copied?.has(chunk) ?? (run !== undefined && chunk >= run[0]);
      writeIndex(out.buffer, at, 0, has ? copy : NO_ADDRESS);
      if (has) copy += chunkBlocks;
    } else {
      while (segment < segments.length && start >= end(segments, segment)) {
        tar += segments[segment + 1] ?? 0;
        segment += 2;
      }
      const from = segments[segment] ?? Number.POSITIVE_INFINITY;
      if (start < from) writeIndex(out.buffer, at, 0, NO_ADDRESS);
      else writeIndex(out.buffer, at, TAR, (tar + start - from) / layout.shape.block);
    }
    yield* out.full();
  }
}

function end(segments: readonly number[], at: number): number {
  return (segments[at] ?? 0) + (segments[at + 1] ?? 0);
}

/** Blocks behind the inodes. */
function writeBlocks(out: Output, layout: Layout, inode: Inode): void {
  const { block } = layout.shape;
  let place = layout.blocksAt + inode.block * block;
  if (inode instanceof FolderInode) {
    let names: string[] = [];
    let used = 0;
    const flush = () => {
      if (names.length === 0) return;
      const at = out.to(place, block);
      writeDirents(out.buffer, at, inode, names);
      place += block;
      names = [];
      used = 0;
    };
    for (let at = 0; at < inode.inlineFrom; at += 1) {
      const name = inode.sorted[at] ?? '';
      if (used + DIRENT + name.length > block) flush();
      used += DIRENT + name.length;
      names.push(name);
    }
    flush();
  } else if (inode instanceof SymlinkInode) {
    const length = inode.isInline ? inode.size - (inode.size % block) : inode.size;
    const bytes = Buffer.from(inode.target.slice(0, length), 'latin1');
    if (length === 0) return;
    const at = out.to(place, length);
    out.buffer.set(bytes, at);
  } else if (inode instanceof SparseInode) {
    for (const chunk of inode.plan.copied?.values() ?? []) {
      for (let done = 0; done < chunk.length; done += block) {
        const at = out.to(place, block);
        out.buffer.set(chunk.subarray(done, done + block), at);
        place += block;
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
