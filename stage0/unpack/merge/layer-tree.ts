/**
 * A layer's tree as a merge needs it: which names it has, and which member of the archive each of them is.
 * Everything else about a file comes from the member itself, when the archive is read again.
 */
import type { Budget } from '../erofs/budget.ts';
import { encodeDevice, S_IFBLK, S_IFCHR, S_IFIFO, S_IFLNK, S_IFREG } from '../erofs/format.ts';
import { FileInode, FolderInode, type Inode, SpecialInode, SymlinkInode } from '../erofs/inodes.ts';
import { TreeBuilder } from '../erofs/tree-builder.ts';
import { storedXattr } from '../overlay-xattrs.ts';
import { failed, refused } from '../refusal.ts';
import type { TarEntry, TarHandler, TarXattr } from '../tar-entry.ts';

/** Bytes that a place in the map of members takes. */
const PLACE_BYTES = 64;

export interface FolderAttributes {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeSec: number;
  readonly mtimeNsec: number;
  readonly xattrs: readonly TarXattr[];
}

/** Of a folder that no member stands for. */
export const UNNAMED_FOLDER: FolderAttributes = {
  mode: 0o755,
  uid: 0,
  gid: 0,
  mtimeSec: 0,
  mtimeNsec: 0,
  xattrs: [],
};

export class LayerTree implements TarHandler {
  readonly #budget: Budget;
  readonly #builder: TreeBuilder;
  /** What is no folder, by the offset of its member. */
  readonly #members = new Map<number, Inode>();
  readonly #folders = new Map<FolderInode, FolderAttributes>();

  constructor(budget: Budget) {
    this.#budget = budget;
    this.#builder = new TreeBuilder(budget, {
      make: entry => this.#make(entry),
      describe: (inode, entry) => this.#describe(inode, entry),
    });
  }

  get root(): FolderInode {
    return this.#builder.root;
  }

  /** Undefined for a member that is a folder, a hard link, or a mark. */
  member(offset: number): Inode | undefined {
    return this.#members.get(offset);
  }

  /** Undefined for a folder that no member stands for. */
  attributes(folder: FolderInode): FolderAttributes | undefined {
    return this.#folders.get(folder);
  }

  begin(entry: TarEntry): void {
    try {
      this.#builder.add(entry);
    } catch (error) {
      throw failed(entry, error);
    }
  }

  data(): void {}

  end(): void {}

  #make(entry: TarEntry): Inode {
    const inode = inodeOf(entry);
    this.#budget.take(PLACE_BYTES);
    this.#members.set(entry.offset, inode);
    return inode;
  }

  #describe(inode: Inode, entry: TarEntry): void {
    if (!(inode instanceof FolderInode)) return;
    const { mode, uid, gid, mtimeSec, mtimeNsec } = entry;
    // Copies: what the reader hands out are views of the archive's chunks.
    const xattrs = keptXattrs(entry).map(({ name, value }) => ({
      name,
      value: Buffer.from(value),
    }));
    const bytes = xattrs.reduce((sum, { name, value }) => sum + name.length + value.length, 0);
    this.#budget.take(PLACE_BYTES * 2 + bytes);
    this.#folders.set(inode, { mode, uid, gid, mtimeSec, mtimeNsec, xattrs });
  }
}

/** Those that an unpacked layer has, under the names that its archive gives them. */
export function keptXattrs(entry: TarEntry): readonly TarXattr[] {
  return entry.xattrs.filter(({ name }) => storedXattr(name) !== undefined);
}

function inodeOf(entry: TarEntry): Inode {
  switch (entry.type) {
    case 'symlink':
      if (entry.linkName.length === 0) throw refused('a symbolic link without a target');
      return new SymlinkInode(S_IFLNK, entry.linkName.toString('latin1'));
    case 'char':
      if (entry.major === 0 && entry.minor === 0) {
        throw refused('character device 0:0 is how overlayfs marks a whiteout');
      }
      return new SpecialInode(S_IFCHR | entry.mode, encodeDevice(entry.major, entry.minor));
    case 'block':
      return new SpecialInode(S_IFBLK | entry.mode, encodeDevice(entry.major, entry.minor));
    case 'fifo':
      return new SpecialInode(S_IFIFO | entry.mode, 0);
    case 'directory':
    case 'hardlink':
      throw new Error(`a ${entry.type} has no inode of its own`);
    default:
      return new FileInode(S_IFREG | entry.mode, entry.size, entry.dataOffset);
  }
}
