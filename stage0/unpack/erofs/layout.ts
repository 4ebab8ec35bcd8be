/**
 * Where everything goes in the image: superblock and device table, inodes with what is inline, blocks of
 * large folders, long links and copied data, shared attributes. Folders' inodes come before those of
 * what is in them, level by level, so that a folder's entries lie side by side; the root is first, because
 * its number has 16 bits.
 */
import { TspodError } from '../../../src/errors.ts';
import { OPAQUE, OPAQUE_VALUE } from '../overlay-xattrs.ts';
import {
  BLOCK,
  CHUNK_INDEX,
  COMPACT_INODE,
  DIRENT,
  EXTENDED_INODE,
  INODES_OFFSET,
  roundUp,
  SLOT,
  type Time,
} from './format.ts';
import { FileInode, FolderInode, type Inode, SparseInode, SymlinkInode } from './inodes.ts';
import { SharedArea, type XattrTable } from './xattrs.ts';

/** The image is as long as a multiple of this: pages, and sectors of any disk. */
const IMAGE_UNIT = 4096;
/** Beyond the length of the tar. Every entry takes more of the tar than of the image, tricks excepted. */
export const MOST_EXTRA_BYTES = 512 * 1024 ** 2;

export interface Layout {
  /** In the order of the image. */
  readonly inodes: readonly Inode[];
  readonly time: Time;
  readonly blocksAt: number;
  readonly shared: SharedArea;
  readonly sharedAt: number;
  /** Bytes of the image. */
  readonly length: number;
}

/**
 * @param tarBytes length of the uncompressed tar
 * @throws TspodError 'limit' when the image would be out of proportion
 */
export function layOut(root: FolderInode, xattrs: XattrTable, tarBytes: number): Layout {
  const inodes = collect(root);
  const shared = new SharedArea();
  for (const inode of inodes) {
    if (inode instanceof FolderInode && inode.opaque) {
      inode.xattrs = xattrs.with(inode.xattrs, OPAQUE, OPAQUE_VALUE);
    }
    for (const one of inode.xattrs?.members ?? []) one.uses += 1;
  }
  const time = commonTime(inodes);
  const place = new Place(INODES_OFFSET);
  for (const inode of inodes) {
    inode.xattrs?.place(shared);
    place.inode(inode, isCompact(inode, time));
  }
  const blocksAt = roundUp(place.at, BLOCK);
  const sharedAt = blocksAt + place.blocks * BLOCK;
  const length = roundUp(sharedAt + shared.size, IMAGE_UNIT);
  const bound = tarBytes + MOST_EXTRA_BYTES;
  if (length > bound) {
    throw new TspodError(
      'limit',
      `layer: more than the bound of ${bound} bytes of metadata for an archive of ${tarBytes} bytes`,
    );
  }
  return { inodes, time, blocksAt, shared, sharedAt, length };
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

  constructor(at: number) {
    this.at = at;
  }

  inode(inode: Inode, compact: boolean): void {
    const own = compact ? COMPACT_INODE : EXTENDED_INODE;
    // readers cope with an inode across blocks; no need to try them
    if (BLOCK - (this.at % BLOCK) < own) this.at = roundUp(this.at, BLOCK);
    const bytes = own + (inode.xattrs?.size ?? 0);
    if (inode instanceof FolderInode) this.#folder(inode, bytes);
    else if (inode instanceof SymlinkInode) this.#flat(inode, bytes, inode.size);
    else if (inode instanceof SparseInode) this.#sparse(inode, bytes);
    else if (inode instanceof FileInode) this.#chunks(inode, bytes, inode.size > 0 ? 1 : 0);
    else this.#take(inode, bytes);
  }

  #folder(folder: FolderInode, bytes: number): void {
    let full = 0;
    let used = 0;
    let lastFrom = 0;
    for (const [index, name] of folder.sorted.entries()) {
      const size = DIRENT + name.length;
      if (used + size > BLOCK) {
        full += 1;
        used = 0;
        lastFrom = index;
      }
      used += size;
    }
    folder.directoryBytes = full * BLOCK + used;
    this.#flat(folder, bytes, folder.directoryBytes);
    folder.inlineFrom = folder.isInline ? lastFrom : folder.sorted.length;
  }

  /** The last, partial block goes behind the inode where both fit into one block, as readers want it. */
  #flat(inode: Inode, bytes: number, size: number): void {
    const tail = size % BLOCK;
    inode.block = this.blocks;
    inode.isInline = tail > 0 && bytes + tail <= BLOCK;
    if (!inode.isInline) {
      this.blocks += Math.ceil(size / BLOCK);
      this.#take(inode, bytes);
      return;
    }
    this.blocks += Math.floor(size / BLOCK);
    if ((this.at % BLOCK) + bytes + tail > BLOCK) this.at = roundUp(this.at, BLOCK);
    this.#take(inode, bytes + tail);
  }

  #sparse(inode: SparseInode, bytes: number): void {
    const { copied, chunkBits, chunks } = inode.plan;
    if (copied !== undefined) {
      inode.block = this.blocks;
      this.blocks += copied.size * (2 ** chunkBits / BLOCK);
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
