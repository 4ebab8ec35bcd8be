/** Volumes of a Kubernetes pod, as the flags and files that say the same to tspod. */
import { closeSync, existsSync, lstatSync, mkdirSync, openSync, statSync } from 'node:fs';
import { posix } from 'node:path';
import { systemError } from '../../src/errors.ts';
import type { VolumeFile } from '../args/types.ts';
import { type DataObject, findObject, type ObjectKind } from './objects.ts';
import type { YamlReader } from './yaml-reader.ts';

export interface KubeVolume {
  readonly name: string;
  readonly kind: 'files' | 'empty' | 'memory' | 'host';
  readonly reader: YamlReader;
  /** Words of `--volume` after the name. */
  readonly words: string;
  /** Of kind `host`. */
  readonly source?: string;
  readonly files: readonly VolumeFile[];
}

const MAX_MODE = 0o777;
const HOST_TYPES = [
  '',
  'DirectoryOrCreate',
  'Directory',
  'FileOrCreate',
  'File',
  'Socket',
  'CharDevice',
  'BlockDevice',
] as const;

/** @param dry makes nothing on the host */
export function readVolume(
  reader: YamlReader,
  objects: readonly DataObject[],
  dry: boolean,
): KubeVolume {
  const name = reader.get('name').nonEmpty();
  const empty = reader.get('emptyDir');
  if (reader.keys().includes('emptyDir')) {
    const medium = empty.get('medium').oneOf(['', 'Memory'], '');
    const limit = empty.get('sizeLimit');
    if (medium === '') {
      if (!limit.isAbsent)
        throw limit.error(
          'a folder on disk can not be limited',
          'give medium: Memory, or leave it out',
        );
      return { name, kind: 'empty', reader, words: 'kind=empty,mode=0777', files: [] };
    }
    const size = limit.quantityOr(undefined);
    const words = `kind=tmpfs,mode=1777${size === undefined ? '' : `,size=${size}`}`;
    return { name, kind: 'memory', reader, words, files: [] };
  }
  const host = reader.get('hostPath');
  if (!host.isAbsent) {
    const source = host.get('path').nonEmpty();
    if (/[,\0]/.test(source)) throw host.get('path').error('it has a comma');
    checkHostPath(host.get('type'), source, dry);
    return { name, kind: 'host', reader, words: `kind=host,source=${source}`, source, files: [] };
  }
  for (const [key, kind, nameKey] of [
    ['configMap', 'ConfigMap', 'name'],
    ['secret', 'Secret', 'secretName'],
  ] as const) {
    const from = reader.get(key);
    if (from.isAbsent) continue;
    const files = filesOf(from, kind, from.get(nameKey), objects);
    return { name, kind: 'files', reader, words: 'kind=empty,mode=0755,readOnly=true', files };
  }
  throw reader.error(
    'its kind is not in this version',
    'give emptyDir, hostPath, configMap or secret',
  );
}

function filesOf(
  from: YamlReader,
  kind: ObjectKind,
  name: YamlReader,
  objects: readonly DataObject[],
): readonly VolumeFile[] {
  const optional = from.get('optional');
  const found = findObject(objects, kind, name, optional);
  const mode = from.get('defaultMode').integerOr(0o644, 0, MAX_MODE);
  const items = from.get('items').list();
  if (found === undefined) return [];
  if (items.length === 0) return [...found.data].map(([path, data]) => ({ path, mode, data }));
  return items.flatMap(item => {
    const key = item.get('key');
    const path = item.get('path').nonEmpty();
    const own = item.get('mode').integerOr(mode, 0, MAX_MODE);
    if (posix.normalize(path) !== path || path.startsWith('/') || /^\.\.?(?:\/|$)/.test(path))
      throw item.get('path').error('it is not a path below the volume');
    const data = found.data.get(key.nonEmpty());
    if (data === undefined) {
      if (optional.boolOr(false)) return [];
      throw key.error(`the ${kind} has no such key`);
    }
    return [{ path, mode: own, data }];
  });
}

/** Kubernetes, "hostPath": what has to be there, or is made. */
function checkHostPath(type: YamlReader, source: string, dry: boolean): void {
  const wanted = type.oneOf(HOST_TYPES, '');
  try {
    if (wanted === '') return;
    if (!existsSync(source) && (wanted === 'DirectoryOrCreate' || wanted === 'FileOrCreate')) {
      if (dry) return;
      if (wanted === 'DirectoryOrCreate') mkdirSync(source, { recursive: true, mode: 0o755 });
      else closeSync(openSync(source, 'wx', 0o644));
      return;
    }
    const stat = lstatSync(source, { throwIfNoEntry: false })?.isSymbolicLink()
      ? statSync(source)
      : lstatSync(source);
    const fits =
      wanted === 'Socket'
        ? stat.isSocket()
        : wanted === 'CharDevice'
          ? stat.isCharacterDevice()
          : wanted === 'BlockDevice'
            ? stat.isBlockDevice()
            : wanted.startsWith('Directory')
              ? stat.isDirectory()
              : stat.isFile();
    if (!fits) throw type.error(`${source} is something else`);
  } catch (error) {
    throw systemError(`${type.name}: can't use ${source}`, error);
  }
}
