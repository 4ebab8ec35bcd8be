/**
 * A layer as an EROFS image of its metadata, which points into the uncompressed tar for data: what
 * `mkfs.erofs --tar=i` makes. It takes the tar reader's entries as the Extractor does, by the same rules,
 * and makes the same tree of them; only nothing is created anywhere.
 *
 * Modification times of what the archive does not name (missing folders, whiteouts) are 0, so that equal
 * archives give equal images. Access times are not kept.
 */
import { TspodError } from '../../../src/errors.ts';
import { failed, refused } from '../refusal.ts';
import type { TarEntry, TarHandler } from '../tar-entry.ts';
import { Budget } from './budget.ts';
import type { DataSource } from './data.ts';
import {
  encodeDevice,
  S_IFBLK,
  S_IFCHR,
  S_IFDIR,
  S_IFIFO,
  S_IFLNK,
  S_IFREG,
  type Shape,
  TAR_INDEX,
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
import { type Layout, layOut } from './layout.ts';
import { copyData, SparsePlanner } from './sparse-plan.ts';
import { TreeBuilder } from './tree-builder.ts';
import { type Attributes, XattrTable } from './xattrs.ts';

const UUID_BYTES = 16;
const PERMISSIONS = 0o777;

export class ErofsIndexer implements TarHandler {
  readonly #uuid: Uint8Array;
  readonly #builder: TreeBuilder;
  readonly #xattrs: XattrTable;
  readonly #planner: SparsePlanner;
  readonly #shape: Shape;
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
   * @param options.shape TAR_INDEX without; SELF_CONTAINED is finished by `finishWithData`
   * @param options.memory bound on the memory for names and attributes, in bytes
   */
  constructor(
    options: {
      readonly uuid?: Uint8Array;
      readonly shape?: Shape;
      readonly memory?: number;
    } = {},
  ) {
    const uuid = options.uuid ?? new Uint8Array(UUID_BYTES);
    if (uuid.length !== UUID_BYTES) throw new Error('a UUID has 16 bytes');
    this.#uuid = uuid;
    const budget = new Budget(options.memory);
    this.#builder = new TreeBuilder(budget, {
      make: entry => this.#inode(entry),
      describe: (inode, entry) => this.#describe(inode, entry),
    });
    this.#xattrs = new XattrTable(budget);
    this.#shape = options.shape ?? TAR_INDEX;
    this.#planner = new SparsePlanner(budget, this.#shape);
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
    const { mode, uid, gid, opaque } = this.#builder.root;
    return { mode: mode & 0o7777, uid, gid, opaque };
  }

  begin(entry: TarEntry): void {
    this.#entries += 1;
    this.#isWanted = false;
    this.#sparse = undefined;
    try {
      this.#builder.add(entry);
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
   * @param tarBytes length of the uncompressed tar; the device covers it, rounded up to a block
   * @param pieceBytes for tests
   * @throws TspodError 'limit' at once or before the first piece
   */
  finish(tarBytes: number, pieceBytes: number = PIECE): Iterable<Uint8Array> {
    const layout = this.#layOut(tarBytes, false);
    const deviceBlocks = Math.ceil(tarBytes / this.#shape.block);
    return image(layout, { uuid: this.#uuid, deviceBlocks, pieceBytes });
  }

  /**
   * As `finish`, with the data of files in the image: it needs nothing else, and blocks of 4096 bytes.
   * @param source is read while the image is taken
   */
  finishWithData(
    tarBytes: number,
    source: DataSource,
    pieceBytes: number = PIECE,
  ): Iterable<Uint8Array> {
    const layout = this.#layOut(tarBytes, true);
    return image(layout, { uuid: this.#uuid, deviceBlocks: 0, pieceBytes, source });
  }

  #layOut(tarBytes: number, hasData: boolean): Layout {
    if (this.#isFinished) throw new Error('this image is finished');
    if (this.#shape.hasData !== hasData) throw new Error('an image of the other kind was begun');
    this.#isFinished = true;
    if (this.#faults.size > 0) this.#throwFault(this.#builder.root);
    return layOut(this.#builder.root, this.#xattrs, tarBytes, this.#shape);
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
