/**
 * Whether two folders hold the same: names, types, modes, owners, devices, links, attributes and contents, for
 * `image verify`, which compares a layer with one that it has just made again of the same blob.
 */
import {
  type BigIntStats,
  closeSync,
  constants,
  lstatSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
} from 'node:fs';
import { errnoOf } from '../errors.ts';
import { native } from '../sys/native.ts';

const CHUNK = 1024 * 1024;

/**
 * @param times whether modification times count, but those of folders
 * @returns the first difference, e.g. `etc/passwd: its content`; undefined when there is none
 */
export function treeDifference(
  kept: string,
  made: string,
  { times }: { readonly times: boolean },
): string | undefined {
  /** Names of one file in one tree have to be those of one file in the other. */
  const inodes = new Map<bigint, bigint>();
  const compare = (a: Buffer, b: Buffer, name: string): string | undefined => {
    const one = lstatSync(a, { bigint: true, throwIfNoEntry: false });
    const two = lstatSync(b, { bigint: true, throwIfNoEntry: false });
    if (one === undefined || two === undefined) return `${name}: it is missing`;
    const what = statDifference(one, two, times) ?? contentDifference(a, b, one);
    if (what !== undefined) return `${name}: ${what}`;
    if (one.isDirectory()) return compareFolders(a, b, name);
    const linked = inodes.get(two.ino);
    inodes.set(two.ino, one.ino);
    return linked === undefined || linked === one.ino ? undefined : `${name}: its hard links`;
  };
  const compareFolders = (a: Buffer, b: Buffer, name: string): string | undefined => {
    const [one, two] = [sortedNames(a), sortedNames(b)];
    for (const [index, entry] of one.entries()) {
      const other = two[index];
      if (other === undefined || !entry.equals(other)) return `${show(name, entry)}: it is another`;
      const found = compare(below(a, entry), below(b, entry), show(name, entry));
      if (found !== undefined) return found;
    }
    const more = two[one.length];
    return more === undefined ? undefined : `${show(name, more)}: it is missing`;
  };
  return compare(Buffer.from(kept), Buffer.from(made), '.');
}

function statDifference(one: BigIntStats, two: BigIntStats, times: boolean): string | undefined {
  if (one.mode !== two.mode) return 'its mode';
  if (one.uid !== two.uid || one.gid !== two.gid) return 'its owner';
  if (one.rdev !== two.rdev) return 'its device';
  if (!one.isDirectory() && one.size !== two.size) return 'its size';
  if (!one.isDirectory() && one.nlink !== two.nlink) return 'its hard links';
  // A folder that the archive has no entry for has the time at which it was made.
  return times && !one.isDirectory() && one.mtimeNs !== two.mtimeNs ? 'its time' : undefined;
}

function contentDifference(a: Buffer, b: Buffer, { mode }: BigIntStats): string | undefined {
  const type = Number(mode) & constants.S_IFMT;
  if (attributes(a) !== attributes(b)) return 'its attributes';
  if (type === constants.S_IFLNK && !readlinkSync(a, 'buffer').equals(readlinkSync(b, 'buffer'))) {
    return 'its target';
  }
  if (type !== constants.S_IFREG) return undefined;
  try {
    return sameBytes(a, b) ? undefined : 'its content';
  } catch (error) {
    // What fs-verity found out, or the disk: as damaged as other content.
    if (UNREADABLE.has(errnoOf(error) ?? '')) return 'its content, which the disk does not give';
    throw error;
  }
}

const UNREADABLE: ReadonlySet<string> = new Set(['EIO', 'EBADMSG', 'EUCLEAN']);

function attributes(path: Buffer): string {
  return native()
    .llistxattr(path)
    .map(name => {
      const value = native().lgetxattr(path, name);
      return `${Buffer.from(name).toString('latin1')}=${Buffer.from(value).toString('hex')}`;
    })
    .sort()
    .join('\n');
}

function sameBytes(a: Buffer, b: Buffer): boolean {
  const one = openSync(a, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    const two = openSync(b, constants.O_RDONLY | constants.O_NOFOLLOW);
    try {
      const [left, right] = [Buffer.allocUnsafe(CHUNK), Buffer.allocUnsafe(CHUNK)];
      for (let at = 0; ; ) {
        const got = readSync(one, left, 0, CHUNK, at);
        const other = readSync(two, right, 0, CHUNK, at);
        if (got !== other || !left.subarray(0, got).equals(right.subarray(0, other))) return false;
        if (got === 0) return true;
        at += got;
      }
    } finally {
      closeSync(two);
    }
  } finally {
    closeSync(one);
  }
}

function sortedNames(folder: Buffer): Buffer[] {
  return readdirSync(folder, { encoding: 'buffer' }).sort(Buffer.compare);
}

function below(folder: Buffer, name: Buffer): Buffer {
  return Buffer.concat([folder, Buffer.from('/'), name]);
}

/** For a message: one line, bounded. */
function show(folder: string, name: Buffer): string {
  const text = JSON.stringify(name.toString('latin1')).slice(1, -1);
  const path = folder === '.' ? text : `${folder}/${text}`;
  return path.length > 300 ? `…${path.slice(-300)}` : path;
}
