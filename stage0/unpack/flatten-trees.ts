/**
 * One root filesystem out of layers' trees, as overlayfs would show them: for kernels without overlayfs
 * and for --no-overlay. A folder is merged from the topmost layer down to the first that hides what is
 * below (another type, a whiteout, an opaque folder), so each file is copied once and nothing is ever
 * deleted. Folders are read and made, never followed: a symbolic link is copied as a link.
 */
import {
  type BigIntStats,
  chmodSync,
  closeSync,
  constants,
  copyFileSync,
  fchmodSync,
  fchownSync,
  ftruncateSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
  symlinkSync,
  writeSync,
} from 'node:fs';
import { errnoOf, systemError } from '../../src/errors.ts';
import { native } from '../../src/sys/native.ts';
import { OPAQUE, shownXattr, WHITEOUT } from './overlay-xattrs.ts';
import { bytesOf, join } from './tree-path.ts';

const { COPYFILE_EXCL, COPYFILE_FICLONE, O_CREAT, O_EXCL, O_NOFOLLOW, O_RDONLY, O_WRONLY } =
  constants;
const TYPE_BITS = 0o170000;
const NS = 1_000_000_000n;
const PIECE = 64 * 1024;

/** One layer's entry at some path. */
interface Candidate {
  readonly layer: number;
  readonly path: string;
  readonly stat: BigIntStats;
}

/**
 * @param layers absolute paths, lowest first
 * @param target exists and is empty
 * @param progress called for every entry
 */
export function flattenTrees(
  layers: readonly string[],
  target: string,
  progress: () => void = () => undefined,
): void {
  const roots = layers.map((path, layer) => candidate(layer, path)).reverse();
  if (roots.length > 0) new Flattener(progress).root(roots, target);
}

class Flattener {
  readonly #native = native();
  readonly #progress: () => void;
  /** Where the first name of a file with several has been made, by layer and inode. */
  readonly #links = new Map<string, string>();
  readonly #piece = Buffer.allocUnsafe(PIECE);

  constructor(progress: () => void) {
    this.#progress = progress;
  }

  root(roots: readonly Candidate[], target: string): void {
    this.#merge(roots, target);
    // The topmost layer with an entry for its root decides; one without it was made 0755 root:root.
    const top = roots.find(({ stat }) => !isDefaultRoot(stat)) ?? roots[0];
    if (top !== undefined) this.#attributes(top, target);
  }

  /** Copies what the folders, topmost first, show together into an existing folder. */
  #merge(folders: readonly Candidate[], target: string): void {
    const shown = new Map<string, Candidate[]>();
    const closed = new Set<string>();
    for (const folder of folders) {
      const names = readdirSync(bytesOf(folder.path), { encoding: 'buffer' }).map(name =>
        name.toString('latin1'),
      );
      const marks = names.filter(name => name.startsWith(WHITEOUT));
      for (const name of names) {
        if (!name.startsWith(WHITEOUT)) this.#collect(folder, name, shown, closed);
      }
      // hides what lies below, never what is of the same layer
      for (const mark of marks) closed.add(mark.slice(WHITEOUT.length));
      if (this.#isOpaque(folder)) break;
    }
    for (const [name, candidates] of shown) this.#copy(candidates, join(target, name));
  }

  #collect(
    folder: Candidate,
    name: string,
    shown: Map<string, Candidate[]>,
    closed: Set<string>,
  ): void {
    if (closed.has(name)) return;
    const found = candidate(folder.layer, join(folder.path, name));
    if (found.stat.isCharacterDevice() && found.stat.rdev === 0n) {
      closed.add(name);
      return;
    }
    const above = shown.get(name);
    if (above === undefined) shown.set(name, [found]);
    else if (found.stat.isDirectory()) above.push(found);
    if (!found.stat.isDirectory() || this.#isOpaque(found)) closed.add(name);
  }

  #copy(candidates: readonly Candidate[], target: string): void {
    const top = candidates[0];
    if (top === undefined) return;
    this.#progress();
    try {
      if (top.stat.isDirectory()) {
        mkdirSync(bytesOf(target), 0o700);
        this.#merge(candidates, target);
      } else if (this.#linked(top, target)) {
        return;
      } else {
        this.#make(top, target);
      }
      this.#attributes(top, target);
    } catch (error) {
      throw systemError(`can't copy ${JSON.stringify(target)}`, error);
    }
  }

  #linked(source: Candidate, target: string): boolean {
    if (source.stat.nlink < 2n) return false;
    const key = `${source.layer}:${source.stat.ino}`;
    const first = this.#links.get(key);
    if (first === undefined) {
      this.#links.set(key, target);
      return false;
    }
    linkSync(bytesOf(first), bytesOf(target));
    return true;
  }

  #make({ path, stat }: Candidate, target: string): void {
    const to = bytesOf(target);
    if (stat.isFile()) {
      if (stat.blocks * 512n < stat.size) this.#copySparse(path, stat, target);
      else copyFileSync(bytesOf(path), to, COPYFILE_EXCL | COPYFILE_FICLONE);
    } else if (stat.isSymbolicLink()) {
      symlinkSync(readlinkSync(bytesOf(path), { encoding: 'buffer' }), to);
    } else {
      const { major, minor } = deviceOf(stat.rdev);
      this.#native.mknod(to, Number(stat.mode), major, minor);
    }
  }

  /** Node can't seek to holes; pieces of zeros are holes again. */
  #copySparse(path: string, stat: BigIntStats, target: string): void {
    const from = openSync(bytesOf(path), O_RDONLY | O_NOFOLLOW);
    try {
      const to = openSync(bytesOf(target), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
      try {
        let position = 0;
        for (;;) {
          const length = readSync(from, this.#piece, 0, PIECE, position);
          if (length === 0) break;
          const piece = this.#piece.subarray(0, length);
          if (!isZero(piece)) writeAll(to, piece, position);
          position += length;
        }
        ftruncateSync(to, Number(stat.size));
      } finally {
        closeSync(to);
      }
    } finally {
      closeSync(from);
    }
  }

  #attributes({ path, stat }: Candidate, target: string): void {
    const from = bytesOf(path);
    const to = bytesOf(target);
    const [uid, gid] = [Number(stat.uid), Number(stat.gid)];
    const mode = Number(stat.mode) & 0o7777;
    if (stat.isFile() || stat.isDirectory()) {
      const fd = openSync(to, O_RDONLY | O_NOFOLLOW);
      try {
        fchownSync(fd, uid, gid);
        fchmodSync(fd, mode);
      } finally {
        closeSync(fd);
      }
    } else {
      this.#native.lchown(to, uid, gid);
      // By path, since opening a device acts on it; mknod has just made it.
      if (!stat.isSymbolicLink() && mode & 0o6000) chmodSync(to, mode);
    }
    for (const name of this.#native.llistxattr(from)) {
      const shown = shownXattr(Buffer.from(name).toString('latin1'));
      if (shown === undefined || shown === 'security.selinux') continue;
      this.#native.lsetxattr(to, bytesOf(shown), this.#native.lgetxattr(from, name));
    }
    const [atimeSec, atimeNsec] = split(stat.atimeNs);
    const [mtimeSec, mtimeNsec] = split(stat.mtimeNs);
    this.#native.lutimes(to, atimeSec, atimeNsec, mtimeSec, mtimeNsec);
  }

  #isOpaque({ path }: Candidate): boolean {
    try {
      const value = this.#native.lgetxattr(bytesOf(path), OPAQUE);
      return value.length === 1 && value[0] === 0x79;
    } catch (error) {
      const errno = errnoOf(error);
      if (errno === 'ENODATA' || errno === 'ENOTSUP' || errno === 'EOPNOTSUPP') return false;
      throw error;
    }
  }
}

function candidate(layer: number, path: string): Candidate {
  return { layer, path, stat: lstatSync(bytesOf(path), { bigint: true }) };
}

function isDefaultRoot(stat: BigIntStats): boolean {
  return (Number(stat.mode) & ~TYPE_BITS) === 0o755 && stat.uid === 0n && stat.gid === 0n;
}

/** Linux's encoding of a device number (glibc's gnu_dev_major and gnu_dev_minor). */
function deviceOf(rdev: bigint): { major: number; minor: number } {
  const major = ((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & 0xfffff000n);
  const minor = (rdev & 0xffn) | ((rdev >> 12n) & 0xffffff00n);
  return { major: Number(major), minor: Number(minor) };
}

/** Whole seconds, rounded down, and nanoseconds. */
function split(ns: bigint): [number, number] {
  const rest = ((ns % NS) + NS) % NS;
  return [Number((ns - rest) / NS), Number(rest)];
}

const ZEROS = Buffer.alloc(PIECE);

function isZero(piece: Buffer): boolean {
  return piece.compare(ZEROS, 0, piece.length) === 0;
}

function writeAll(fd: number, piece: Buffer, position: number): void {
  for (let done = 0; done < piece.length; ) {
    done += writeSync(fd, piece, done, piece.length - done, position + done);
  }
}
