/**
 * One small file per image, `images/<algorithm>-<hex>.json`. Its modification time is the image's last use
 * (a utimes call costs a run no transaction and no fsync), and its content is everything that store.db has
 * about the image, so that a database that is lost or was removed as damaged is rebuilt from these files.
 */
import {
  closeSync,
  fsyncSync,
  futimesSync,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { errnoOf, systemError } from '../errors.ts';
import { type Digest, isDigest } from '../image/digest.ts';
import type { Layout } from './layout.ts';
import type { ImageRecord } from './types.ts';
import { isVerdict } from './verdict.ts';

const VERSION = 1;
export const RECORD_TMP_PREFIX = 'record.';

export interface StoredName {
  readonly name: string;
  /** ms since the epoch; of two images that claim a name the later one has it */
  readonly since: number;
}

export interface StoredImage extends Omit<ImageRecord, 'names' | 'lastUsedAt'> {
  readonly names: readonly StoredName[];
}

/**
 * Written aside and renamed.
 * @param usedAt the last use to keep, ms since the epoch; now when there is none
 */
export function writeImageRecord(
  layout: Layout,
  image: StoredImage,
  usedAt: number = Date.now(),
): void {
  const aside = `${layout.tmp}/${RECORD_TMP_PREFIX}${process.pid}.${image.id.replace(':', '.')}`;
  try {
    const fd = openSync(aside, 'w', 0o600);
    try {
      writeFileSync(fd, JSON.stringify({ version: VERSION, ...image }));
      futimesSync(fd, usedAt / 1000, usedAt / 1000);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    renameSync(aside, layout.imageRecord(image.id));
  } catch (error) {
    removeFile(aside);
    throw systemError(`image ${image.id}: can't write its record`, error);
  }
}

export function removeImageRecord(layout: Layout, id: Digest): void {
  removeFile(layout.imageRecord(id));
}

/** ms since the epoch; undefined when the file is not there. */
export function lastUse(layout: Layout, id: Digest): number | undefined {
  const stat = lstatSync(layout.imageRecord(id), { throwIfNoEntry: false });
  return stat === undefined ? undefined : Math.floor(stat.mtimeMs);
}

export function markUsed(layout: Layout, id: Digest): void {
  // Seconds: the first Date of a process reads the time zone.
  try {
    const now = Date.now() / 1000;
    utimesSync(layout.imageRecord(id), now, now);
  } catch (error) {
    // The last use only guides gc: it is not worth failing a run on a store that can't be written.
    const errno = errnoOf(error);
    if (errno === 'ENOENT' || errno === 'EROFS' || errno === 'EACCES' || errno === 'EPERM') return;
    throw systemError(`image ${id}: can't mark it as used`, error);
  }
}

/** Ids that have a file. */
export function recordedIds(layout: Layout): Digest[] {
  let names: string[];
  try {
    names = readdirSync(layout.images);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw systemError("store: can't read its image records", error);
  }
  return names
    .map(name => /^(sha256|sha512)-([0-9a-f]+)\.json$/.exec(name))
    .map(match => (match === null ? '' : `${match[1]}:${match[2]}`))
    .filter(isDigest);
}

/** Undefined for a file that is damaged: that image has to be fetched again. */
export function readImageRecord(layout: Layout, id: Digest): StoredImage | undefined {
  try {
    const value: unknown = JSON.parse(readFileSync(layout.imageRecord(id), 'utf8'));
    return isStoredImage(value) && value.id === id ? value : undefined;
  } catch (error) {
    if (error instanceof SyntaxError || errnoOf(error) === 'ENOENT') return undefined;
    throw systemError(`image ${id}: can't read its record`, error);
  }
}

function isStoredImage(value: unknown): value is StoredImage {
  return (
    isRecord(value) &&
    value.version === VERSION &&
    isDigest(value.id) &&
    isDigest(value.manifestDigest) &&
    Array.isArray(value.names) &&
    value.names.every(
      name => isRecord(name) && typeof name.name === 'string' && typeof name.since === 'number',
    ) &&
    Array.isArray(value.layers) &&
    value.layers.every(
      layer =>
        isRecord(layer) &&
        isDigest(layer.diffId) &&
        isRecord(layer.blob) &&
        isDigest(layer.blob.digest) &&
        typeof layer.blob.mediaType === 'string' &&
        typeof layer.blob.size === 'number',
    ) &&
    isVerdict(value.verdict) &&
    (value.appc === undefined ||
      (isRecord(value.appc) && isDigest(value.appc.id) && isDigest(value.appc.manifest))) &&
    typeof value.importedAt === 'number' &&
    typeof value.size === 'number'
  );
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function removeFile(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw systemError(`can't remove ${path}`, error);
  }
}
