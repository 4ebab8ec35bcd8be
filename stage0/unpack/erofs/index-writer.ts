/**
 * A layer as an EROFS image of its metadata, which points into the uncompressed tar for data: what
 * `mkfs.erofs --tar=i` makes. It takes the tar reader's entries as the Extractor does, by the same rules,
 * and makes the same tree of them; only nothing is created anywhere.
 *
 * Modification times of what the archive does not name (missing folders, whiteouts) are 0, so that equal
 * archives give equal images. Access times are not kept.
 */
import { TspodError } from '../../../src/errors.ts';
import { whiteoutKind } from '../overlay-xattrs.ts';
import { failed, refused } from '../refusal.ts';
import { showName, type TarEntry, type TarHandler } from '../tar-entry.ts';
import { components, Resolver } from '../tree-path.ts';
import { Budget } from './budget.ts';
import {
  BLOCK,
  encodeDevice,
  S_IFBLK,
  S_IFCHR,
  S_IFDIR,
  S_IFIFO,
  S_IFLNK,
  S_IFREG,
} from './format.ts';
import { image, PIECE } from './image.ts';
import {
  FileInode,
  FolderInode,
  type Inode,
  SparseInode,
  SpecialInode,
  SymlinkInode,
} from './inodes.ts';
import { layOut } from './layout.ts';
import { copyData, SparsePlanner } from './sparse-plan.ts';
import { isWhiteout, Tree, whiteout } from './tree.ts';
import { type Attributes, XattrTable } from './xattrs.ts';

const UUID_BYTES = 16;
const PERMISSIONS = 0o777;

export class ErofsIndexer implements TarHandler {
  readonly #uuid: Uint8Array;
  readonly #tree: Tree;
  readonly #resolver: Resolver<FolderInode>;
  readonly #xattrs: XattrTable;
  readonly #planner: SparsePlanner;
  /** Whether the data in hand belongs to a file that the layer has. */
  #isWanted = false;
  #sparse: SparseInode | undefined;
  /** What is wrong with folders' attributes, which only the last entry of a folder sets, on disk as here. */
  readonly #faults = new Map<FolderInode, unknown>();
  #entries = 0;
  #bytes = 0;
  #isFinished = false;

  /**
   * @param options.uuid 16 bytes that the image is to carry; zeros without
   * @param options.memory bound on the memory for names and attributes, in bytes
   */
  constructor(options: { readonly uuid?: Uint8Array; readonly memory?: number } = {}) {
    const uuid = options.uuid ?? new Uint8Array(UUID_BYTES);
    if (uuid.length !== UUID_BYTES) throw new Error('a UUID has 16 bytes');
    this.#uuid = uuid;
    const budget = new Budget(options.memory);
    this.#tree = new Tree(budget);
    this.#resolver = new Resolver(this.#tree);
    this.#xattrs = new XattrTable(budget);
    this.#planner = new SparsePlanner(budget);
  }

  /** Members taken, whiteouts included. */
  get entries(): number {
    return this.#entries;
  }

  /** Bytes of file content, holes not counted. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Attributes of the layer's root; overlayfs ignores the opaque attribute on it. */
  get root(): {
    readonly mode: number;
    readonly uid: number;
    readonly gid: number;
    readonly opaque: boolean;
  } {
    const { mode, uid, gid, opaque } = this.#tree.root;
    return { mode: mode & 0o7777, uid, gid, opaque };
  }

  begin(entry: TarEntry): void {
    this.#entries += 1;
    this.#isWanted = false;
    this.#sparse = undefined;
    try {
      this.#begin(entry);
    } catch (error) {
      throw failed(entry, error);
    }
  }

  data(_: TarEntry, chunk: Uint8Array, position: number): void {
    if (!this.#isWanted) return;
    this.#bytes += chunk.length;
    if (this.#sparse !== undefined) copyData(this.#sparse.plan, chunk, position);
  }

  end(): void {
    this.#isWanted = false;
    this.#sparse = undefined;
  }

  /**
   * The image, from its first byte to its last: a multiple of 4096 bytes in pieces of up to 1 MiB, which
   * the caller may keep. To be called once, when the tar has ended.
   * @param tarBytes length of the uncompressed tar; the device covers it, rounded up to 512 bytes
   * @param pieceBytes for tests
   * @throws TspodError 'limit' at once or before the first piece
   */
  finish(tarBytes: number, pieceBytes: number = PIECE): Iterable<Uint8Array> {
    if (this.#isFinished) throw new Error('this image is finished');
    this.#isFinished = true;
    if (this.#faults.size > 0) this.#throwFault(this.#tree.root);
    const layout = layOut(this.#tree.root, this.#xattrs, tarBytes);
    return image(layout, this.#uuid, Math.ceil(tarBytes / BLOCK), pieceBytes);
  }

  #begin(entry: TarEntry): void {
    const parts = components(entry.name.toString('latin1'));
    if (parts === undefined) throw refused('its name leaves the root');
    const kind = whiteoutKind(parts);
    const base = parts.pop();
    switch (kind.kind) {
      case 'ignored':
        return;
      case 'malformed':
        throw refused('names that begin with .wh. are whiteouts, and this one hides nothing');
      case 'opaque':
        this.#resolver.folder(parts, true).opaque = true;
        return;
      case 'whiteout':
        this.#hide(this.#resolver.folder(parts, true), kind.name);
        return;
    }
    if (base !== undefined) this.#make(entry, this.#resolver.folder(parts, true), base);
    else if (entry.type === 'directory') this.#describe(this.#tree.root, entry);
    else throw refused('the entry for the root may only be a folder');
  }

  #make(entry: TarEntry, folder: FolderInode, name: string): void {
    const there = this.#tree.find(folder, name);
    if (entry.type === 'directory') {
      this.#makeFolder(entry, folder, name, there);
      return;
    }
    if (entry.type === 'hardlink') {
      this.#makeHardLink(entry, folder, name, there);
      return;
    }
    const inode = this.#inode(entry);
    this.#describe(inode, entry);
    this.#replace(folder, name, there, inode);
  }

  #inode(entry: TarEntry): Inode {
    switch (entry.type) {
      case 'symlink':
        if (entry.linkName.length === 0) throw refused('a symbolic link without a target');
        return new SymlinkInode(S_IFLNK | PERMISSIONS, entry.linkName.toString('latin1'));
      case 'char':
        if (entry.major === 0 && entry.minor === 0) {
          throw refused('character device 0:0 is how overlayfs marks a whiteout');
        }
        return new SpecialInode(S_IFCHR | entry.mode, encodeDevice(entry.major, entry.minor));
      case 'block':
        return new SpecialInode(S_IFBLK | entry.mode, encodeDevice(entry.major, entry.minor));
      case 'fifo':
        return new SpecialInode(S_IFIFO | entry.mode, 0);
      default:
        return this.#file(entry);
    }
  }

  #file(entry: TarEntry): Inode {
    this.#isWanted = true;
    const mode = S_IFREG | entry.mode;
    if (!entry.sparse) return new FileInode(mode, entry.size, entry.dataOffset);
    this.#sparse = new SparseInode(mode, entry.size, this.#planner.plan(entry));
    return this.#sparse;
  }

  #makeFolder(entry: TarEntry, parent: FolderInode, name: string, there: Inode | undefined): void {
    let folder: FolderInode;
    if (there instanceof FolderInode) folder = there;
    else if (there !== undefined && isWhiteout(there)) {
      folder = this.#tree.replaceWhiteout(parent, name);
    } else {
      folder = this.#tree.makeFolder(parent, name);
      if (there instanceof SymlinkInode) this.#resolver.forget();
    }
    this.#describe(folder, entry);
  }

  #makeHardLink(
    entry: TarEntry,
    folder: FolderInode,
    name: string,
    there: Inode | undefined,
  ): void {
    const parts = components(entry.linkName.toString('latin1'));
    const base = parts?.pop();
    if (parts === undefined || base === undefined) throw refused('its target leaves the root');
    const targetFolder = this.#resolver.folder(parts, false);
    const target = this.#tree.find(targetFolder, base);
    if (target === undefined || isWhiteout(target)) {
      throw refused(`its target ${showName(entry.linkName)} does not exist in the layer`);
    }
    if (target instanceof FolderInode) throw refused('its target is a folder');
    if (target === there) return; // it is that file
    if (there instanceof FolderInode && isBelow(targetFolder, there)) {
      throw refused(`its target ${showName(entry.linkName)} is in the folder that it replaces`);
    }
    this.#replace(folder, name, there, target);
  }

  #replace(folder: FolderInode, name: string, there: Inode | undefined, inode: Inode): void {
    this.#tree.put(folder, name, inode);
    // folders and links are what a path can lead through
    if (there instanceof FolderInode || there instanceof SymlinkInode) this.#resolver.forget();
  }

  /** Hides a name of the lower layers, never one of this layer. */
  #hide(folder: FolderInode, name: string): void {
    const there = this.#tree.find(folder, name);
    if (there === undefined) this.#tree.put(folder, name, whiteout());
    else if (there instanceof FolderInode) there.opaque = true;
  }

  /** Of the folders that are still in the tree: later entries may have taken the place of others. */
  #throwFault(root: FolderInode): void {
    const folders = [root];
    for (let folder = folders.pop(); folder !== undefined; folder = folders.pop()) {
      if (this.#faults.has(folder)) throw this.#faults.get(folder);
      for (const child of folder.children.values()) {
        if (child instanceof FolderInode) folders.push(child);
      }
    }
  }

  #attributes(inode: Inode, entry: TarEntry): Attributes {
    if (!(inode instanceof FolderInode)) return this.#xattrs.of(entry);
    this.#faults.delete(inode);
    try {
      return this.#xattrs.of(entry);
    } catch (error) {
      if (error instanceof TspodError && error.code === 'limit') throw error;
      this.#faults.set(inode, failed(entry, error));
      return { xattrs: undefined, permissions: undefined };
    }
  }

  #describe(inode: Inode, entry: TarEntry): void {
    const { xattrs, permissions } = this.#attributes(inode, entry);
    if (inode instanceof FolderInode) inode.mode = S_IFDIR | entry.mode;
    inode.uid = entry.uid;
    inode.gid = entry.gid;
    inode.mtimeSec = entry.mtimeSec;
    inode.mtimeNsec = entry.mtimeNsec;
    inode.xattrs = xattrs;
    if (permissions !== undefined) inode.mode = (inode.mode & ~PERMISSIONS) | permissions;
  }
}

function isBelow(folder: FolderInode, above: FolderInode): boolean {
  let at = folder;
  while (at !== above) {
    if (at === at.parent) return false;
    at = at.parent;
  }
  return true;
}
