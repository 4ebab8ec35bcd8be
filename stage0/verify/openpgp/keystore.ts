/**
 * The trusted OpenPGP keys, where rkt has them: in each configuration folder
 *   trustedkeys/root.d/FINGERPRINT              trusted for every image
 *   trustedkeys/prefix.d/PREFIX/FINGERPRINT     trusted for PREFIX and the names below it
 *   trustedkeys/prefix.d/_/PATH/FINGERPRINT     the same for files and layouts, whose name is their path
 * A key file is named by the lower-case fingerprint of the one key inside; an empty file of that name takes the
 * trust away that an earlier place gave (docs/trust.md). Prefixes are whole components of a name: a key
 * for `example.com/app` says nothing about `example.com/apple`.
 */
import { join } from 'node:path';
import type { Context } from '../../../src/context.ts';
import { TspodError } from '../../../src/errors.ts';
import { FINGERPRINT, splitKeys } from './key-block.ts';
import {
  type KeyFile,
  prefixesOf,
  readScope,
  removeKeyFile,
  scopeFolder,
  scopesIn,
  writeKeyFile,
} from './key-files.ts';

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

interface Place extends KeyFile {
  readonly folder: ListedKey['folder'];
}

/**
 * The keys that are trusted for an image name, in rkt's order: root keys of all folders, then prefixes, each
 * folder from the shortest prefix to the longest. One key may come from several places: whoever verifies
 * believes a revocation in any of them.
 * @param name as Subject.name
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
    ...inFolders(context, base => readScope(base, '')),
    ...inFolders(context, base => scopes.flatMap(scope => readScope(base, scope))),
  ];
}

/** Every key of every folder, also those whose trust is taken away, for `trust list`. */
export function allTrustedKeys(context: ConfigFolders): readonly ListedKey[] {
  const places = [
    ...inFolders(context, base => readScope(base, '')),
    ...inFolders(context, base => scopesIn(base).flatMap(scope => readScope(base, scope))),
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
  writeKeyFile(path, own, key.bytes);
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
  const places = inFolders(context, base => readScope(base, scope)).filter(
    place => place.fingerprint === wanted,
  );
  if (places.at(-1)?.bytes === undefined) {
    const where = scope === '' ? 'as a root key' : `for prefix "${scope}"`;
    throw new TspodError('not-found', `key ${wanted} is not trusted ${where}`);
  }
  const removed = places.some(({ path, bytes }) => path === own && bytes !== undefined);
  const elsewhere = places.some(({ path, bytes }) => path !== own && bytes !== undefined);
  if (elsewhere) writeKeyFile(own, ownFolder(context), new Uint8Array(0));
  else removeKeyFile(own);
  return { removed: removed ? own : undefined, masked: elsewhere ? own : undefined };
}

/** @throws TspodError 'usage' unless it is empty or a prefix of image names. */
export function checkScope(scope: string): void {
  if (scope === '') return;
  if (prefixesOf(scope).at(-1) !== scope) {
    throw new TspodError(
      'usage',
      `prefix ${JSON.stringify(scope)}: it is not a prefix of image names`,
      {
        hint: 'for example example.com/app, without scheme and tag, in lower case; or /a/path',
      },
    );
  }
}

/** Whether all names of `scope` are names of `outer`, by whole components. */
function covers(outer: string, scope: string): boolean {
  if (outer === '' || scope === outer) return true;
  return scope.startsWith(outer.endsWith('/') ? outer : `${outer}/`);
}

function inFolders(
  context: ConfigFolders,
  read: (base: string) => readonly KeyFile[],
): readonly Place[] {
  const folders = [
    ['system', context.systemConfig],
    ['local', context.localConfig],
    ['user', context.userConfig],
  ] as const;
  return folders.flatMap(([folder, base]) =>
    base === '' ? [] : read(base).map(file => ({ ...file, folder })),
  );
}

function ownFolder(context: ConfigFolders): string {
  return context.userConfig === '' ? context.localConfig : context.userConfig;
}
