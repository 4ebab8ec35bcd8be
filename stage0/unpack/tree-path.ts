/**
 * Names of an archive as paths below the layer's root, which is `/` here because the process is chrooted
 * there. One resolver for every operation: what it checked is what is used (CVE-2026-50163, CVE-2025-47290).
 *
 * As in the OCI layer specification's practice (containerd, umoci): leading slashes are stripped, `.`
 * and `..` are taken lexically, `..` above the root is refused. A folder on the way that is a symbolic
 * link is followed, inside the root, so `lib/x` after `lib -> usr/lib` is `usr/lib/x`; the last component
 * is never followed. Missing folders are made 0755 root:root.
 *
 * Paths are strings of one character per byte (latin1): names need not be UTF-8.
 */
import { lstatSync, mkdirSync, readlinkSync, type Stats, unlinkSync } from 'node:fs';
import { TspodError } from '../../src/errors.ts';
import { native } from '../../src/sys/native.ts';
import { OPAQUE, OPAQUE_VALUE } from './overlay-xattrs.ts';

const MAX_LINKS = 40; // the kernel's own
const MAX_COMPONENTS = 2048;

/** The components of a name, or undefined when `..` leaves the root. The root itself is []. */
export function components(name: string): string[] | undefined {
  const parts: string[] = [];
  for (const part of name.split('/')) {
    if (part === '' || part === '.') continue;
    if (part !== '..') parts.push(part);
    else if (parts.pop() === undefined) return undefined;
  }
  return parts;
}

export function bytesOf(path: string): Buffer {
  return Buffer.from(path, 'latin1');
}

export function join(folder: string, base: string): string {
  return folder === '/' ? `/${base}` : `${folder}/${base}`;
}

/** Folders by the name that leads to them, so that the next file of a folder costs no system call. */
export class Resolver {
  readonly #known = new Map<string, string>();

  /** To be called whenever a folder or a symbolic link is removed or replaced. */
  forget(): void {
    this.#known.clear();
  }

  /**
   * The folder that `parts` lead to, without symbolic links in its path.
   * @param make make what is missing; else throws ENOENT
   * @throws TspodError 'unpack' when a component is no folder
   */
  folder(parts: readonly string[], make: boolean): string {
    const key = parts.join('/');
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    if (parts.length > MAX_COMPONENTS) {
      throw new TspodError('limit', `more than ${MAX_COMPONENTS} folders in one path`);
    }
    const found = this.#walk(parts, make);
    this.#known.set(key, found);
    return found;
  }

  #walk(parts: readonly string[], make: boolean): string {
    // a stack of components still to go, the next one last
    const todo = [...parts].reverse();
    const done: string[] = [];
    let links = 0;
    for (let part = todo.pop(); part !== undefined; part = todo.pop()) {
      if (part === '' || part === '.') continue;
      if (part === '..') {
        done.pop(); // of the root is the root
        continue;
      }
      const path = `/${[...done, part].join('/')}`;
      const target = visit(path, make);
      if (target === undefined) {
        done.push(part);
        continue;
      }
      links += 1;
      if (links > MAX_LINKS || todo.length > MAX_COMPONENTS) {
        throw new TspodError(
          'unpack',
          `${JSON.stringify(path)} leads through too many symbolic links`,
        );
      }
      if (target.startsWith('/')) done.length = 0;
      todo.push(...target.split('/').reverse());
    }
    return `/${done.join('/')}`;
  }
}

/** Undefined for a folder, the target of a symbolic link; makes the folder if need be. */
function visit(path: string, make: boolean): string | undefined {
  const bytes = bytesOf(path);
  const stat = lstatSync(bytes, { throwIfNoEntry: false });
  if (stat === undefined) {
    if (!make) throw missing(path);
    mkdirSync(bytes, 0o755);
    return undefined;
  }
  if (stat.isDirectory()) return undefined;
  if (stat.isSymbolicLink()) return readlinkSync(bytes, { encoding: 'latin1' });
  if (make && isWhiteout(stat)) {
    replaceWhiteout(bytes, 0o755);
    return undefined;
  }
  throw new TspodError('unpack', `${JSON.stringify(path)} on its way is not a folder`);
}

function missing(path: string): TspodError {
  return new TspodError('unpack', `${JSON.stringify(path)} does not exist in the layer`);
}

export function isWhiteout(stat: Stats): boolean {
  return stat.isCharacterDevice() && stat.rdev === 0;
}

/** A folder of a layer that also hides the lower layers' entry of that name shows nothing of theirs. */
export function replaceWhiteout(path: Buffer, mode: number): void {
  unlinkSync(path);
  mkdirSync(path, mode);
  native().lsetxattr(path, OPAQUE, OPAQUE_VALUE);
}
