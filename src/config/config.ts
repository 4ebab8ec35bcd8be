/**
 * Configuration as rkt reads it (docs/configuration.md): the folders of the system, of the administrator
 * and of the user, in this order; a later folder's entry replaces an earlier one's with the same key; the
 * same key twice inside one folder is an error. Each kind has a folder of its own, `<kind>.d`, of which only
 * regular `*.json` files count; a link or a folder in it is passed over, so nothing outside is read.
 *
 * Kinds are read when asked for, so that a run of an image that is in the store opens no credentials.
 */
import { closeSync, constants, fstatSync, openSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Context } from '../context.ts';
import { errnoOf, systemError, TspodError } from '../errors.ts';
import { type JsonObject, JsonReader, parseBoundedJson } from '../image/json.ts';
import { type Auth, type DockerAuth, readAuth, readDockerAuth } from './auth.ts';
import { type Paths, readPaths } from './paths.ts';
import { type RegistrySettings, readRegistries } from './registries.ts';
import { readStage1, type Stage1 } from './stage1.ts';
import { readTrust, type TrustRule } from './trust.ts';

const MAX_FILE_BYTES = 1024 * 1024;

export type ConfigFolders = Pick<Context, 'systemConfig' | 'localConfig' | 'userConfig'>;

/** Each property reads its files when first used. Throws 'config' naming file and key. */
export interface Config {
  /** By domain. */
  readonly auth: ReadonlyMap<string, Auth>;
  /** By registry, HOST[:PORT]. */
  readonly dockerAuth: ReadonlyMap<string, DockerAuth>;
  readonly paths: Paths;
  readonly stage1: Stage1 | undefined;
  /** By registry, HOST[:PORT]. */
  readonly registries: ReadonlyMap<string, RegistrySettings>;
  /** By prefix of image names, `*` for all. */
  readonly trust: ReadonlyMap<string, TrustRule>;
}

/** One entry of a file: its key (unique inside a folder) and its value. */
export interface Entry<T> {
  readonly key: string;
  readonly value: T;
}

/** Reads the entries of a file of one kind. */
export type KindReader<T> = (
  reader: JsonReader,
  object: JsonObject,
  file: string,
) => readonly Entry<T>[];

export function loadConfig(folders: ConfigFolders): Config {
  const authFolder = once(() =>
    readFolders<Auth | DockerAuth>(folders, 'auth', {
      auth: readAuth,
      dockerAuth: readDockerAuth,
    }),
  );
  const auth = once(() =>
    only(authFolder().get('auth'), (value): value is Auth => value.kind === 'auth'),
  );
  const dockerAuth = once(() =>
    only(
      authFolder().get('dockerAuth'),
      (value): value is DockerAuth => value.kind === 'dockerAuth',
    ),
  );
  const paths = once(() => {
    const found = readFolders(folders, 'paths', { paths: readPaths }).get('paths');
    const data = found?.get('data');
    const stage1Images = found?.get('stage1-images');
    return {
      ...(data === undefined ? {} : { data }),
      ...(stage1Images === undefined ? {} : { stage1Images }),
    };
  });
  const stage1 = once(() => {
    const found = readFolders(folders, 'stage1', { stage1: readStage1 }).get('stage1');
    if (found === undefined || found.size === 0) return undefined;
    return { ...found.get('name'), ...found.get('location') };
  });
  const registries = once(
    () =>
      readFolders(folders, 'registries', { registries: readRegistries }).get('registries') ??
      new Map<string, RegistrySettings>(),
  );
  const trust = once(
    () =>
      readFolders(folders, 'trust', { trust: readTrust }).get('trust') ??
      new Map<string, TrustRule>(),
  );
  return {
    get auth() {
      return auth();
    },
    get dockerAuth() {
      return dockerAuth();
    },
    get paths() {
      return paths();
    },
    get stage1() {
      return stage1();
    },
    get registries() {
      return registries();
    },
    get trust() {
      return trust();
    },
  };
}

function only<T, U extends T>(
  entries: ReadonlyMap<string, T> | undefined,
  is: (value: T) => value is U,
): ReadonlyMap<string, U> {
  const found = new Map<string, U>();
  for (const [key, value] of entries ?? []) if (is(value)) found.set(key, value);
  return found;
}

function once<T>(read: () => T): () => T {
  let kept: { readonly value: T } | undefined;
  return () => {
    kept ??= { value: read() };
    return kept.value;
  };
}

/** The merged entries by rktKind. */
function readFolders<T>(
  folders: ConfigFolders,
  folder: string,
  kinds: Readonly<Record<string, KindReader<T>>>,
): ReadonlyMap<string, ReadonlyMap<string, T>> {
  const merged = new Map<string, Map<string, T>>();
  for (const base of [folders.systemConfig, folders.localConfig, folders.userConfig]) {
    if (base === '') continue;
    for (const [kind, entries] of readFolder(join(base, `${folder}.d`), kinds)) {
      const all = merged.get(kind) ?? new Map<string, T>();
      for (const [key, { value }] of entries) all.set(key, value);
      merged.set(kind, all);
    }
  }
  return merged;
}

interface Placed<T> {
  readonly value: T;
  readonly file: string;
}

function readFolder<T>(
  folder: string,
  kinds: Readonly<Record<string, KindReader<T>>>,
): ReadonlyMap<string, ReadonlyMap<string, Placed<T>>> {
  const found = new Map<string, Map<string, Placed<T>>>();
  for (const file of jsonFiles(folder)) {
    const bytes = readRegularFile(file);
    if (bytes === undefined) continue;
    const reader: JsonReader = new JsonReader({ what: `configuration ${file}`, code: 'config' });
    const object = reader.object(parseBoundedJson(bytes, MAX_FILE_BYTES, reader.kind), '');
    const kind = reader.nonEmptyString(object.rktKind, 'rktKind');
    const version = reader.nonEmptyString(object.rktVersion, 'rktVersion');
    const read = Object.hasOwn(kinds, kind) ? kinds[kind] : undefined;
    if (read === undefined) {
      const known = Object.keys(kinds).join(', ');
      reader.fail('rktKind', `${JSON.stringify(kind)} does not belong here: ${known}`);
    }
    if (version !== 'v1') reader.fail('rktVersion', `${JSON.stringify(version)} is not v1`);
    const entries = found.get(kind) ?? new Map<string, Placed<T>>();
    for (const { key, value } of read(reader, object, file)) {
      const former = entries.get(key);
      if (former !== undefined) {
        reader.fail(JSON.stringify(key), `is also configured in ${former.file}`);
      }
      entries.set(key, { value, file });
    }
    found.set(kind, entries);
  }
  return found;
}

function jsonFiles(folder: string): readonly string[] {
  try {
    return readdirSync(folder, { withFileTypes: true })
      .filter(entry => entry.isFile() && entry.name.endsWith('.json'))
      .map(entry => join(folder, entry.name))
      .sort();
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === 'ENOENT' || errno === 'ENOTDIR') return [];
    throw unreadable(folder, error);
  }
}

/** Undefined when it is no regular file any more. */
function readRegularFile(path: string): Uint8Array | undefined {
  let fd: number | undefined;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    const stat = fstatSync(fd);
    if (!stat.isFile()) return undefined;
    if (stat.size > MAX_FILE_BYTES) {
      throw new TspodError('config', `configuration ${path}: over ${MAX_FILE_BYTES} bytes`);
    }
    return readFileSync(fd);
  } catch (error) {
    if (errnoOf(error) === 'ELOOP') return undefined;
    throw unreadable(path, error);
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

function unreadable(path: string, error: unknown): TspodError {
  if (error instanceof TspodError) return error;
  const { message } = systemError(`configuration ${path}: can't read it`, error);
  return new TspodError('config', message, { cause: error });
}
