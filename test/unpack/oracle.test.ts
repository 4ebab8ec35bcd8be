/** GNU tar is the oracle: what it makes of an archive and what we make of it must be the same. */
import { execFileSync } from 'node:child_process';
import {
  closeSync,
  ftruncateSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { beforeAll, describe, expect, it } from 'vitest';
import { native } from '../../src/sys/native.ts';
import { debianRootfs } from './debian-rootfs.ts';
import { differences, listTree } from './tree.ts';
import { gnuUnpack, testFolder, unpack } from './unpacking.ts';

async function expectAsGnu(archive: Buffer | string): Promise<void> {
  const folder = testFolder();
  const expected = listTree(gnuUnpack(archive, folder));
  const { root } = await unpack(archive, { folder });
  expect(differences(expected, listTree(root))).toEqual({});
}

describe('a Debian root filesystem', () => {
  let file: string;
  beforeAll(() => {
    file = debianRootfs();
  }, 300_000);

  it('is unpacked as GNU tar does', async () => {
    await expectAsGnu(file);
  }, 120_000);
});

/** A tree with everything that a format may or may not keep. */
function makeTree(root: string): void {
  mkdirSync(join(root, 'a/b'), { recursive: true });
  writeFileSync(join(root, 'a/file'), 'content');
  writeFileSync(join(root, 'a/large'), Buffer.alloc(3_000_001, 'large '));
  writeFileSync(join(root, 'empty'), '');
  writeFileSync(join(root, 'exactly'), 'x'.repeat(512));
  linkSync(join(root, 'a/file'), join(root, 'a/b/hard'));
  symlinkSync('../nowhere/$x', join(root, 'a/b/soft'));
  linkSync(join(root, 'a/b/soft'), join(root, 'soft-hard'));
  const { lchown, mknod, lutimes } = native();
  lchown(join(root, 'a/b/soft'), 12, 34);
  lutimes(join(root, 'a/b/soft'), 5, 6, 1_000_000_007, 0);
  lchown(join(root, 'a/file'), 1234, 65_534);
  execFileSync('chmod', ['6755', join(root, 'a/file')]);
  execFileSync('chmod', ['1777', join(root, 'a/b')]);
  execFileSync('chmod', ['0000', join(root, 'empty')]);
  mknod(join(root, 'fifo'), 0o010640, 0, 0);
  mknod(join(root, 'char'), 0o020660, 5, 1);
  mknod(join(root, 'block'), 0o060600, 259, 70);
  lutimes(join(root, 'a'), 0, 0, 123_456_789, 0);
}

function addWhatPaxKeeps(root: string): void {
  const { lsetxattr, lutimes } = native();
  const deep = join(root, 'd'.repeat(120), 'e'.repeat(120), 'f'.repeat(120));
  mkdirSync(deep, { recursive: true });
  writeFileSync(join(deep, 'g'.repeat(200)), 'deep');
  symlinkSync('t'.repeat(300), join(deep, 'long-link'));
  writeFileSync(
    Buffer.concat([Buffer.from(root), Buffer.from('/caf\xe9 \xff\n', 'latin1')]),
    'bytes',
  );
  lsetxattr(join(root, 'a/file'), 'user.with=equals', Buffer.from([0, 1, 10, 255]));
  lsetxattr(join(root, 'a/file'), 'user.empty', Buffer.alloc(0));
  lsetxattr(join(root, 'a'), 'trusted.folder', Buffer.from('yes'));
  lsetxattr(join(root, 'a/b/soft'), 'trusted.link', Buffer.from('yes'));
  // cap_net_raw=ep, version 2
  const capability = Buffer.from('0100000200200000000000000000000000000000', 'hex');
  lsetxattr(join(root, 'a/large'), 'security.capability', capability);
  lutimes(join(root, 'a/large'), 0, 0, 1_234_567_890, 123_456_789);
  lutimes(join(root, 'a/b/soft'), 0, 0, -5, 250_000_000);
  lutimes(join(root, 'a'), 0, 0, 1_600_000_000, 1);
}

function makeSparse(root: string): void {
  const file = (name: string, size: number, at: readonly number[]) => {
    const fd = openSync(join(root, name), 'w');
    for (const position of at) writeSync(fd, Buffer.alloc(4096, name), 0, 4096, position);
    ftruncateSync(fd, size);
    closeSync(fd);
  };
  file('hole-only', 10_000_000, []);
  file('hole-first', 1_000_000, [999_424 - 4096]);
  file(
    'holes',
    50_000_001,
    Array.from({ length: 60 }, (_, index) => index * 819_200),
  );
}

function pack(root: string, ...flags: string[]): Buffer {
  return execFileSync('tar', [...flags, '-cf', '-', '-C', root, '.'], {
    maxBuffer: 1 << 30,
    stdio: ['ignore', 'pipe', 'ignore'],
  });
}

describe("archives by GNU tar's formats", () => {
  const rich = ['gnu', 'pax'];
  it.each(['v7', 'oldgnu', 'gnu', 'ustar', 'pax'])('%s', async format => {
    const source = testFolder();
    makeTree(source);
    if (rich.includes(format)) addWhatPaxKeeps(source);
    const attributes = format === 'pax' ? ['--xattrs', '--xattrs-include=*'] : [];
    if (format === 'v7')
      for (const name of ['fifo', 'char', 'block']) execFileSync('rm', [join(source, name)]);
    await expectAsGnu(pack(source, `--format=${format}`, ...attributes));
  });

  it.each([
    'gnu --sparse',
    ...['0.0', '0.1', '1.0'].map(v => `pax --sparse --sparse-version=${v}`),
  ])('sparse: %s', async text => {
    const source = testFolder();
    makeSparse(source);
    const [format, ...flags] = text.split(' ');
    const folder = testFolder();
    const archive = pack(source, `--format=${format}`, ...flags);
    expect(archive.length).toBeLessThan(1_000_000);
    const expected = listTree(gnuUnpack(archive, folder));
    const { root } = await unpack(archive, { folder });
    expect(differences(expected, listTree(root))).toEqual({});
    expect(lstatSync(join(root, 'holes')).blocks).toBeLessThan(2000);
  });
});

describe('compression', () => {
  const archive = (): Buffer => {
    const source = testFolder();
    makeTree(source);
    return pack(source);
  };

  it.each([
    ['gzip', gzipSync],
    ['zstd', zstdCompressSync],
  ] as const)('%s, in one piece and in several', async (compression, compress) => {
    const plain = archive();
    const folder = testFolder();
    const expected = await unpack(plain, { folder });
    const half = 1_000_000;
    const pieces = [plain.subarray(0, half), plain.subarray(half)];
    for (const compressed of [
      compress(plain),
      Buffer.concat(pieces.map(piece => compress(piece))),
    ]) {
      const actual = await unpack(compressed, { compression });
      expect(actual.diffId).toBe(expected.diffId);
      expect(differences(listTree(expected.root), listTree(actual.root))).toEqual({});
    }
  });

  it('zstd with a skippable frame behind it', async () => {
    const plain = archive();
    const skippable = Buffer.alloc(8 + 100);
    skippable.writeUInt32LE(0x184d2a50, 0);
    skippable.writeUInt32LE(100, 4);
    const compressed = Buffer.concat([zstdCompressSync(plain), skippable]);
    const { diffId } = await unpack(compressed, { compression: 'zstd' });
    expect(diffId).toBe((await unpack(plain)).diffId);
  });

  it('truncated data is an error', async () => {
    const plain = archive();
    for (const [compression, bytes] of [
      ['gzip', gzipSync(plain)],
      ['zstd', zstdCompressSync(plain)],
    ] as const) {
      const cut = bytes.subarray(0, bytes.length - 100);
      await expect(unpack(cut, { compression })).rejects.toMatchObject({ code: 'unpack' });
    }
  });

  it('refuses bzip2 and xz by name', async () => {
    await expect(unpack(Buffer.alloc(0), { compression: 'xz' })).rejects.toThrow(/xz/);
    await expect(unpack(Buffer.alloc(0), { compression: 'bzip2' })).rejects.toThrow(/bzip2/);
  });
});
