/**
 * The trusted OpenPGP keys, where rkt has them: in each configuration folder
 *   trustedkeys/root.d/FINGERPRINT              trusted for every image
 *   trustedkeys/prefix.d/PREFIX/FINGERPRINT     trusted for PREFIX and the names below it
 * A key file is named by the lower-case fingerprint of the one key inside; an empty file of that name takes the
 * trust away that an earlier place gave (docs/trust.md). Prefixes are whole components of a name: a key
 * for `example.com/app` says nothing about `example.com/apple`.
 *
 * What is odd is an error, never passed over: the file might have been meant to take trust away.
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
import type { Context } from '../../../src/context.ts';
import { errnoOf, systemError, TspodError } from '../../../src/errors.ts';
import { FINGERPRINT, splitKeys } from './key-block.ts';
import { MAX_BYTES } from './packets.ts';

export type ConfigFolders = Pick<Context, 'systemConfig' | 'localConfig' | 'userConfig'>;

export interface TrustedKey {
  /** 40 or 64 lower-case hex digits. */
  readonly fingerprint: string;
  /** The prefix of names that it is trusted for; empty for a root key, which is trusted for all. */
  readonly scope: string;
  readonly path: string;
  /** The key, binary. */
  readonly bytes: Uint8Array;
}

export interface ListedKey extends TrustedKey {
  readonly folder: 'system' | 'local' | 'user';
  /** The empty file that takes its trust away altogether. */
  readonly maskedBy: string | undefined;
  /** Prefixes inside its scope for which an empty file takes its trust away. */
  readonly maskedBelow: readonly string[];
}

interface Place {
  readonly fingerprint: string;
  readonly scope: string;
  readonly path: string;
  readonly folder: ListedKey['folder'];
  /** Undefined: an empty file. */
  readonly bytes: Uint8Array | undefined;
}

const MAX_FILES = 1000;
const MAX_DEPTH = 32;
/** A component of an appc identifier or of a registry's name with its port. */
const COMPONENT = /^(?!\.{1,2}$)[a-z0-9._~:[\]-]{1,255}$/;

/**
 * The keys that are trusted for an image name, in rkt's order: root keys of all folders, then prefixes, each
 * folder from the shortest prefix to the longest. One key may come from several places: whoever verifies
 * believes a revocation in any of them.
 * @param name as Subject.name; an absolute path has root keys only
 * @throws TspodError 'config' naming the file that is wrong
 */
export function trustedKeys(context: ConfigFolders, name: string): readonly TrustedKey[] {
  const trusted = new Map<string, TrustedKey[]>();
  for (const { bytes, fingerprint, scope, path } of placesFor(context, name)) {
    if (bytes === undefined) trusted.delete(fingerprint);
    else {
      const copies = trusted.get(fingerprint) ?? [];
      trusted.set(fingerprint, [...copies, { fingerprint, scope, path, bytes }]);
    }
  }
  return [...trusted.values()].flat();
}

/** Of a key for an image name: `masked` when it was trusted, or would be, but for an empty file. */
export function standingOf(
  context: ConfigFolders,
  name: string,
  fingerprint: string,
): 'trusted' | 'masked' | 'unknown' {
  const last = placesFor(context, name)
    .filter(place => place.fingerprint === fingerprint)
    .at(-1);
  if (last === undefined) return 'unknown';
  return last.bytes === undefined ? 'masked' : 'trusted';
}

function placesFor(context: ConfigFolders, name: string): readonly Place[] {
  const scopes = prefixesOf(name);
  return [
    ...inFolders(context, (base, folder) => readScope(base, folder, '')),
    ...inFolders(context, (base, folder) =>
      scopes.flatMap(scope => readScope(base, folder, scope)),
    ),
  ];
}

/** Every key of every folder, also those whose trust is taken away, for `trust list`. */
export function allTrustedKeys(context: ConfigFolders): readonly ListedKey[] {
  const places = [
    ...inFolders(context, (base, folder) => readScope(base, folder, '')),
    ...inFolders(context, (base, folder) =>
      scopesIn(join(base, 'trustedkeys', 'prefix.d')).flatMap(scope =>
        readScope(base, folder, scope),
      ),
    ),
  ];
  return places.flatMap((place, index) => {
    const { bytes, fingerprint, scope, path, folder } = place;
    if (bytes === undefined) return [];
    const masks = places
      .slice(index + 1)
      .filter(later => later.bytes === undefined && later.fingerprint === fingerprint);
    const maskedBy = masks.find(mask => covers(mask.scope, scope) && mask.scope !== '')?.path;
    const rootMask = scope === '' ? masks.find(mask => mask.scope === '')?.path : undefined;
    const maskedBelow = masks
      .map(mask => mask.scope)
      .filter(below => below !== scope && below !== '' && covers(scope, below));
    return [
      { fingerprint, scope, path, folder, bytes, maskedBy: maskedBy ?? rootMask, maskedBelow },
    ];
  });
}

/**
 * Stores one key, in the user's configuration folder where there is one, else the local one: a key that was
 * asked for is not to be masked by a folder after it.
 * @param scope a prefix, or empty for a root key
 */
export function addTrustedKey(
  context: ConfigFolders,
  bytes: Uint8Array,
  scope: string,
): { readonly path: string; readonly fingerprint: string } {
  checkScope(scope);
  const [key, second] = splitKeys(bytes, 'key');
  if (key === undefined || second !== undefined) {
    throw new TspodError('protocol', 'key: it has more than one key');
  }
  const own = ownFolder(context);
  const path = join(scopeFolder(own, scope), key.fingerprint);
  writeDurably(join(own, 'trustedkeys'), path, key.bytes);
  return { path, fingerprint: key.fingerprint };
}

export interface RemovedKey {
  /** The file that was removed; undefined when none was in the folder that may be written. */
  readonly removed: string | undefined;
  /** The empty file that takes away the trust which an earlier folder gives. */
  readonly masked: string | undefined;
}

/**
 * Takes away the trust in a key for one scope.
 * @throws TspodError 'not-found' when it was not trusted there
 */
export function removeTrustedKey(
  context: ConfigFolders,
  fingerprint: string,
  scope: string,
): RemovedKey {
  checkScope(scope);
  const wanted = fingerprint.replace(/\s+/g, '').toLowerCase();
  if (!FINGERPRINT.test(wanted)) {
    throw new TspodError('usage', `"${fingerprint}" is not a fingerprint`, {
      hint: 'it has 40 or 64 hex digits; "trust list" shows it',
    });
  }
  const own = join(scopeFolder(ownFolder(context), scope), wanted);
  const places = inFolders(context, (base, folder) => readScope(base, folder, scope)).filter(
    place => place.fingerprint === wanted,
  );
  if (places.at(-1)?.bytes === undefined) {
    const where = scope === '' ? 'as a root key' : `for prefix "${scope}"`;
    throw new TspodError('not-found', `key ${wanted} is not trusted ${where}`);
  }
  const elsewhere = places.some(place => place.path !== own && place.bytes !== undefined);
  if (elsewhere) {
    const removed = places.some(place => place.path === own && place.bytes !== undefined);
    writeDurably(join(ownFolder(context), 'trustedkeys'), own, new Uint8Array(0));
    return { removed: removed ? own : undefined, masked: own };
  }
  try {
    rmSync(own);
    syncFolder(dirname(own));
  } catch (error) {
    throw systemError(`can't remove ${own}`, error);
  }
  return { removed: own, masked: undefined };
}

/** @throws TspodError 'usage' unless it is empty or a prefix of image names. */
export function checkScope(scope: string): void {
  if (scope === '') return;
  const components = scope.split('/');
  if (components.length > MAX_DEPTH || !components.every(part => COMPONENT.test(part))) {
    throw new TspodError(
      'usage',
      `prefix ${JSON.stringify(scope)}: it is not a prefix of image names`,
      {
        hint: 'for example example.com/app, without scheme and tag, in lower case',
      },
    );
  }
}

/** `a/b/c` → `a`, `a/b`, `a/b/c`, as far as the components can be folders of a key store. */
function prefixesOf(name: string): readonly string[] {
  const prefixes: string[] = [];
  for (const component of name.split('/').slice(0, MAX_DEPTH)) {
    if (!COMPONENT.test(component)) break;
    const parent = prefixes.at(-1);
    prefixes.push(parent === undefined ? component : `${parent}/${component}`);
  }
  return prefixes;
}

/** Whether all names of `scope` are names of `outer`, by whole components. */
function covers(outer: string, scope: string): boolean {
  return outer === '' || scope === outer || scope.startsWith(`${outer}/`);
}

function inFolders<T>(
  context: ConfigFolders,
  read: (base: string, folder: ListedKey['folder']) => readonly T[],
): T[] {
  const folders = [
    ['system', context.systemConfig],
    ['local', context.localConfig],
    ['user', context.userConfig],
  ] as const;
  return folders.flatMap(([folder, base]) => (base === '' ? [] : read(base, folder)));
}

function ownFolder(context: ConfigFolders): string {
  return context.userConfig === '' ? context.localConfig : context.userConfig;
}

function scopeFolder(base: string, scope: string): string {
  const store = join(base, 'trustedkeys');
  return scope === '' ? join(store, 'root.d') : join(store, 'prefix.d', scope);
}

function readScope(base: string, folder: ListedKey['folder'], scope: string): readonly Place[] {
  const path = scopeFolder(base, scope);
  if (!checkFolders(join(base, 'trustedkeys'), path)) return [];
  const names = entries(path).filter(entry => !entry.isDirectory && !entry.name.startsWith('.'));
  return names.map(({ name }) => readPlace(join(path, name), name, scope, folder));
}

function readPlace(path: string, name: string, scope: string, folder: ListedKey['folder']): Place {
  if (!FINGERPRINT.test(name)) throw wrong(path, 'its name is not a lower-case fingerprint');
  const bytes = readRegularFile(path);
  if (bytes.length === 0) return { fingerprint: name, scope, path, folder, bytes: undefined };
  const keys = asConfig(() => splitKeys(bytes, `trusted key ${path}`));
  const [key] = keys;
  if (key === undefined || keys.length > 1) throw wrong(path, 'it has more than one key');
  if (key.fingerprint !== name) {
    throw wrong(path, `the key inside has the fingerprint ${key.fingerprint}`);
  }
  return { fingerprint: name, scope, path, folder, bytes: key.bytes };
}

/** Prefixes below prefix.d that may hold keys. */
function scopesIn(root: string, scope = '', depth = 0): readonly string[] {
  const path = scope === '' ? root : join(root, scope);
  if (depth > MAX_DEPTH) throw new TspodError('limit', `${path}: deeper than ${MAX_DEPTH} folders`);
  if (!checkFolders(dirname(root), path)) return [];
  return entries(path)
    .filter(entry => entry.isDirectory && COMPONENT.test(entry.name))
    .flatMap(({ name }) => {
      const inner = scope === '' ? name : `${scope}/${name}`;
      return [inner, ...scopesIn(root, inner, depth + 1)];
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

function readRegularFile(path: string): Uint8Array {
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
    if (errnoOf(error) === 'ELOOP') throw wrong(path, 'it is a symbolic link');
    throw asConfigError(path, error);
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

function writeDurably(store: string, path: string, bytes: Uint8Array): void {
  try {
    makeFolders(store, dirname(path));
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
