/**
 * Volumes and mounts: the grammar of `--volume` and `--mount` (rkt 1.30, "volume" and "mount" flags;
 * kind=tmpfs, size and propagation are ours), and which volume goes where in an app.
 *
 * A host source is resolved once, here: what is checked is what is mounted (CVE-2024-1753). A target is
 * text until the launcher resolves it inside the app's root.
 */
import { realpathSync, statSync } from 'node:fs';
import { errnoOf, reasonOf, TspodError } from '../errors.ts';
import type { Mount, MountPoint, Volume } from '../image/appc.ts';
import { isCleanAbsolute, MAX_ID, normalized } from '../image/convert.ts';
import { isAcName } from './names.ts';
import { parseQuantity } from './quantity.ts';

/** `NAME,kind=host,source=PATH,…`. @throws TspodError 'pod' that names flag and key */
export function parseVolume(text: string): Volume {
  const bad = (why: string) => new TspodError('pod', `--volume=${text.slice(0, 300)}: ${why}`);
  const [name = '', ...words] = text.split(',');
  if (!isAcName(name)) throw bad(`"${name}" is not a volume's name`);
  const fields = fieldsOf(words, bad);
  const kind = fields.get('kind');
  if (kind === undefined) throw bad(`it has no kind=${VOLUME_KINDS.join('|')}`);
  if (!isKind(kind)) throw bad(`unknown volume kind "${kind}"`);
  const allowed = ALLOWED[kind];
  for (const key of fields.keys()) {
    if (!KEYS.has(key)) throw bad(`unknown volume parameter "${key}"`);
    if (!allowed.has(key)) throw bad(`${key} can't be given with kind=${kind}`);
  }
  const readOnly = fields.get('readOnly');
  const recursive = fields.get('recursive');
  const propagation = fields.get('propagation');
  const mode = fields.get('mode');
  const uid = fields.get('uid');
  const gid = fields.get('gid');
  const size = fields.get('size');
  const volume: Volume = {
    name,
    kind,
    ...optional('source', fields.get('source')),
    ...(readOnly === undefined ? {} : { readOnly: bool(readOnly, 'readOnly', bad) }),
    ...(recursive === undefined ? {} : { recursive: bool(recursive, 'recursive', bad) }),
    ...(propagation === undefined ? {} : { propagation: propagationOf(propagation, bad) }),
    ...(kind === 'empty' ? { mode: '0755', uid: 0, gid: 0 } : {}),
    ...optional('mode', mode),
    ...(uid === undefined ? {} : { uid: id(uid, 'uid', bad) }),
    ...(gid === undefined ? {} : { gid: id(gid, 'gid', bad) }),
    ...(size === undefined
      ? {}
      : { size: Number(parseQuantity(size, 0, `--volume=${name}: size`)) }),
  };
  const why = whyBadVolume(volume);
  if (why !== undefined) throw bad(why);
  return volume;
}

export const VOLUME_KINDS = ['host', 'empty', 'tmpfs', 'image', 'device'] as const;

function isKind(kind: string): kind is Volume['kind'] {
  return VOLUME_KINDS.some(one => one === kind);
}

const ALLOWED: Readonly<Record<Volume['kind'], ReadonlySet<string>>> = {
  host: new Set(['kind', 'source', 'readOnly', 'recursive', 'propagation']),
  empty: new Set(['kind', 'readOnly', 'mode', 'uid', 'gid']),
  tmpfs: new Set(['kind', 'readOnly', 'mode', 'uid', 'gid', 'size']),
  image: new Set(['kind', 'source', 'readOnly']),
  device: new Set(['kind', 'source', 'readOnly']),
};
const KEYS: ReadonlySet<string> = new Set(Object.values(ALLOWED).flatMap(keys => [...keys]));

/** The rules of a volume, whether typed or from a pod manifest. Undefined: it holds. */
export function whyBadVolume(volume: Volume): string | undefined {
  const { kind, source, mode, uid, gid, size } = volume;
  if (!isAcName(volume.name)) return `"${volume.name.slice(0, 100)}" is not a volume's name`;
  if (kind === 'image' || kind === 'device') return whyBadThing(volume);
  if (kind === 'host') {
    if (source === undefined || source === '') return 'kind=host needs a source';
    if (!source.startsWith('/')) return `source "${source}" is not an absolute path`;
    if (source.includes('\0')) return 'source has a NUL byte';
    if (mode !== undefined || uid !== undefined || gid !== undefined)
      return "mode, uid and gid can't be given with kind=host";
  } else {
    if (source !== undefined) return `source can't be given with kind=${kind}`;
    if (volume.recursive !== undefined || volume.propagation !== undefined) {
      return `recursive and propagation can't be given with kind=${kind}`;
    }
    if (mode !== undefined && !/^[0-7]{1,5}$/.test(mode)) return `mode "${mode}" is not octal`;
    if (mode !== undefined && Number.parseInt(mode, 8) > 0o7777)
      return `mode "${mode}" is over 7777`;
    for (const owner of [uid, gid]) {
      if (owner !== undefined && !(Number.isInteger(owner) && owner >= 0 && owner <= MAX_ID)) {
        return `${owner} is not an id from 0 to ${MAX_ID}`;
      }
    }
  }
  if (size !== undefined) {
    if (kind !== 'tmpfs') return `size can't be given with kind=${kind}`;
    if (!(Number.isSafeInteger(size) && size >= 4096))
      return `size ${size} is not a number of bytes from 4096 on`;
  }
  return undefined;
}

function whyBadThing({ kind, source, readOnly, ...rest }: Volume): string | undefined {
  if (source === undefined || source === '') return `kind=${kind} needs a source`;
  if (source.includes('\0')) return 'source has a NUL byte';
  for (const key of ['recursive', 'propagation', 'mode', 'uid', 'gid', 'size'] as const)
    if (rest[key] !== undefined) return `${key} can't be given with kind=${kind}`;
  if (kind === 'image')
    return readOnly === false ? 'a volume of kind=image is always read-only' : undefined;
  if (!source.startsWith('/dev/')) return `source "${source}" is not a device in /dev`;
  return readOnly === true
    ? "readOnly can't be kept with kind=device: a mount does not stop writing to a device"
    : undefined;
}

/**
 * Resolves the source of a host volume or device, once.
 * @throws TspodError 'pod' "Failed to stat PATH: …" as rkt says it
 */
export function resolveSource(volume: Volume): Volume {
  if (volume.source === undefined || volume.kind === 'image') return volume;
  try {
    const source = realpathSync(volume.source);
    if (volume.kind === 'device') {
      const stat = statSync(source);
      if (!stat.isCharacterDevice() && !stat.isBlockDevice()) throw new Error('it is no device');
    }
    return { ...volume, source };
  } catch (error) {
    const why = errnoOf(error) === 'ENOENT' ? 'No such file or directory' : reasonOf(error);
    throw new TspodError('pod', `Failed to stat ${volume.source}: ${why}`, {
      hint: `make the source of volume "${volume.name}" first`,
      cause: error,
    });
  }
}

/** `volume=NAME,target=PATH`. @throws TspodError 'pod' */
export function parseMount(text: string): Mount {
  const bad = (why: string) => new TspodError('pod', `--mount=${text.slice(0, 300)}: ${why}`);
  const fields = fieldsOf(text.split(','), bad);
  for (const key of fields.keys()) {
    if (key !== 'volume' && key !== 'target') throw bad(`unknown mount parameter "${key}"`);
  }
  const volume = fields.get('volume') ?? '';
  const path = fields.get('target') ?? '';
  if (!isAcName(volume)) throw bad(`"${volume}" is not a volume's name`);
  const why = whyBadTarget(path);
  if (why !== undefined) throw bad(why);
  return { volume, path: normalized(path) };
}

/** Why a volume can't be put there (CVE-2019-16884: nothing goes over /proc). */
export function whyBadTarget(path: string): string | undefined {
  if (!isCleanAbsolute(path))
    return `target ${JSON.stringify(path.slice(0, 200))} is not an absolute path without ".."`;
  const clean = normalized(path);
  if (clean === '/') return 'target "/" would hide the whole root file system';
  if (clean === '/proc' || clean.startsWith('/proc/'))
    return `target "${clean}" is in /proc, where nothing may be mounted`;
  return undefined;
}

export interface PlacedVolume {
  readonly volume: Volume;
  readonly path: string;
}

/**
 * Which volumes an app gets and where. Mounts asked for come first and win over a mount point of the
 * image at the same path; a mount point takes the volume of its own name. Parents come before children.
 * Read-only is what either the volume or the mount point says.
 * @returns besides, the mount points for which there is no volume
 * @throws TspodError 'pod' for a mount without volume, or two on one path
 */
export function placeVolumes(
  volumes: readonly Volume[],
  mounts: readonly Mount[],
  mountPoints: readonly MountPoint[],
): { readonly placed: readonly PlacedVolume[]; readonly missing: readonly MountPoint[] } {
  const byPath = new Map<string, PlacedVolume>();
  const missing: MountPoint[] = [];
  const find = (name: string) => volumes.find(volume => volume.name === name);
  for (const mount of mounts) {
    const volume = find(mount.volume);
    if (volume === undefined) {
      throw new TspodError(
        'pod',
        `dangling mount point "${mount.path}": volume "${mount.volume}" not found`,
        {
          hint: `give --volume=${mount.volume},kind=host,source=PATH`,
        },
      );
    }
    const path = normalized(mount.path);
    if (byPath.has(path))
      throw new TspodError('pod', `mount ${path}: two volumes are to be mounted there`);
    byPath.set(path, { volume, path });
  }
  for (const point of mountPoints) {
    const path = normalized(point.path);
    const asked = byPath.get(path);
    if (asked !== undefined) {
      if (point.readOnly === true)
        byPath.set(path, { volume: { ...asked.volume, readOnly: true }, path });
      continue;
    }
    const volume = find(point.name);
    if (volume === undefined) missing.push({ ...point, path });
    else
      byPath.set(path, {
        volume: point.readOnly === true ? { ...volume, readOnly: true } : volume,
        path,
      });
  }
  const depth = (path: string) => path.split('/').length;
  const placed = [...byPath.values()].sort((a, b) => depth(a.path) - depth(b.path));
  return { placed, missing };
}

function fieldsOf(
  words: readonly string[],
  bad: (why: string) => TspodError,
): ReadonlyMap<string, string> {
  const fields = new Map<string, string>();
  for (const word of words) {
    const split = word.indexOf('=');
    if (split < 1) throw bad(`"${word}" is not KEY=VALUE`);
    const key = word.slice(0, split);
    if (fields.has(key)) throw bad(`${key} is given twice`);
    fields.set(key, word.slice(split + 1));
  }
  return fields;
}

function optional<K extends string>(key: K, value: string | undefined): Partial<Record<K, string>> {
  const part: Partial<Record<K, string>> = {};
  if (value !== undefined) part[key] = value;
  return part;
}

/** As Go's strconv.ParseBool, which rkt uses. */
function bool(text: string, key: string, bad: (why: string) => TspodError): boolean {
  if (/^(?:1|t|T|true|TRUE|True)$/.test(text)) return true;
  if (/^(?:0|f|F|false|FALSE|False)$/.test(text)) return false;
  throw bad(`${key}=${text} is neither true nor false`);
}

function propagationOf(
  text: string,
  bad: (why: string) => TspodError,
): 'private' | 'slave' | 'shared' {
  if (text === 'private' || text === 'slave' || text === 'shared') return text;
  throw bad(`propagation=${text} is none of private, slave, shared`);
}

function id(text: string, key: string, bad: (why: string) => TspodError): number {
  if (/^[0-9]{1,10}$/.test(text) && Number(text) <= MAX_ID) return Number(text);
  throw bad(`${key}=${text} is not an id from 0 to ${MAX_ID}`);
}
