/** What lies in a tree, as values that a test can compare: everything that an image can say of a file. */
import { createHash } from 'node:crypto';
import { lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { native } from '../../src/sys/native.ts';

export interface Node {
  readonly type: 'file' | 'folder' | 'link' | 'character' | 'block' | 'fifo' | 'socket';
  /** octal text, with setuid and its like */
  readonly mode: string;
  readonly owner: string;
  /** ns since the epoch; of folders and files */
  readonly mtime: bigint;
  /** sha256 of a file, target of a link, `major:minor` of a device */
  readonly content: string;
  /** The first name of the same inode, when it has several. */
  readonly same: string | undefined;
  readonly xattrs: Readonly<Record<string, string>>;
}

/** By path below `root` in latin1, so that names that are no UTF-8 stay apart; the root itself is ''. */
export function readTree(root: string): Map<string, Node> {
  const nodes = new Map<string, Node>();
  const inodes = new Map<bigint, string>();
  const visit = (path: Buffer, name: string): void => {
    const stat = lstatSync(path, { bigint: true });
    const type = stat.isFile()
      ? 'file'
      : stat.isDirectory()
        ? 'folder'
        : stat.isSymbolicLink()
          ? 'link'
          : stat.isCharacterDevice()
            ? 'character'
            : stat.isBlockDevice()
              ? 'block'
              : stat.isFIFO()
                ? 'fifo'
                : 'socket';
    const first = type === 'folder' ? undefined : inodes.get(stat.ino);
    if (first === undefined) inodes.set(stat.ino, name);
    nodes.set(name, {
      type,
      mode: (stat.mode & 0o7777n).toString(8),
      owner: `${stat.uid}:${stat.gid}`,
      mtime: stat.mtimeNs,
      content:
        type === 'file'
          ? createHash('sha256').update(readFileSync(path)).digest('hex')
          : type === 'link'
            ? readlinkSync(path, 'latin1')
            : type === 'character' || type === 'block'
              ? `${major(stat.rdev)}:${minor(stat.rdev)}`
              : '',
      same: first,
      xattrs: Object.fromEntries(
        native()
          .llistxattr(path)
          .map(attribute => [
            Buffer.from(attribute).toString('latin1'),
            Buffer.from(native().lgetxattr(path, attribute)).toString('latin1'),
          ]),
      ),
    });
    if (type !== 'folder') return;
    const names = readdirSync(path, { encoding: 'buffer' }).sort(Buffer.compare);
    for (const child of names) {
      visit(
        Buffer.concat([path, Buffer.from('/'), child]),
        name === '' ? child.toString('latin1') : `${name}/${child.toString('latin1')}`,
      );
    }
  };
  visit(Buffer.from(root), '');
  return nodes;
}

function major(device: bigint): bigint {
  return ((device >> 8n) & 0xfffn) | ((device >> 32n) & ~0xfffn);
}

function minor(device: bigint): bigint {
  return (device & 0xffn) | ((device >> 12n) & ~0xffn);
}
