/**
 * The tree of a layer in memory, made to hold some hundred thousand inodes: numbers, names of one character
 * per byte, no file data but what a sparse file needs that the tar can't give by the block.
 */
import type { SparsePlan } from './sparse-plan.ts';
import type { XattrSet } from './xattrs.ts';

export abstract class Inode {
  /** With the type's bits. */
  mode: number;
  uid = 0;
  gid = 0;
  mtimeSec = 0;
  mtimeNsec = 0;
  xattrs: XattrSet | undefined = undefined;
  nlink = 0;
  // set by the layout: where it is in the image, in bytes; its first block, counted behind the inodes;
  // whether the rest of its last block is behind the inode
  at = 0;
  block = 0;
  isInline = false;

  constructor(mode: number) {
    this.mode = mode;
  }

  /** Bytes of content as stat(2) tells it. */
  get size(): number {
    return 0;
  }
}

/** A file whose data lies in one piece in the tar. */
export class FileInode extends Inode {
  readonly #size: number;
  readonly tarOffset: number;

  constructor(mode: number, size: number, tarOffset: number) {
    super(mode);
    this.#size = size;
    this.tarOffset = tarOffset;
  }

  override get size(): number {
    return this.#size;
  }
}

export class SparseInode extends Inode {
  readonly #size: number;
  readonly plan: SparsePlan;

  constructor(mode: number, size: number, plan: SparsePlan) {
    super(mode);
    this.#size = size;
    this.plan = plan;
  }

  override get size(): number {
    return this.#size;
  }
}

export class SymlinkInode extends Inode {
  readonly target: string;

  constructor(mode: number, target: string) {
    super(mode);
    this.target = target;
  }

  override get size(): number {
    return this.target.length;
  }
}

/** A device or a FIFO. A character device 0:0 is a whiteout: an image can have no other. */
export class SpecialInode extends Inode {
  readonly rdev: number;

  constructor(mode: number, rdev: number) {
    super(mode);
    this.rdev = rdev;
  }
}

export class FolderInode extends Inode {
  /** Itself for the root. */
  readonly parent: FolderInode;
  /** Bytes of its path, the root's being 0. */
  readonly pathBytes: number;
  readonly children = new Map<string, Inode>();
  opaque = false;
  /** Names by their bytes, `.` and `..` among them; set by the layout. */
  sorted: readonly string[] = [];
  /** Bytes of its directory, and the index in `sorted` from which it is inline. */
  directoryBytes = 0;
  inlineFrom = 0;

  constructor(mode: number, parent?: FolderInode, name = '') {
    super(mode);
    this.parent = parent ?? this;
    this.pathBytes = parent === undefined ? 0 : parent.pathBytes + 1 + name.length;
  }

  override get size(): number {
    return this.directoryBytes;
  }

  /** The inode of a name in `sorted`. */
  entry(name: string): Inode {
    if (name === '.') return this;
    if (name === '..') return this.parent;
    const child = this.children.get(name);
    if (child === undefined) throw new Error('a directory changed while it was written');
    return child;
  }
}
