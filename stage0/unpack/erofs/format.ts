/**
 * EROFS on disk, as far as we write it: little-endian, in one of two shapes. Linux fs/erofs/erofs_fs.h;
 * docs/erofs.md.
 */

export interface Shape {
  /** Log2 of the block size. */
  readonly blockBits: number;
  readonly block: number;
  /** Whether the image has the data of files; else a tar has it, which is another device. */
  readonly hasData: boolean;
}

/** Data in a tar is addressable by blocks of 512 bytes; Linux 6.4 and later mount them. */
export const TAR_INDEX: Shape = { blockBits: 9, block: 512, hasData: false };
/** What every Linux that has EROFS mounts, from a file or a disk. */
export const SELF_CONTAINED: Shape = { blockBits: 12, block: 4096, hasData: true };

export const SUPER_OFFSET = 1024;
const SUPER_BYTES = 128;
const DEVICE_SLOT_BYTES = 128;

/** Where inodes begin: behind the superblock, or in the block after the device table. */
export function inodesOffset({ block, hasData }: Shape): number {
  if (hasData) return SUPER_OFFSET + SUPER_BYTES;
  return roundUp(SUPER_OFFSET + SUPER_BYTES + DEVICE_SLOT_BYTES, block);
}

const MAGIC = 0xe0f5e1e2;
/** Times of inodes are of modification. No checksum flag: readers before 2025 count it wrongly for small blocks. */
const COMPAT_MTIME = 0x2;
const INCOMPAT_CHUNKED_FILE = 0x4;
const INCOMPAT_DEVICE_TABLE = 0x8;

/** A node number counts slots of this size from the beginning of the image. */
export const SLOT = 32;
export const COMPACT_INODE = 32;
export const EXTENDED_INODE = 64;

/** Data layouts of an inode. */
export const FLAT_PLAIN = 0;
export const FLAT_INLINE = 2;
export const CHUNK_BASED = 4;

export const CHUNK_INDEX = 8;
const CHUNK_INDEXES = 0x20;
/** The address of a chunk that is a hole, and of an inode without data. */
export const NO_ADDRESS = 0xffffffff;

export const DIRENT = 12;
export const XATTR_HEADER = 12;
export const XATTR_ENTRY = 4;

export const S_IFMT = 0o170000;
export const S_IFIFO = 0o010000;
export const S_IFCHR = 0o020000;
export const S_IFDIR = 0o040000;
export const S_IFBLK = 0o060000;
export const S_IFREG = 0o100000;
export const S_IFLNK = 0o120000;

/** A directory entry's type by the type bits of the mode. */
export const FILE_TYPES = new Map<number, number>([
  [S_IFREG, 1],
  [S_IFDIR, 2],
  [S_IFCHR, 3],
  [S_IFBLK, 4],
  [S_IFIFO, 5],
  [S_IFLNK, 7],
]);

export function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}

/** Linux's 32-bit encoding of a device number (new_encode_dev): major to 0xfff, minor to 0xfffff. */
export function encodeDevice(major: number, minor: number): number {
  return ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0;
}

/** The chunk format of an inode whose chunks have 2^bits bytes and indexes that name a device. */
export function chunkFormat(bits: number, { blockBits }: Shape): number {
  return (bits - blockBits) | CHUNK_INDEXES;
}

/** Largest chunk: 5 bits of a chunk format count from the block size. */
export function mostChunkBits({ blockBits }: Shape): number {
  return blockBits + 31;
}

/** A signed 64-bit number that is exact as a double. */
export function write64(into: Buffer, value: number, at: number): void {
  into.writeUInt32LE(value >>> 0, at);
  into.writeInt32LE(Math.floor(value / 0x1_0000_0000), at + 4);
}

export interface Superblock {
  readonly shape: Shape;
  /** Whether any inode has chunks. */
  readonly hasChunks: boolean;
  readonly rootNid: number;
  readonly inodes: number;
  /** The modification time of compact inodes. */
  readonly time: Time;
  /** Blocks of the image, and of the tar. */
  readonly blocks: number;
  readonly deviceBlocks: number;
  readonly xattrBlock: number;
  readonly uuid: Uint8Array;
}

export interface Time {
  readonly sec: number;
  readonly nsec: number;
}

/** The image's first bytes, up to the inodes. */
export function encodeHead(superblock: Superblock): Buffer {
  const { shape } = superblock;
  const head = Buffer.alloc(inodesOffset(shape));
  const at = SUPER_OFFSET;
  head.writeUInt32LE(MAGIC, at);
  head.writeUInt32LE(COMPAT_MTIME, at + 8);
  head.writeUInt8(shape.blockBits, at + 12);
  head.writeUInt16LE(superblock.rootNid, at + 14);
  write64(head, superblock.inodes, at + 16);
  write64(head, superblock.time.sec, at + 24);
  head.writeUInt32LE(superblock.time.nsec, at + 32);
  head.writeUInt32LE(superblock.blocks, at + 36);
  head.writeUInt32LE(0, at + 40); // metadata begins at block 0
  head.writeUInt32LE(superblock.xattrBlock, at + 44);
  head.set(superblock.uuid, at + 48);
  const chunks = superblock.hasChunks ? INCOMPAT_CHUNKED_FILE : 0;
  head.writeUInt32LE(shape.hasData ? chunks : chunks | INCOMPAT_DEVICE_TABLE, at + 80);
  if (shape.hasData) return head;
  head.writeUInt16LE(1, at + 86); // devices besides the image
  const slot = SUPER_OFFSET + SUPER_BYTES;
  head.writeUInt16LE(slot / DEVICE_SLOT_BYTES, at + 88);
  head.writeUInt32LE(superblock.deviceBlocks, slot + 64);
  // where the device would follow the image in one file: both mount as one device, too
  head.writeUInt32LE(superblock.blocks, slot + 68);
  return head;
}
