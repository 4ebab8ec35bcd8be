/**
 * A tree of plain files (a layer in `directory` form) as a self-contained EROFS image. The tree is ours and nobody
 * writes to it; still no link is followed, and a file that is not what it was is an error.
 */
import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
} from 'node:fs';
import { systemError, TspodError } from '../../../src/errors.ts';
import { native } from '../../../src/sys/native.ts';
import { Budget } from './budget.ts';
import type { DataSource } from './data.ts';
import {
  encodeDevice,
  S_IFBLK,
  S_IFCHR,
  S_IFIFO,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  SELF_CONTAINED,
} from './format.ts';
import { image, PIECE } from './image.ts';
import {
  FileInode,
  type FolderInode,
  type Inode,
  type SparseInode,
  SpecialInode,
  SymlinkInode,
} from './inodes.ts';
import { layOut } from './layout.ts';
import { Tree } from './tree.ts';
import { type XattrSet, XattrTable } from './xattrs.ts';

const UUID_BYTES = 16;
const OPEN = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
/** Attributes that EROFS has numbers for; a file system may show others of its own. */
const KEPT = [
  'user.',
  'trusted.',
  'security.',
  'system.posix_acl_access',
  'system.posix_acl_default',
];

/** Where a file's data is; one character per byte, as all names here. */
class DiskFile extends FileInode {
  readonly folder: string;
  readonly name: string;

  constructor(mode: number, size: number, folder: string, name: string) {
    super(mode, size, 0);
    this.folder = folder;
    this.name = name;
  }
}

export class FolderImager implements DataSource {
  readonly #budget = new Budget();
  readonly #tree = new Tree(this.#budget);
  readonly #xattrs = new XattrTable(this.#budget);
  /** Files with several names, by device and inode. */
  readonly #linked = new Map<string, Inode>();
  #bytes = 0;
  #open: { readonly file: FileInode; readonly fd: number } | undefined;

  /** @throws TspodError 'limit' for what an image can't hold */
  constructor(path: string) {
    const root = Buffer.from(path).toString('latin1');
    this.#describe(this.#tree.root, root);
    const folders: [folder: FolderInode, path: string][] = [[this.#tree.root, root]];
    for (let next = folders.pop(); next !== undefined; next = folders.pop()) {
      const [folder, at] = next;
      for (const bytes of readdirSync(bytesOf(at), { encoding: 'buffer' })) {
        const name = bytes.toString('latin1');
        // Lengths are checked as an archive's are.
        this.#tree.find(folder, name);
        const child = this.#add(folder, at, name);
        if (child !== undefined) folders.push([child, `${at}/${name}`]);
      }
    }
  }

  /** Once; reads the files while it is taken. */
  image(pieceBytes: number = PIECE): Iterable<Uint8Array> {
    const layout = layOut(this.#tree.root, this.#xattrs, this.#bytes, SELF_CONTAINED);
    const uuid = new Uint8Array(UUID_BYTES);
    return image(layout, { uuid, deviceBlocks: 0, pieceBytes, source: this });
  }

  close(): void {
    if (this.#open !== undefined) closeSync(this.#open.fd);
    this.#open = undefined;
  }

  read(file: FileInode | SparseInode, position: number, into: Buffer): void {
    if (!(file instanceof DiskFile)) throw new Error('a file of another tree');
    const fd = this.#fdOf(file);
    for (let done = 0; done < into.length; ) {
      const length = readSync(fd, into, done, into.length - done, position + done);
      if (length === 0) throw changed(file);
      done += length;
    }
  }

  #fdOf(file: DiskFile): number {
    if (this.#open?.file === file) return this.#open.fd;
    this.close();
    const fd = openSync(bytesOf(`${file.folder}/${file.name}`), OPEN);
    this.#open = { file, fd };
    const stat = fstatSync(fd);
    if (!stat.isFile() || stat.size !== file.size) throw changed(file);
    return fd;
  }

  /** The new inode if it is a folder. */
  #add(folder: FolderInode, at: string, name: string): FolderInode | undefined {
    const path = `${at}/${name}`;
    const stat = lstatSync(bytesOf(path));
    if (stat.isDirectory()) {
      const child = this.#tree.makeFolder(folder, name);
      this.#describe(child, path);
      return child;
    }
    const key = `${stat.dev}:${stat.ino}`;
    let inode = stat.nlink > 1 ? this.#linked.get(key) : undefined;
    if (inode === undefined) {
      inode = this.#make(at, name);
      this.#describe(inode, path);
      if (stat.nlink > 1) this.#linked.set(key, inode);
    }
    this.#tree.put(folder, name, inode);
    return undefined;
  }

  #make(at: string, name: string): Inode {
    const path = bytesOf(`${at}/${name}`);
    const { mode, size, rdev } = lstatSync(path);
    switch (mode & S_IFMT) {
      case S_IFREG:
        this.#bytes += size;
        return new DiskFile(mode, size, at, name);
      case S_IFLNK:
        return new SymlinkInode(
          mode,
          readlinkSync(path, { encoding: 'buffer' }).toString('latin1'),
        );
      case S_IFCHR:
      case S_IFBLK:
        return new SpecialInode(mode, encodeDevice(majorOf(rdev), minorOf(rdev)));
      case S_IFIFO:
        return new SpecialInode(mode, 0);
      default:
        throw new TspodError('store', `layer: ${path.toString()} is of a kind that no layer has`);
    }
  }

  #describe(inode: Inode, path: string): void {
    const { mode, uid, gid, mtimeNs } = lstatSync(bytesOf(path), { bigint: true });
    inode.mode = Number(mode);
    inode.uid = Number(uid);
    inode.gid = Number(gid);
    const nsec = ((mtimeNs % NS) + NS) % NS;
    inode.mtimeSec = Number((mtimeNs - nsec) / NS);
    inode.mtimeNsec = Number(nsec);
    inode.xattrs = this.#xattrsOf(path);
  }

  #xattrsOf(path: string): XattrSet | undefined {
    const bytes = bytesOf(path);
    try {
      const names = native()
        .llistxattr(bytes)
        .map(name => Buffer.from(name).toString('latin1'))
        .filter(name => KEPT.some(prefix => name.startsWith(prefix)))
        .sort();
      return this.#xattrs.set(
        names.map(name => [name, native().lgetxattr(bytes, Buffer.from(name, 'latin1'))] as const),
      );
    } catch (error) {
      throw systemError(`layer: can't read the attributes of ${bytes.toString()}`, error);
    }
  }
}

const NS = 1_000_000_000n;

/** dev_t as libc packs it (gnu_dev_major, gnu_dev_minor). */
function majorOf(rdev: number): number {
  return Number((BigInt(rdev) >> 8n) & 0xfffn);
}

function minorOf(rdev: number): number {
  const bits = BigInt(rdev);
  return Number((bits & 0xffn) | ((bits >> 12n) & 0xfff00n));
}

function bytesOf(path: string): Buffer {
  return Buffer.from(path, 'latin1');
}

function changed(file: DiskFile): TspodError {
  const path = bytesOf(`${file.folder}/${file.name}`).toString();
  return new TspodError('store', `layer: ${path} changed while it was read`);
}
