/**
 * Everything that a tree on disk is, as comparable data: the oracle's side and ours are listed by this and
 * must be equal, entry by entry.
 */
import { createHash } from 'node:crypto';
import { lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { native } from '../../src/sys/native.ts';

export interface TreeEntry {
  readonly type: number;
  readonly mode: string;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly mtime: bigint;
  readonly rdev: number;
  readonly nlink: number;
  /** The first path of this inode, in order of bytes. */
  readonly inode: string;
  readonly link: string;
  readonly hash: string;
  readonly xattrs: Readonly<Record<string, string>>;
}

export interface ListOptions {
  /** Hash file content; default true. */
  readonly content?: boolean;
}

/** By path relative to the root (`.` is the root), one character per byte. */
export function listTree(root: string, options: ListOptions = {}): Map<string, TreeEntry> {
  const tree = new Map<string, TreeEntry>();
  const inodes = new Map<string, string>();
  const visit = (path: Buffer, name: string): void => {
    const stat = lstatSync(path, { bigint: true });
    // an overlay shows inodes of several devices
    const inode = `${stat.dev}:${stat.ino}`;
    if (!inodes.has(inode)) inodes.set(inode, name);
    const isLink = stat.isSymbolicLink();
    const isFolder = stat.isDirectory();
    tree.set(name, {
      type: Number(stat.mode) >> 12,
      mode: (Number(stat.mode) & 0o7777).toString(8),
      uid: Number(stat.uid),
      gid: Number(stat.gid),
      size: isFolder ? 0 : Number(stat.size),
      mtime: stat.mtimeNs,
      rdev: Number(stat.rdev),
      nlink: isFolder ? 0 : Number(stat.nlink),
      inode: inodes.get(inode) ?? '',
      link: isLink ? readlinkSync(path, { encoding: 'latin1' }) : '',
      hash: stat.isFile() && options.content !== false ? hashOf(path) : '',
      xattrs: xattrsOf(path),
    });
    if (!isFolder) return;
    const names = readdirSync(path, { encoding: 'buffer' }).sort(Buffer.compare);
    for (const base of names) {
      const child = Buffer.concat([path, Buffer.from('/'), base]);
      visit(child, name === '.' ? base.toString('latin1') : `${name}/${base.toString('latin1')}`);
    }
  };
  visit(Buffer.from(root), '.');
  return tree;
}

/** Entries that differ, for a message that a human can read. */
export function differences(
  expected: Map<string, TreeEntry>,
  actual: Map<string, TreeEntry>,
): Record<string, { expected: unknown; actual: unknown }> {
  const found: Record<string, { expected: unknown; actual: unknown }> = {};
  for (const name of new Set([...expected.keys(), ...actual.keys()])) {
    const a = expected.get(name);
    const b = actual.get(name);
    if (JSON.stringify(a, plain) !== JSON.stringify(b, plain))
      found[name] = { expected: a, actual: b };
    if (Object.keys(found).length >= 10) break;
  }
  return found;
}

function plain(_: string, value: unknown): unknown {
  return typeof value === 'bigint' ? String(value) : value;
}

function hashOf(path: Buffer): string {
  return createHash('sha256').update(readFileSync(path)).digest('hex');
}

function xattrsOf(path: Buffer): Record<string, string> {
  const names = native()
    .llistxattr(path)
    .map(name => Buffer.from(name).toString('latin1'))
    .sort();
  return Object.fromEntries(
    names.map(name => [name, Buffer.from(native().lgetxattr(path, name)).toString('hex')]),
  );
}
