/**
 * Layers merged as a stream have to give what the Extractor and the flattener make of the same layers on disk:
 * two ways that share neither the tree nor the writer.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, mkdirSync, openSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { TspodError } from '../../src/errors.ts';
import { parseDigest } from '../../src/image/digest.ts';
import { DEFAULT_BOUNDS } from '../../stage0/unpack/bounds.ts';
import { flattenLayers } from '../../stage0/unpack/flatten.ts';
import { mergeLayers } from '../../stage0/unpack/merge/merge-layers.ts';
import { cases, fuzzTimeout } from '../support/fuzz.ts';
import { addWhatPaxKeeps, makeSparse, makeTree, pack } from '../unpack/sources.ts';
import { type Member, tar } from '../unpack/tar-writer.ts';
import { differences, listTree, type TreeEntry } from '../unpack/tree.ts';
import { gnuUnpack, testFolder, unpack } from '../unpack/unpacking.ts';

/** The archives, lowest first, as one tar. */
async function merged(archives: readonly Buffer[], prefix = ''): Promise<Buffer> {
  const folder = testFolder();
  const pieces: Buffer[] = [];
  const layers = archives.map((archive, at) => {
    const path = join(folder, String(at));
    const isPacked = at % 2 === 1;
    writeFileSync(path, isPacked ? gzipSync(archive, { level: 1 }) : archive);
    const hex = createHash('sha256').update(archive).digest('hex');
    return {
      fd: openSync(path, 'r'),
      compression: isPacked ? ('gzip' as const) : ('none' as const),
      transform: undefined,
      diffId: parseDigest(`sha256:${hex}`, 'test'),
    };
  });
  try {
    await mergeLayers(layers, {
      bounds: DEFAULT_BOUNDS,
      prefix,
      write: piece => pieces.push(Buffer.from(piece)),
      working: () => undefined,
    });
  } finally {
    for (const { fd } of layers) closeSync(fd);
  }
  return Buffer.concat(pieces);
}

async function flattened(archives: readonly Buffer[]): Promise<string> {
  const layers: string[] = [];
  for (const archive of archives) layers.push((await unpack(archive)).root);
  const target = join(testFolder(), 'target');
  mkdirSync(target);
  await flattenLayers(layers, target);
  return target;
}

/** Folders that no archive names have the time of 1970 here, and that of the unpacking there. */
function comparable(tree: Map<string, TreeEntry>, stream: Map<string, TreeEntry>) {
  return new Map(
    [...tree].map(([name, entry]) => [
      name,
      stream.get(name)?.mtime === 0n || name === '.' ? { ...entry, mtime: 0n } : entry,
    ]),
  );
}

async function expectSame(archives: readonly Buffer[], why = ''): Promise<void> {
  const onDisk = listTree(await flattened(archives));
  const bytes = await merged(archives);
  const stream = listTree((await unpack(bytes)).root);
  expect(differences(comparable(onDisk, stream), comparable(stream, stream)), why).toEqual({});
  expect((await merged(archives)).equals(bytes)).toBe(true);
}

describe('layers as one tar', () => {
  it('whiteouts, opaque folders, types that change, hard links', async () => {
    const archives = [
      tar(
        { name: './', type: '5', mode: 0o751, uid: 3 },
        { name: 'etc/', type: '5', mode: 0o700, mtime: 100 },
        { name: 'etc/gone', data: 'gone' },
        { name: 'opaque/old', data: 'old' },
        { name: 'folder/below', data: 'below' },
        { name: 'tree/deep/below', data: 'below' },
        { name: 'was-file', data: 'file' },
        { name: 'was-folder/x', data: 'x' },
        { name: 'was-link', type: '2', link: 'etc' },
        { name: 'h1', data: 'hard', uid: 7, mode: 0o4755 },
        { name: 'h2', type: '1', link: 'h1' },
        { name: 'h3', type: '1', link: 'h1' },
        { name: 'fifo', type: '6', mode: 0o600 },
        { name: 'null', type: '3', major: 1, minor: 3, mode: 0o666, gid: 9 },
      ),
      tar(
        { name: 'etc/', type: '5', mode: 0o755, mtime: 200, gid: 4 },
        { name: 'etc/.wh.gone' },
        { name: 'opaque/.wh..wh..opq' },
        { name: 'opaque/new', data: 'new' },
        { name: '.wh.folder' },
        { name: 'folder/above', data: 'above' },
        { name: 'was-file/now', data: 'folder' },
        { name: 'was-folder', data: 'file' },
        { name: 'was-link/now', data: 'folder' },
        { name: '.wh.h1' },
      ),
      tar({ name: 'etc/gone', data: 'back' }, { name: 'h2', data: 'another' }),
    ];
    await expectSame(archives);
    const tree = listTree((await unpack(await merged(archives))).root);
    // The name that is left of a file with three has its data.
    expect(tree.get('h3')).toMatchObject({ size: 4, nlink: 1, mode: '4755', uid: 7 });
    expect(tree.has('h1')).toBe(false);
  });

  it('an opaque root hides all that is below', async () => {
    await expectSame([
      tar({ name: 'low', data: 'x' }, { name: 'd/low', data: 'x' }),
      tar({ name: '.wh..wh..opq' }, { name: 'high', data: 'y' }),
    ]);
  });

  it('what PAX and GNU tar can say; GNU tar reads it', async () => {
    const source = join(testFolder(), 'source');
    mkdirSync(source);
    makeTree(source);
    addWhatPaxKeeps(source);
    makeSparse(source);
    const archive = pack(source, '--format=posix', '--sparse', '--xattrs', '--xattrs-include=*');
    await expectSame([archive]);
    const bytes = await merged([archive]);
    expect(bytes.length).toBeLessThan(10_000_000);
    const gnu = gnuUnpack(bytes, testFolder(), ['--delay-directory-restore']);
    expect(differences(listTree(source), listTree(gnu))).toEqual({});
    const python = 'import sys,tarfile; print(len(tarfile.open(sys.argv[1]).getmembers()))';
    const path = join(testFolder(), 'x.tar');
    writeFileSync(path, bytes);
    const count = execFileSync('python3', ['-c', python, path], { encoding: 'utf8' });
    expect(Number(count)).toBe(listTree(source).size);
  });

  it('a prefix stands before names and targets of hard links, not of symbolic ones', async () => {
    const bytes = await merged(
      [
        tar(
          { name: 'a', data: 'x' },
          { name: 'b', type: '1', link: 'a' },
          { name: 'c', type: '2', link: 'a' },
        ),
      ],
      'rootfs/',
    );
    const tree = listTree((await unpack(bytes)).root);
    expect([...tree.keys()]).toEqual(['.', 'rootfs', 'rootfs/a', 'rootfs/b', 'rootfs/c']);
    expect(tree.get('rootfs/b')?.inode).toBe('rootfs/a');
    expect(tree.get('rootfs/c')?.link).toBe('a');
  });

  it('a layer that is not its diff-id is refused', async () => {
    const folder = testFolder();
    writeFileSync(join(folder, 'x'), tar({ name: 'a', data: 'x' }));
    const fd = openSync(join(folder, 'x'), 'r');
    const diffId = parseDigest(`sha256:${'0'.repeat(64)}`, 'test');
    const layer = { fd, compression: 'none' as const, transform: undefined, diffId };
    const options = { bounds: DEFAULT_BOUNDS, prefix: '', write: () => {}, working: () => {} };
    await expect(mergeLayers([layer], options)).rejects.toThrow(/its blob gives sha256:/);
    closeSync(fd);
  });
});

const part = fc.constantFrom('a', 'b', 'c', 'l', '\xff');
const name = fc
  .array(part, { minLength: 1, maxLength: 3 })
  .map(parts => Buffer.from(parts.join('/'), 'latin1'));
const member: fc.Arbitrary<Member> = fc.record({
  name: fc.oneof(
    { weight: 6, arbitrary: name },
    {
      weight: 2,
      arbitrary: fc.tuple(name, part).map(([folder, base]) => `${folder}/.wh.${base}`),
    },
    { weight: 1, arbitrary: part.map(base => `.wh.${base}`) },
    { weight: 1, arbitrary: name.map(folder => `${folder}/.wh..wh..opq`) },
  ),
  type: fc.oneof(
    { weight: 4, arbitrary: fc.constant('0') },
    { weight: 4, arbitrary: fc.constant('5') },
    { weight: 2, arbitrary: fc.constantFrom('1', '2') },
    { weight: 1, arbitrary: fc.constantFrom('3', '6') },
  ),
  link: name,
  mode: fc.integer({ min: 0, max: 0o7777 }),
  uid: fc.constantFrom(0, 1, 65_536, 2_097_151),
  mtime: fc.constantFrom(1, 1_700_000_000, 4_294_967_296),
  major: fc.constant(1),
  minor: fc.constant(3),
});

describe('random stacks of layers', () => {
  it(
    'give what flattening their trees gives',
    async () => {
      const stacks = fc.sample(
        fc.array(fc.array(member, { minLength: 1, maxLength: 6 }), { minLength: 2, maxLength: 3 }),
        cases(40),
      );
      let same = 0;
      for (const stack of stacks) {
        const archives = stack.map(members =>
          tar(...members.map(one => ({ ...one, data: one.type === '0' ? String(one.mode) : '' }))),
        );
        let onDisk: string | undefined;
        try {
          onDisk = await flattened(archives);
        } catch (error) {
          if (!(error instanceof TspodError)) throw error;
        }
        const why = JSON.stringify(stack);
        if (onDisk === undefined) {
          await expect(merged(archives), why).rejects.toThrow(TspodError);
          continue;
        }
        const stream = listTree((await unpack(await merged(archives))).root);
        const disk = listTree(onDisk);
        expect(differences(comparable(disk, stream), comparable(stream, stream)), why).toEqual({});
        same += 1;
      }
      expect(same).toBeGreaterThan(stacks.length / 4);
    },
    fuzzTimeout(300_000),
  );
});
