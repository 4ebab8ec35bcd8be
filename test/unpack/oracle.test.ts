/** GNU tar is the oracle: what it makes of an archive and what we make of it must be the same. */
import { execFileSync } from 'node:child_process';
import { lstatSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { beforeAll, describe, expect, it } from 'vitest';
import { debianRootfs } from './debian-rootfs.ts';
import { addWhatPaxKeeps, makeSparse, makeTree, pack } from './sources.ts';
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
