/**
 * Makes a layer's tree from archive members, below `/`: the process is chrooted into the layer's folder
 * and alone in it. Every path goes through the Resolver, the last component is never followed, and a file
 * gets content, owner, attributes, mode and times in that order, because chown takes setuid and file
 * capabilities away. Folders get theirs at the end, when nothing touches them any more.
 *
 * Semantics: OCI image specification 1.1, layer.md, "Applying Changesets"; docs/unpacking.md.
 */
import {
  chmodSync,
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  fstatSync,
  ftruncateSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  rmdirSync,
  type Stats,
  statfsSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname } from 'node:path';
import { errnoOf, systemError } from '../../src/errors.ts';
import { native } from '../../src/sys/native.ts';
import { OPAQUE, OPAQUE_VALUE, storedXattr, WHITEOUT, whiteoutKind } from './overlay-xattrs.ts';
import { failed, refused } from './refusal.ts';
import { showName, type TarEntry, type TarHandler } from './tar-entry.ts';
import {
  bytesOf,
  components,
  DISK,
  isWhiteout,
  join,
  Resolver,
  replaceWhiteout,
} from './tree-path.ts';

/** statfs(2) f_type */
const OVERLAYFS = 0x794c7630;

/** Files up to this size are put together in memory and made by one call. */
const WHOLE_FILE = 1024 * 1024;

/** After so many pieces the queue is waited for, which is when failures come to light. */
const MOST_QUEUED = 4096;

const { O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_RDONLY, O_WRONLY } = constants;
const S_IFCHR = 0o020000;
const S_IFBLK = 0o060000;
const S_IFIFO = 0o010000;

interface FolderAttributes {
  readonly path: Buffer;
  readonly entry: TarEntry;
}

export class Extractor implements TarHandler {
  readonly #native = native();
  readonly #plain: boolean;
  readonly #resolver = new Resolver(DISK);
  /** Attributes to set at the end, by inode: a folder may be named through a symbolic link. */
  readonly #folders = new Map<bigint, FolderAttributes>();
  readonly #whole = Buffer.allocUnsafe(WHOLE_FILE);
  /** Where the file in hand goes; undefined when its data is not wanted (any more). */
  #path: Buffer | undefined;
  #fd = -1;
  /** Whose content is in the write queue, in its order. */
  #queued: TarEntry[] = [];
  #entries = 0;
  #bytes = 0;

  /** @param options.plain the tree is no overlay's layer: overlayfs's attributes stay what they are */
  constructor(options: { readonly plain?: boolean } = {}) {
    this.#plain = options.plain ?? false;
  }

  /** Members taken, whiteouts included. */
  get entries(): number {
    return this.#entries;
  }

  /** Bytes of file content written. */
  get bytes(): number {
    return this.#bytes;
  }

  begin(entry: TarEntry): void {
    this.#entries += 1;
    this.#path = undefined;
    this.#guard(entry, () => this.#begin(entry));
  }

  data(entry: TarEntry, chunk: Uint8Array, position: number): void {
    const path = this.#path;
    if (path === undefined) return;
    this.#bytes += chunk.length;
    // hot: no closure
    try {
      if (entry.sparse || entry.size > WHOLE_FILE) {
        this.#writePiece(entry, path, chunk, position);
      } else if (chunk.length === entry.size) {
        this.#path = undefined;
        this.#writeWhole(entry, path, chunk);
      } else {
        this.#whole.set(chunk, position);
      }
    } catch (error) {
      throw failed(entry, error);
    }
  }

  end(entry: TarEntry): void {
    const path = this.#path;
    this.#path = undefined;
    if (path === undefined) return;
    this.#guard(entry, () => {
      if (this.#fd >= 0 || entry.sparse || entry.size > WHOLE_FILE) this.#finishPieces(entry, path);
      else this.#writeWhole(entry, path, this.#whole.subarray(0, entry.size));
    });
  }

  /** All members have come: folders get their owners, modes, attributes and times. */
  finish(): void {
    this.#drain();
    for (const [inode, folder] of this.#folders) {
      this.#guard(folder.entry, () => this.#finishFolder(inode, folder));
    }
  }

  #guard(entry: TarEntry, work: () => void): void {
    try {
      work();
    } catch (error) {
      throw failed(entry, error);
    }
  }

  #begin(entry: TarEntry): void {
    const parts = components(entry.name.toString('latin1'));
    if (parts === undefined) throw refused('its name leaves the root');
    const whiteout = whiteoutKind(parts);
    const base = parts.pop();
    switch (whiteout.kind) {
      case 'ignored':
        return;
      case 'malformed':
        throw refused('names that begin with .wh. are whiteouts, and this one hides nothing');
      case 'opaque':
        this.#native.lsetxattr(bytesOf(this.#resolver.folder(parts, true)), OPAQUE, OPAQUE_VALUE);
        return;
      case 'whiteout':
        this.#hide(join(this.#resolver.folder(parts, true), whiteout.name));
        return;
    }
    if (base === undefined) this.#root(entry);
    else this.#make(entry, bytesOf(join(this.#resolver.folder(parts, true), base)));
  }

  #root(entry: TarEntry): void {
    if (entry.type !== 'directory') throw refused('the entry for the root may only be a folder');
    this.#noteFolder(bytesOf('/'), entry);
  }

  #make(entry: TarEntry, path: Buffer): void {
    switch (entry.type) {
      case 'file':
        this.#path = path; // made when its data is there
        return;
      case 'directory':
        this.#makeFolder(entry, path);
        return;
      case 'hardlink':
        this.#makeHardLink(entry, path);
        return;
      case 'symlink':
        if (entry.linkName.length === 0) throw refused('a symbolic link without a target');
        this.#creating(path, () => symlinkSync(entry.linkName, path));
        this.#resolver.forget();
        break;
      case 'char':
        if (entry.major === 0 && entry.minor === 0) {
          throw refused('character device 0:0 is how overlayfs marks a whiteout');
        }
        this.#makeNode(entry, path, S_IFCHR);
        break;
      case 'block':
        this.#makeNode(entry, path, S_IFBLK);
        break;
      case 'fifo':
        this.#makeNode(entry, path, S_IFIFO);
        break;
    }
    if (entry.type === 'symlink') this.#native.lchown(path, entry.uid, entry.gid);
    this.#setXattrs(entry, path);
    this.#setTimes(entry, path);
  }

  #makeNode(entry: TarEntry, path: Buffer, type: number): void {
    this.#creating(path, () =>
      this.#native.mknod(path, type | entry.mode, entry.major, entry.minor),
    );
    this.#native.lchown(path, entry.uid, entry.gid);
    // chown took these away. By path, since opening a device acts on it; mknod has just made it.
    if (entry.mode & 0o6000) chmodSync(path, entry.mode);
  }

  #makeHardLink(entry: TarEntry, path: Buffer): void {
    const parts = components(entry.linkName.toString('latin1'));
    const base = parts?.pop();
    if (parts === undefined || base === undefined) throw refused('its target leaves the root');
    const target = bytesOf(join(this.#resolver.folder(parts, false), base));
    const stat = lstatSync(target, { throwIfNoEntry: false });
    if (stat === undefined || isWhiteout(stat)) {
      throw refused(`its target ${showName(entry.linkName)} does not exist in the layer`);
    }
    if (stat.isDirectory()) throw refused('its target is a folder');
    const there = lstatSync(path, { throwIfNoEntry: false });
    if (there !== undefined && there.ino === stat.ino) return; // it is that file
    // link(2) does not follow a symbolic link: the link itself gets another name
    this.#creating(path, () => linkSync(target, path));
    if (stat.isSymbolicLink()) this.#resolver.forget();
  }

  #makeFolder(entry: TarEntry, path: Buffer): void {
    const stat = lstatSync(path, { throwIfNoEntry: false });
    if (stat === undefined) mkdirSync(path, 0o700);
    else if (isWhiteout(stat)) replaceWhiteout(path, 0o700);
    else if (!stat.isDirectory()) {
      this.#remove(path, stat);
      mkdirSync(path, 0o700);
    }
    this.#noteFolder(path, entry);
  }

  #noteFolder(path: Buffer, entry: TarEntry): void {
    this.#folders.set(lstatSync(path, { bigint: true }).ino, { path, entry });
  }

  #finishFolder(inode: bigint, { path, entry }: FolderAttributes): void {
    const fd = openSync(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    try {
      if (fstatSync(fd, { bigint: true }).ino !== inode) throw new Error('it is another folder');
      fchownSync(fd, entry.uid, entry.gid);
      fchmodSync(fd, entry.mode);
    } finally {
      closeSync(fd);
    }
    this.#setXattrs(entry, path);
    this.#setTimes(entry, path);
  }

  /** Hides a name of the lower layers, never one of this layer. */
  #hide(path: string): void {
    const bytes = bytesOf(path);
    const stat = lstatSync(bytes, { throwIfNoEntry: false });
    if (stat === undefined) this.#whiteout(path);
    else if (stat.isDirectory()) this.#native.lsetxattr(bytes, OPAQUE, OPAQUE_VALUE);
  }

  #whiteout(path: string): void {
    try {
      this.#native.mknod(bytesOf(path), S_IFCHR, 0, 0);
    } catch (error) {
      const folder = dirname(path);
      if (errnoOf(error) !== 'EPERM' || statfsSync(bytesOf(folder)).type !== OVERLAYFS) throw error;
      writeFileSync(bytesOf(join(folder, WHITEOUT + basename(path))), '');
    }
  }

  // --- files

  /**
   * The name is made here and now, so that names keep their order; the content is left to the write queue.
   * A file with attributes has to wait for none of it: chown, which comes after the content, takes file
   * capabilities away.
   */
  #writeWhole(entry: TarEntry, path: Buffer, data: Uint8Array): void {
    const { mode, uid, gid, mtimeSec, mtimeNsec } = entry;
    const plain =
      entry.xattrs.length === 0 && entry.atimeSec === mtimeSec && entry.atimeNsec === mtimeNsec;
    if (plain && data.length > 0) {
      this.#open(path);
      const fd = this.#fd;
      this.#fd = -1;
      this.#queued.push(entry);
      this.#native.queueFile(fd, data, mode, uid, gid, mtimeSec, mtimeNsec);
      if (this.#queued.length >= MOST_QUEUED) this.#drain();
      return;
    }
    try {
      this.#native.writeFile(path, data, mode, uid, gid, mtimeSec, mtimeNsec);
    } catch (error) {
      if (errnoOf(error) !== 'EEXIST') throw error;
      this.#clear(path);
      this.#native.writeFile(path, data, mode, uid, gid, mtimeSec, mtimeNsec);
    }
    if (entry.xattrs.length > 0) this.#setXattrs(entry, path);
    if (entry.atimeSec !== mtimeSec || entry.atimeNsec !== mtimeNsec) this.#setTimes(entry, path);
  }

  #writePiece(entry: TarEntry, path: Buffer, chunk: Uint8Array, position: number): void {
    if (this.#fd < 0) this.#open(path);
    this.#queued.push(entry);
    this.#native.queueWrite(this.#fd, chunk, position);
  }

  /** Everything queued is written. @throws TspodError naming the entry that could not be */
  #drain(): void {
    if (this.#queued.length === 0) return;
    const queued = this.#queued;
    this.#queued = [];
    try {
      this.#native.drainWrites();
    } catch (error) {
      const job = error instanceof Error && 'job' in error ? Number(error.job) : -1;
      const entry = queued[job];
      throw entry === undefined ? error : failed(entry, error);
    }
  }

  #open(path: Buffer): void {
    this.#creating(path, () => {
      this.#fd = openSync(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
    });
  }

  #finishPieces(entry: TarEntry, path: Buffer): void {
    if (this.#fd < 0) this.#open(path); // nothing but a hole
    const fd = this.#fd;
    this.#fd = -1;
    try {
      this.#drain();
      if (entry.sparse) ftruncateSync(fd, entry.size);
      fchownSync(fd, entry.uid, entry.gid);
      this.#setXattrs(entry, path);
      fchmodSync(fd, entry.mode);
    } finally {
      closeSync(fd);
    }
    this.#setTimes(entry, path);
  }

  #setXattrs(entry: TarEntry, path: Buffer): void {
    for (const { name, value } of entry.xattrs) {
      const kept = storedXattr(name);
      if (kept === undefined) continue;
      const stored = this.#plain ? name : kept;
      try {
        this.#native.lsetxattr(path, bytesOf(stored), value);
      } catch (error) {
        throw systemError(`can't set its attribute ${JSON.stringify(name)}`, error);
      }
    }
  }

  #setTimes(entry: TarEntry, path: Buffer): void {
    const { atimeSec, atimeNsec, mtimeSec, mtimeNsec } = entry;
    this.#native.lutimes(path, atimeSec, atimeNsec, mtimeSec, mtimeNsec);
  }

  // --- what was there before

  #creating(path: Buffer, create: () => void): void {
    try {
      create();
    } catch (error) {
      if (errnoOf(error) !== 'EEXIST') throw error;
      this.#clear(path);
      create();
    }
  }

  #clear(path: Buffer): void {
    const stat = lstatSync(path, { throwIfNoEntry: false });
    if (stat !== undefined) this.#remove(path, stat);
  }

  /** Removes what a later entry replaces. No symbolic link is followed; paths are bounded, so is depth. */
  #remove(path: Buffer, stat: Stats): void {
    if (stat.isDirectory()) {
      this.#removeFolder(path);
      this.#resolver.forget();
    } else {
      unlinkSync(path);
      if (stat.isSymbolicLink()) this.#resolver.forget();
    }
  }

  #removeFolder(path: Buffer): void {
    for (const base of readdirSync(path, { encoding: 'buffer' })) {
      const child = Buffer.concat([path, SLASH, base]);
      if (lstatSync(child).isDirectory()) this.#removeFolder(child);
      else unlinkSync(child);
    }
    this.#folders.delete(lstatSync(path, { bigint: true }).ino);
    rmdirSync(path);
  }
}

const SLASH = Buffer.from('/');
