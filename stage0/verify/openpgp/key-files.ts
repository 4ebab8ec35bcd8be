/**
 * The files of the key stores (keystore.ts says how they lie): read and written with care. Each folder from
 * `trustedkeys` on has to be a real folder that not everybody may write, each file a regular one whose name fits
 * its key. What is odd is an error, never passed over: the file might have been meant to take trust away.
 */
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  type Stats,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { errnoOf, systemError, TspodError } from '../../../src/errors.ts';
import { FINGERPRINT, splitKeys } from './key-block.ts';
import { MAX_BYTES } from './packets.ts';

/** A file of a key store. */
export interface KeyFile {
  readonly fingerprint: string;
  /** A prefix; empty for a root key. */
  readonly scope: string;
  readonly path: string;
  /** The one key inside, binary; undefined for an empty file, which takes trust away. */
  readonly bytes: Uint8Array | undefined;
}

const MAX_FILES = 1000;
const MAX_DEPTH = 32;
/** A component of an appc identifier or of a registry's name with its port. */
const COMPONENT = /^(?!\.{1,2}$)[a-z0-9._~:[\]-]{1,255}$/;
const PATH_COMPONENT = /^(?!\.{1,2}$)[A-Za-z0-9._~:+@%=,-]{1,255}$/;
/** In `prefix.d`, where prefixes that are paths lie: no name of an image begins with it. */
const PATHS = '_';

/**
 * `a/b/c` → `a`, `a/b`, `a/b/c`; `/a/b` → `/`, `/a`, `/a/b`: as far as the components can be folders of a key
 * store.
 */
export function prefixesOf(name: string): readonly string[] {
  const isPath = name.startsWith('/');
  const components = (isPath ? name.slice(1) : name).split('/', MAX_DEPTH);
  const prefixes: string[] = isPath ? ['/'] : [];
  if (!isPath && components[0] === PATHS) return [];
  for (const component of components) {
    if (!(isPath ? PATH_COMPONENT : COMPONENT).test(component)) break;
    const parent = prefixes.at(-1) ?? '';
    prefixes.push(parent === '' || parent === '/' ? parent + component : `${parent}/${component}`);
  }
  return prefixes;
}

/** Where the keys of a scope lie in a configuration folder. */
export function scopeFolder(base: string, scope: string): string {
  const store = join(base, 'trustedkeys');
  if (scope === '') return join(store, 'root.d');
  return scope.startsWith('/')
    ? join(store, 'prefix.d', PATHS, scope.slice(1))
    : join(store, 'prefix.d', scope);
}

/** The key files of one scope in one configuration folder. @throws TspodError 'config' naming what is wrong */
export function readScope(base: string, scope: string): readonly KeyFile[] {
  const path = scopeFolder(base, scope);
  if (!checkFolders(join(base, 'trustedkeys'), path)) return [];
  const names = entries(path).filter(entry => !entry.isDirectory && !entry.name.startsWith('.'));
  return names.flatMap(({ name }) => readKeyFile(join(path, name), name, scope) ?? []);
}

/** Undefined when it has just been removed. */
function readKeyFile(path: string, name: string, scope: string): KeyFile | undefined {
  if (!FINGERPRINT.test(name)) throw wrong(path, 'its name is not a lower-case fingerprint');
  const bytes = readRegularFile(path);
  if (bytes === undefined) return undefined;
  if (bytes.length === 0) return { fingerprint: name, scope, path, bytes: undefined };
  const keys = asConfig(() => splitKeys(bytes, `trusted key ${path}`));
  const [key] = keys;
  if (key === undefined || keys.length > 1) throw wrong(path, 'it has more than one key');
  if (key.fingerprint !== name) {
    throw wrong(path, `the key inside has the fingerprint ${key.fingerprint}`);
  }
  return { fingerprint: name, scope, path, bytes: key.bytes };
}

/** The prefixes that may have keys in a configuration folder. */
export function scopesIn(base: string): readonly string[] {
  const scopes = scopesBelow(join(base, 'trustedkeys', 'prefix.d'), '', 0);
  return scopes.map(scope => {
    if (scope === PATHS) return '/';
    return scope.startsWith(`${PATHS}/`) ? scope.slice(PATHS.length) : scope;
  });
}

function scopesBelow(root: string, scope: string, depth: number): readonly string[] {
  const path = scope === '' ? root : join(root, scope);
  if (depth > MAX_DEPTH) throw new TspodError('limit', `${path}: deeper than ${MAX_DEPTH} folders`);
  if (!checkFolders(dirname(root), path)) return [];
  const found = entries(path);
  const file = found.find(entry => !entry.isDirectory && !entry.name.startsWith('.'));
  if (scope === '' && file !== undefined) {
    throw wrong(join(path, file.name), 'it is not the folder of a prefix');
  }
  return found
    .filter(({ name, isDirectory }) => {
      const component = /^_(?:\/|$)/.test(scope) ? PATH_COMPONENT : COMPONENT;
      return isDirectory && component.test(name);
    })
    .flatMap(({ name }) => {
      const inner = scope === '' ? name : `${scope}/${name}`;
      return [inner, ...scopesBelow(root, inner, depth + 1)];
    });
}

function entries(
  path: string,
): readonly { readonly name: string; readonly isDirectory: boolean }[] {
  try {
    const found = readdirSync(path, { withFileTypes: true });
    if (found.length > MAX_FILES) {
      throw new TspodError('limit', `${path}: more than ${MAX_FILES} files`);
    }
    return found
      .map(entry => ({ name: entry.name, isDirectory: entry.isDirectory() }))
      .sort((a, b) => (a.name < b.name ? -1 : 1));
  } catch (error) {
    throw asConfigError(path, error);
  }
}

/**
 * Whether `path` is there, each folder from `store` on being a real folder that not everybody may write.
 * `store` itself belongs to root or to the caller; below it, who may write is the owner's decision.
 */
function checkFolders(store: string, path: string): boolean {
  if (path !== store && !checkFolders(store, dirname(path))) return false;
  let stat: Stats;
  try {
    stat = lstatSync(path);
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === 'ENOENT' || errno === 'ENOTDIR') return false;
    throw asConfigError(path, error);
  }
  // A key's file may have the name that is looked for as a folder.
  if (stat.isFile() && path !== store) return false;
  if (!stat.isDirectory()) throw wrong(path, 'it is not a folder');
  checkMode(path, stat);
  if (path === store && stat.uid !== 0 && stat.uid !== process.geteuid?.()) {
    throw wrong(path, `it belongs to user ${stat.uid}, neither root nor the caller`);
  }
  return true;
}

function checkMode(path: string, stat: Stats): void {
  if ((stat.mode & 0o002) !== 0) throw wrong(path, 'everybody may write it', `chmod o-w ${path}`);
}

function readRegularFile(path: string): Uint8Array | undefined {
  let fd: number | undefined;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    const stat = fstatSync(fd);
    if (!stat.isFile()) throw wrong(path, 'it is not a regular file');
    if (stat.size > MAX_BYTES) {
      throw wrong(path, `${stat.size} bytes is over the limit of ${MAX_BYTES}`);
    }
    checkMode(path, stat);
    return readFileSync(fd);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    if (errnoOf(error) === 'ELOOP') throw wrong(path, 'it is a symbolic link');
    throw asConfigError(path, error);
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

/** Writes a key, or nothing to mask it: aside, then by rename. */
export function writeKeyFile(path: string, base: string, bytes: Uint8Array): void {
  try {
    makeFolders(join(base, 'trustedkeys'), dirname(path));
    writeAside(path, bytes);
    syncFolder(dirname(path));
  } catch (error) {
    const denied = errnoOf(error) === 'EACCES';
    const hint = denied ? 'run it as root, or name a folder with --user-config' : undefined;
    throw systemError(`can't write ${path}`, error, hint);
  }
}

function writeAside(path: string, bytes: Uint8Array): void {
  const aside = join(dirname(path), `.${randomBytes(8).toString('hex')}`);
  const fd = openSync(aside, 'wx', 0o644);
  try {
    fchmodSync(fd, 0o644); // other users verify too, whatever the umask
    writeFileSync(fd, bytes);
    fsyncSync(fd);
    renameSync(aside, path);
  } catch (error) {
    rmSync(aside, { force: true });
    throw error;
  } finally {
    closeSync(fd);
  }
}

export function removeKeyFile(path: string): void {
  try {
    rmSync(path);
    syncFolder(dirname(path));
  } catch (error) {
    throw systemError(`can't remove ${path}`, error);
  }
}

/** Makes what is missing of `folder`, each entry durably; what is there has to be safe. */
function makeFolders(store: string, folder: string): void {
  if (checkFolders(store, folder)) return;
  const first = mkdirSync(folder, { mode: 0o755, recursive: true });
  if (first !== undefined) {
    for (let made = folder; made.length >= first.length; made = dirname(made)) {
      syncFolder(dirname(made));
    }
  }
  if (!checkFolders(store, folder)) throw wrong(folder, 'a key has its name');
}

function syncFolder(path: string): void {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

function wrong(path: string, why: string, hint?: string): TspodError {
  return new TspodError(
    'config',
    `trusted key ${path}: ${why}`,
    hint === undefined ? {} : { hint },
  );
}

function asConfig<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof TspodError)) throw error;
    throw new TspodError('config', error.message, { cause: error });
  }
}

function asConfigError(path: string, error: unknown): TspodError {
  if (error instanceof TspodError) return error;
  const { message } = systemError(`trusted key ${path}: can't read it`, error);
  return new TspodError('config', message, { cause: error });
}
