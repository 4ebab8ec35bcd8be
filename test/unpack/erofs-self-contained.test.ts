/**
 * Self-contained images of layers: the kernel shows what GNU tar unpacks, fsck.erofs of two generations finds nothing
 * wrong, and both forms of a layer give the same image. Random archives: erofs-agreement.test.ts.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { native } from '../../src/sys/native.ts';
import { SELF_CONTAINED } from '../../stage0/unpack/erofs/format.ts';
import { ErofsIndexer } from '../../stage0/unpack/erofs/index-writer.ts';
import { writeSelfContained } from '../../stage0/unpack/erofs/self-contained.ts';
import { TarReader } from '../../stage0/unpack/tar-reader.ts';
import { debianRootfs } from './debian-rootfs.ts';
import { listMounted } from './erofs-image.ts';
import { erofsUtil } from './erofs-utils.ts';
import { addWhatPaxKeeps, makeSparse, makeTree, pack } from './sources.ts';
import { type Member, tar } from './tar-writer.ts';
import { differences, listTree, type TreeEntry } from './tree.ts';
import { gnuUnpack, testFolder, unpack } from './unpacking.ts';

const MS_RDONLY = 1;

function ofTar(archive: Buffer | string, folder: string): string {
  const file = typeof archive === 'string' ? archive : join(folder, 'layer.tar');
  if (typeof archive !== 'string') writeFileSync(file, archive);
  const image = join(folder, 'of-tar.erofs');
  writeSelfContained({ form: 'erofs', tar: file }, image);
  return image;
}

function ofFolder(path: string, folder: string): string {
  const image = join(folder, 'of-folder.erofs');
  writeSelfContained({ form: 'directory', path }, image);
  return image;
}

function mounted(...images: readonly string[]): Map<string, TreeEntry>[] {
  const roots = images.map(image => `${image}.mounted`);
  return listMounted(
    images.map((image, at) => [image, roots[at] ?? '', 'erofs', MS_RDONLY, '']),
    roots,
  );
}

function expectSound(image: string): void {
  const checked = erofsUtil('fsck.erofs', '--extract', image);
  expect(checked).toEqual({ status: 0, text: '' });
  // Debian 12's, which knows nothing but blocks of 4096 bytes.
  const { status, stdout, stderr } = spawnSync('fsck.erofs', [image], { encoding: 'utf8' });
  expect({ status, text: stdout + stderr }).toEqual({ status: 0, text: '' });
  expect(statSync(image).size % 4096).toBe(0);
}

describe('a Debian root filesystem', () => {
  it('is what GNU tar unpacks, the same from both forms, no larger than its tar', () => {
    const file = debianRootfs();
    const folder = testFolder();
    const root = gnuUnpack(file, folder);
    const expected = listTree(root);
    const image = ofTar(file, folder);
    expectSound(image);
    const [tree = new Map()] = mounted(image);
    expect(differences(expected, tree)).toEqual({});
    expect(statSync(image).size).toBeLessThan(statSync(file).size);
    const other = ofFolder(root, folder);
    expect(spawnSync('cmp', [image, other], { encoding: 'utf8' })).toMatchObject({ status: 0 });
  }, 300_000);
});

describe("archives by GNU tar's formats", () => {
  it.each(['gnu', 'pax'])(
    '%s',
    format => {
      const source = testFolder();
      makeTree(source);
      addWhatPaxKeeps(source);
      // The end of a file inline, in a block of its own, and none.
      for (const size of [1, 2000, 4000, 4032, 4095, 4096, 4097, 8191, 300_000, 1_048_577]) {
        writeFileSync(join(source, `size-${size}`), Buffer.alloc(size, `${size} `));
      }
      for (let n = 0; n < 300; n += 1)
        mkdirSync(join(source, 'many', `${'n'.repeat(n % 200)}${n}`), { recursive: true });
      const attributes = format === 'pax' ? ['--xattrs', '--xattrs-include=*'] : [];
      const archive = pack(source, `--format=${format}`, ...attributes);
      const folder = testFolder();
      const root = gnuUnpack(archive, folder);
      const expected = listTree(root);
      const images = [ofTar(archive, folder), ofFolder(root, folder)];
      images.forEach(expectSound);
      for (const tree of mounted(...images)) expect(differences(expected, tree)).toEqual({});
    },
    60_000,
  );

  it.each([
    'gnu --sparse',
    ...['0.0', '0.1', '1.0'].map(v => `pax --sparse --sparse-version=${v}`),
  ])('sparse: %s', text => {
    const source = testFolder();
    makeSparse(source);
    const [format, ...flags] = text.split(' ');
    const archive = pack(source, `--format=${format}`, ...flags);
    const folder = testFolder();
    const expected = listTree(gnuUnpack(archive, folder));
    const image = ofTar(archive, folder);
    expectSound(image);
    const [tree = new Map()] = mounted(image);
    expect(differences(expected, tree)).toEqual({});
    expect(statSync(image).size).toBeLessThan(1_000_000);
  });
});

/** GNU.sparse 0.1: pieces of `data` at `offsets` of a file of `size` bytes. */
function sparse(size: number, offsets: readonly number[], length: number): Member {
  const map = offsets.flatMap(offset => [offset, length]).join();
  return {
    name: 'sparse',
    data: Buffer.from(
      offsets.map((_, at) => String.fromCharCode(97 + (at % 26)).repeat(length)).join(''),
    ),
    pax: {
      'GNU.sparse.size': String(size),
      'GNU.sparse.numblocks': String(offsets.length),
      'GNU.sparse.map': map,
    },
  };
}

describe('sparse files whose pieces lie on no blocks', () => {
  it.each([
    ['within a chunk and across two', 20_000, [1, 100, 4090, 4100, 16_384], 7],
    ['side by side', 9000, [0, 4096, 8192], 808],
    ['longer than what is read at once', 3_000_000, [5, 1_500_001], 700_000],
  ])('%s', async (_, size, offsets, length) => {
    const archive = tar(sparse(size, offsets, length), { name: 'behind', data: 'x'.repeat(9000) });
    const folder = testFolder();
    // GNU tar unpacks only pieces that lie on blocks.
    const expected = listTree((await unpack(archive, { folder })).root);
    const image = ofTar(archive, folder);
    expectSound(image);
    const [tree = new Map()] = mounted(image);
    // The root is the caller's on disk.
    for (const one of [expected, tree]) one.delete('.');
    expect(differences(expected, tree)).toEqual({});
  });

  it('of 16 TiB with little in it: large chunks', () => {
    const size = 16 * 1024 ** 4;
    const folder = testFolder();
    const image = ofTar(tar(sparse(size, [size - 5], 5)), folder);
    const script =
      'import sys; f = open(sys.argv[1], "rb"); f.seek(-7, 2); print(f.tell(), f.read())';
    expect(statSync(image).size).toBeLessThan(64 * 1024 ** 2);
    const said = execFileSync(
      'unshare',
      [
        '-m',
        '--propagation',
        'private',
        'sh',
        '-ec',
        'mount -t erofs -o ro,loop "$1" "$2"; python3 -c "$3" "$2/sparse"',
        'sh',
        image,
        folder,
        script,
      ],
      { encoding: 'utf8' },
    );
    expect(said).toBe(`${size - 7} b'\\x00\\x00aaaaa'\n`);
  });

  it('of 16 TiB with a little everywhere: refused, and nothing is left', () => {
    const size = 16 * 1024 ** 4;
    const offsets = Array.from({ length: 1000 }, (_, n) => Math.floor((n * size) / 1000));
    const folder = testFolder();
    expect(() => ofTar(tar(sparse(size, offsets, 5)), folder)).toThrow(
      /more than the bound of \d+ bytes of image/,
    );
    expect(existsSync(join(folder, 'of-tar.erofs'))).toBe(false);
  });
});

describe('layers under an overlay', () => {
  it.each(['tar', 'folder'])('hide what they say: %s', async form => {
    const lowest = tar(
      { name: 'etc/gone', data: 'gone' },
      { name: 'etc/kept', data: 'kept' },
      { name: 'var/cache/old', data: 'old' },
      { name: 'opt/again/old', data: 'old' },
    );
    const upper = tar(
      { name: 'etc/.wh.gone' },
      { name: 'var/cache/.wh..wh..opq' },
      { name: 'var/cache/new', data: 'new' },
      { name: 'opt/.wh.again' },
      { name: 'opt/again/new', data: 'new' },
    );
    const images: string[] = [];
    for (const archive of [upper, lowest]) {
      const folder = testFolder();
      if (form === 'tar') images.push(ofTar(archive, folder));
      else images.push(ofFolder((await unpack(archive, { folder })).root, folder));
    }
    const folders = images.map(image => `${image}.mounted`);
    const root = testFolder();
    const [tree] = listMounted(
      [
        ...images.map((image, at) => [image, folders[at] ?? '', 'erofs', MS_RDONLY, ''] as const),
        ['overlay', root, 'overlay', MS_RDONLY, `lowerdir=${folders.join(':')}`],
      ],
      [root],
    );
    const files = [...(tree ?? [])].filter(([, { hash }]) => hash !== '').map(([name]) => name);
    expect(files).toEqual(['etc/kept', 'opt/again/new', 'var/cache/new']);
  });
});

describe('writing', () => {
  it('makes the same image by pieces of any size', () => {
    const source = testFolder();
    makeTree(source);
    addWhatPaxKeeps(source);
    makeSparse(source);
    const archive = pack(source, '--format=pax', '--sparse', '--xattrs', '--xattrs-include=*');
    const expected = readFileSync(ofTar(archive, testFolder()));
    for (const piece of [8192, 40_000]) {
      const indexer = new ErofsIndexer({ shape: SELF_CONTAINED });
      const reader = new TarReader(indexer);
      reader.write(archive);
      reader.end();
      const data = indexer.finishWithData(
        archive.length,
        {
          read(file, position, into) {
            const start = 'tarOffset' in file ? file.tarOffset : file.plan.tarOffset;
            archive.copy(into, 0, start + position, start + position + into.length);
          },
        },
        piece,
      );
      expect(Buffer.concat([...data]).equals(expected)).toBe(true);
    }
  });

  it('never writes over a file', () => {
    const folder = testFolder();
    const image = join(folder, 'of-tar.erofs');
    writeFileSync(image, 'theirs');
    expect(() => ofTar(tar({ name: 'x' }), folder)).toThrow(/can't write .*exists/i);
    expect(readFileSync(image, 'utf8')).toBe('theirs');
  });

  it('refuses a tar that was cut off, and leaves nothing', () => {
    const folder = testFolder();
    const file = join(folder, 'cut.tar');
    writeFileSync(file, tar({ name: 'x', data: 'x'.repeat(100_000) }));
    truncateSync(file, 50_000);
    expect(() => ofTar(file, folder)).toThrow();
    expect(existsSync(join(folder, 'of-tar.erofs'))).toBe(false);
  });

  it('refuses a folder with what no layer has', () => {
    const folder = testFolder();
    const root = join(folder, 'root');
    mkdirSync(root);
    native().mknod(join(root, 'socket'), 0o140644, 0, 0);
    expect(() => ofFolder(root, folder)).toThrow(/socket is of a kind that no layer has/);
    expect(existsSync(join(folder, 'of-folder.erofs'))).toBe(false);
  });
});
