/**
 * Where everything goes in the image: superblock and device table, inodes with what is inline, blocks of
 * large folders, long links and copied data, shared attributes, and files' data if it has it. Folders' inodes come before those of
 * what is in them, level by level, so that a folder's entries lie side by side; the root is first, because
 * its number has 16 bits.
 */
import { TspodError } from '../../../src/errors.ts';
import { OPAQUE, OPAQUE_VALUE } from '../overlay-xattrs.ts';
import {
  CHUNK_INDEX,
  COMPACT_INODE,
  DIRENT,
  EXTENDED_INODE,
  inodesOffset,
  roundUp,
  type Shape,
  SLOT,
  type Time,
} from './format.ts';
import { FileInode, FolderInode, type Inode, SparseInode, SymlinkInode } from './inodes.ts';
import { SharedArea, type XattrTable } from './xattrs.ts';

/** The image is as long as a multiple of this: pages, and sectors of any disk. */
const IMAGE_UNIT = 4096;
/** Beyond the length of the tar. Every entry takes more of the tar than of the image, tricks excepted. */
export const MOST_EXTRA_BYTES = 512 * 1024 ** 2;
/** Of a self-contained image: what does not fill blocks of 4096 bytes may double the tar. */
const MOST_GROWTH = 2;
const MOST_BLOCKS = 0xffff_fffe;

export interface Layout {
  readonly shape: Shape;
  /** In the order of the image. */
  readonly inodes: readonly Inode[];
  readonly time: Time;
  readonly blocksAt: number;
  readonly shared: SharedArea;
  readonly sharedAt: number;
  /** Where files' data begins. */
  readonly dataAt: number;
  /** Bytes of the image. */
  readonly length: number;
}

/**
 * @param tarBytes length of the uncompressed tar, or of what files hold where there is none
 * @throws TspodError 'limit' when the image would be out of proportion
 */
export function layOut(
  root: FolderInode,
  xattrs: XattrTable,
  tarBytes: number,
  shape: Shape,
): Layout {
  const inodes = collect(root);
  const shared = new SharedArea();
  for (const inode of inodes) {
    if (inode instanceof FolderInode && inode.opaque) {
      inode.xattrs = xattrs.with(inode.xattrs, OPAQUE, OPAQUE_VALUE);
    }
    for (const one of inode.xattrs?.members ?? []) one.uses += 1;
  }
  const time = commonTime(inodes);
  const place = new Place(inodesOffset(shape), shape);
  for (const inode of inodes) {
    inode.xattrs?.place(shared);
    place.inode(inode, isCompact(inode, time));
  }
  const { block, hasData } = shape;
  const blocksAt = roundUp(place.at, block);
  const sharedAt = blocksAt + place.blocks * block;
  const dataAt = roundUp(sharedAt + shared.size, block);
  const end = hasData ? dataAt + place.dataBlocks * block : sharedAt + shared.size;
  const length = roundUp(end, IMAGE_UNIT);
  const bound = (hasData ? MOST_GROWTH * tarBytes : tarBytes) + MOST_EXTRA_BYTES;
  if (length > bound) {
    const [what, source] = hasData ? ['image', 'data'] : ['metadata', 'an archive'];
    throw new TspodError(
      'limit',
      `layer: more than the bound of ${bound} bytes of ${what} for ${source} of ${tarBytes} bytes`,
    );
  }
  if (length / block > MOST_BLOCKS) {
    throw new TspodError('limit', `layer: more than the bound of ${MOST_BLOCKS} blocks of EROFS`);
  }
  return { shape, inodes, time, blocksAt, shared, sharedAt, dataAt, length };
}

/** All inodes that a name leads to, with their link counts and sorted names. */
function collect(root: FolderInode): Inode[] {
  const inodes: Inode[] = [root];
  root.nlink = 2;
  for (const inode of inodes) {
    if (!(inode instanceof FolderInode)) continue;
    inode.sorted = ['.', '..', ...inode.children.keys()].sort(byBytes);
    for (const name of inode.sorted) {
      if (name === '.' || name === '..') continue;
      const child = inode.entry(name);
      if (child instanceof FolderInode) {
        child.nlink = 2;
        inode.nlink += 1;
        inodes.push(child);
      } else {
        child.nlink += 1;
        if (child.nlink === 1) inodes.push(child);
      }
    }
  }
  return inodes;
}

function byBytes(a: string, b: string): number {
  return a < b ? -1 : 1; // one character per byte, never equal
}

/** The modification time that most inodes have: those need no inode of their own size. */
function commonTime(inodes: readonly Inode[]): Time {
  const counts = new Map<number, number>();
  let most = 0;
  let time: Time = { sec: 0, nsec: 0 };
  for (const { mtimeSec: sec, mtimeNsec: nsec } of inodes) {
    // times that a double can't tell apart are counted together: that costs bytes, not truth
    const key = sec * 1e9 + nsec;
    const count = (counts.get(key) ?? 0) + 1;
    counts.set(key, count);
    if (count > most) {
      most = count;
      if (time.sec !== sec || time.nsec !== nsec) time = { sec, nsec };
    }
  }
  return time;
}

/** Whether 32 bytes can say it: 16-bit owners and links, 32-bit size, the common time. */
export function isCompact(inode: Inode, time: Time): boolean {
  return (
    inode.mtimeSec === time.sec &&
    inode.mtimeNsec === time.nsec &&
    inode.uid <= 0xffff &&
    inode.gid <= 0xffff &&
    inode.nlink <= 0xffff &&
    contentBytes(inode) <= 0xffffffff
  );
}

/** A folder's size is not known before it is placed, but is never that large. */
function contentBytes(inode: Inode): number {
  return inode instanceof FolderInode ? 0 : inode.size;
}

class Place {
  /** The next free byte for inodes. */
  at: number;
  /** Blocks taken behind the inodes. */
  blocks = 0;
  /** Blocks taken by files' data, where the image has it. */
  dataBlocks = 0;
  readonly #shape: Shape;
  readonly #block: number;

  constructor(at: number, shape: Shape) {
    this.at = at;
    this.#shape = shape;
    this.#block = shape.block;
  }

  inode(inode: Inode, compact: boolean): void {
    const own = compact ? COMPACT_INODE : EXTENDED_INODE;
    // readers cope with an inode across blocks; no need to try them
    if (this.#block - (this.at % this.#block) < own) this.at = roundUp(this.at, this.#block);
    const bytes = own + (inode.xattrs?.size ?? 0);
    if (inode instanceof FolderInode) this.#folder(inode, bytes);
    else if (inode instanceof SymlinkInode) this.#flat(inode, bytes, inode.size);
    else if (inode instanceof SparseInode) this.#sparse(inode, bytes);
    else if (inode instanceof FileInode) {
      if (this.#shape.hasData) this.#file(inode, bytes);
      else this.#chunks(inode, bytes, inode.size > 0 ? 1 : 0);
    } else this.#take(inode, bytes);
  }

  #folder(folder: FolderInode, bytes: number): void {
    let full = 0;
    let used = 0;
    let lastFrom = 0;
    for (const [index, name] of folder.sorted.entries()) {
      const size = DIRENT + name.length;
      if (used + size > this.#block) {
        full += 1;
        used = 0;
        lastFrom = index;
      }
      used += size;
    }
    folder.directoryBytes = full * this.#block + used;
    this.#flat(folder, bytes, folder.directoryBytes);
    folder.inlineFrom = folder.isInline ? lastFrom : folder.sorted.length;
  }

  /** The last, partial block goes behind the inode where both fit into one block, as readers want it. */
  #flat(inode: Inode, bytes: number, size: number): void {
    const tail = size % this.#block;
    inode.block = this.blocks;
    inode.isInline = tail > 0 && bytes + tail <= this.#block;
    if (!inode.isInline) {
      this.blocks += Math.ceil(size / this.#block);
      this.#take(inode, bytes);
      return;
    }
    this.blocks += Math.floor(size / this.#block);
    if ((this.at % this.#block) + bytes + tail > this.#block)
      this.at = roundUp(this.at, this.#block);
    this.#take(inode, bytes + tail);
  }

  /** As #flat, but the rest of a file is inline only where that wastes less than a block of its own. */
  #file(inode: FileInode, bytes: number): void {
    const tail = inode.size % this.#block;
    const room = this.#block - (this.at % this.#block);
    const fits = bytes + tail <= room;
    inode.block = this.dataBlocks;
    inode.isInline =
      tail > 0 && (fits || (bytes + tail <= this.#block && tail <= this.#block - room));
    this.dataBlocks += Math.floor(inode.size / this.#block);
    if (inode.isInline) {
      if (!fits) this.at = roundUp(this.at, this.#block);
      this.#take(inode, bytes + tail);
    } else {
      if (tail > 0) this.dataBlocks += 1;
      this.#take(inode, bytes);
    }
  }

  #sparse(inode: SparseInode, bytes: number): void {
    const { copied, chunkBits, chunks, dataChunks } = inode.plan;
    if (this.#shape.hasData) {
      inode.block = this.dataBlocks;
      this.dataBlocks += dataChunks * (2 ** chunkBits / this.#block);
    } else if (copied !== undefined) {
      inode.block = this.blocks;
      this.blocks += copied.size * (2 ** chunkBits / this.#block);
    }
    this.#chunks(inode, bytes, chunks);
  }

  #chunks(inode: Inode, bytes: number, chunks: number): void {
    const before = roundUp(this.at + bytes, CHUNK_INDEX) - this.at;
    this.#take(inode, chunks === 0 ? bytes : before + chunks * CHUNK_INDEX);
  }

  #take(inode: Inode, bytes: number): void {
    inode.at = this.at;
    this.at = roundUp(this.at + bytes, SLOT);
  }
}
