/**
 * Makes EROFS images of archives and shows them by the kernel: mounted in a mount namespace of their own,
 * listed by a process in there.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ErofsIndexer } from '../../stage0/unpack/erofs/index-writer.ts';
import { TarReader } from '../../stage0/unpack/tar-reader.ts';
import type { TreeEntry } from './tree.ts';

export interface Indexed {
  /** Paths of the image and of the tar, which is padded to whole blocks. */
  readonly image: string;
  readonly tar: string;
  readonly indexer: ErofsIndexer;
}

/** @param archive a tar, or the path of one; in chunks of `chunk` bytes */
export function index(archive: Buffer | string, folder: string, chunk = 1 << 20): Indexed {
  const bytes = typeof archive === 'string' ? readFileSync(archive) : archive;
  const indexer = new ErofsIndexer();
  const reader = new TarReader(indexer);
  for (let at = 0; at < bytes.length; at += chunk) reader.write(bytes.subarray(at, at + chunk));
  reader.end();
  const image = join(folder, 'image.erofs');
  writeFileSync(image, Buffer.concat([...indexer.finish(bytes.length)]));
  if (typeof archive === 'string') return { image, tar: archive, indexer };
  const tar = join(folder, 'layer.tar');
  writeFileSync(tar, Buffer.concat([bytes, Buffer.alloc((512 - (bytes.length % 512)) % 512)]));
  return { image, tar, indexer };
}

/** source, target, type, flags, data of mount(2) */
export type Mount = readonly [string, string, string, number, string];

const MS_RDONLY = 1;

// mount(8) would set up a loop device
const MOUNT = `
import ctypes, json, os, sys
libc = ctypes.CDLL(None, use_errno=True)
for source, target, kind, flags, data in json.loads(sys.argv[1]):
    os.makedirs(target, exist_ok=True)
    if 'upperdir=' in data:
        for key in ('upperdir=', 'workdir='):
            os.makedirs(data.split(key)[1].split(',')[0])
    text = lambda t: t.encode()
    if libc.mount(text(source), text(target), text(kind), flags, text(data)) != 0:
        sys.exit(f'mount {kind} {data}: {os.strerror(ctypes.get_errno())}')
os.execvp(sys.argv[2], sys.argv[2:])
`;

/** What a command says inside a mount namespace with these mounts. */
export function withMounts(mounts: readonly Mount[], ...command: readonly string[]): string {
  const inside = ['unshare', '-m', '--propagation', 'private', 'python3', '-c', MOUNT];
  const [program = '', ...rest] = [...inside, JSON.stringify(mounts), ...command];
  return execFileSync(program, rest, { encoding: 'utf8', maxBuffer: 1 << 30 });
}

export function erofsMount({ image, tar }: Indexed, target: string): Mount {
  return [image, target, 'erofs', MS_RDONLY, `device=${tar}`];
}

const LIST = fileURLToPath(new URL('list-tree.ts', import.meta.url));

/** The trees at `roots` as listTree gives them. */
export function listMounted(
  mounts: readonly Mount[],
  roots: readonly string[],
): Map<string, TreeEntry>[] {
  const said = withMounts(mounts, process.execPath, LIST, ...roots);
  const trees: [string, TreeEntry][][] = JSON.parse(said, (key, value: unknown) =>
    key === 'mtime' && typeof value === 'string' ? BigInt(value) : value,
  );
  return trees.map(entries => new Map(entries));
}

function only<T>([one]: readonly T[]): T {
  if (one === undefined) throw new Error('nothing was listed');
  return one;
}

/** The tree of an image as the kernel shows it. */
export function mountedTree(indexed: Indexed, folder: string): Map<string, TreeEntry> {
  const root = join(folder, 'mounted');
  return only(listMounted([erofsMount(indexed, root)], [root]));
}

/** The tree of an image through an overlay, whose upper layer is empty. */
export function overlaidTree(indexed: Indexed, folder: string): Map<string, TreeEntry> {
  const lower = join(folder, 'lower');
  const top = join(folder, 'top');
  const root = join(folder, 'overlaid');
  const layers = `lowerdir=${lower},upperdir=${top}/upper,workdir=${top}/work`;
  const mounts: readonly Mount[] = [
    erofsMount(indexed, lower),
    ['tmpfs', top, 'tmpfs', 0, 'mode=0755'],
    ['overlay', root, 'overlay', 0, layers],
  ];
  return only(listMounted(mounts, [root]));
}
