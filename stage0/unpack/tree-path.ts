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

/** What a resolver finds under a name; a folder is whatever the view names folders by. */
export type Step<Folder> =
  | { readonly folder: Folder }
  | { readonly link: string }
  | 'missing'
  | 'not-a-folder';

/** A tree as a resolver walks it: on disk (DISK), or in memory. */
export interface FolderView<Folder> {
  readonly root: Folder;
  /** @param make make what is missing, and a folder of a whiteout */
  enter(folder: Folder, name: string, make: boolean): Step<Folder>;
}

/** Folders by the name that leads to them, so that the next file of a folder costs no walk. */
export class Resolver<Folder> {
  readonly #view: FolderView<Folder>;
  readonly #known = new Map<string, Folder>();

  constructor(view: FolderView<Folder>) {
    this.#view = view;
  }

  /** To be called whenever a folder or a symbolic link is removed or replaced. */
  forget(): void {
    this.#known.clear();
  }

  /**
   * The folder that `parts` lead to, without symbolic links in its path.
   * @param make make what is missing
   * @throws TspodError 'unpack' when a component is missing or no folder
   */
  folder(parts: readonly string[], make: boolean): Folder {
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

  #walk(parts: readonly string[], make: boolean): Folder {
    // a stack of components still to go, the next one last
    const todo = [...parts].reverse();
    const names: string[] = [];
    const done: Folder[] = [];
    let links = 0;
    for (let part = todo.pop(); part !== undefined; part = todo.pop()) {
      if (part === '' || part === '.') continue;
      if (part === '..') {
        done.pop(); // of the root is the root
        names.pop();
        continue;
      }
      const step = this.#view.enter(done.at(-1) ?? this.#view.root, part, make);
      const path = () => JSON.stringify(`/${[...names, part].join('/')}`);
      if (step === 'missing') {
        throw new TspodError('unpack', `${path()} does not exist in the layer`);
      }
      if (step === 'not-a-folder') {
        throw new TspodError('unpack', `${path()} on its way is not a folder`);
      }
      if ('folder' in step) {
        done.push(step.folder);
        names.push(part);
        continue;
      }
      links += 1;
      if (links > MAX_LINKS || todo.length > MAX_COMPONENTS) {
        throw new TspodError('unpack', `${path()} leads through too many symbolic links`);
      }
      if (step.link.startsWith('/')) {
        done.length = 0;
        names.length = 0;
      }
      todo.push(...step.link.split('/').reverse());
    }
    return done.at(-1) ?? this.#view.root;
  }
}

/** The tree below `/`; folders are named by their paths. */
export const DISK: FolderView<string> = {
  root: '/',
  enter: (folder, name, make) => {
    const path = join(folder, name);
    const bytes = bytesOf(path);
    const stat = lstatSync(bytes, { throwIfNoEntry: false });
    if (stat === undefined) {
      if (!make) return 'missing';
      mkdirSync(bytes, 0o755);
      return { folder: path };
    }
    if (stat.isDirectory()) return { folder: path };
    if (stat.isSymbolicLink()) return { link: readlinkSync(bytes, { encoding: 'latin1' }) };
    if (!make || !isWhiteout(stat)) return 'not-a-folder';
    replaceWhiteout(bytes, 0o755);
    return { folder: path };
  },
};

export function isWhiteout(stat: Stats): boolean {
  return stat.isCharacterDevice() && stat.rdev === 0;
}

/** A folder of a layer that also hides the lower layers' entry of that name shows nothing of theirs. */
export function replaceWhiteout(path: Buffer, mode: number): void {
  unlinkSync(path);
  mkdirSync(path, mode);
  native().lsetxattr(path, OPAQUE, OPAQUE_VALUE);
}
