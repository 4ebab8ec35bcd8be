/** What `image verify` finds, and which images `image gc` lets go for a size budget. */
import {
  chmodSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Digest } from '../../src/image/digest.ts';
import { openStore } from '../../src/store/store.ts';
import { treeDifference } from '../../src/store/tree-difference.ts';
import type { ImageRecord, Store } from '../../src/store/types.ts';
import { verifyImage } from '../../src/store/verify-image.ts';
import { directoryForm } from '../../stage0/unpack/directory.ts';
import { makeErofsForm } from '../../stage0/unpack/erofs/form.ts';
import { addTestImage, plainTree, temporaryFolder, testImage } from '../store/support.ts';
import { tar } from '../unpack/tar-writer.ts';

let folder: ReturnType<typeof temporaryFolder>;
let store: Store;

beforeEach(() => {
  folder = temporaryFolder();
  store = openStore(folder.path, { forms: [directoryForm] });
});

afterEach(async () => {
  await store.layers.rest();
  store.close();
  folder[Symbol.dispose]();
});

const LAYER = tar(
  { name: 'etc/', type: '5', mode: 0o755 },
  { name: 'etc/passwd', data: 'root:x:0:0::/:/bin/sh\n', mode: 0o644 },
  { name: 'etc/same', type: '1', link: 'etc/passwd' },
  { name: 'etc/link', type: '2', link: 'passwd' },
);

describe('image verify', () => {
  let image: ImageRecord;
  let tree: string;
  const verify = (used: readonly Digest[] = []) => verifyImage(store, image, new Set(used));

  beforeEach(async () => {
    image = await addTestImage(store, testImage('one', [LAYER]), 'docker://h.x/one:1');
    tree = plainTree(store, image.layers[0]?.diffId ?? image.id);
  });

  test('what nobody touched is whole, and nothing is left of the look', async () => {
    expect(await verify()).toMatchObject([{ state: 'whole' }]);
    expect(readdirSync(join(folder.path, 'cas/v1/tmp'))).toEqual([]);
  });

  test.each([
    ['content', () => writeFileSync(join(tree, 'etc/passwd'), 'root::0:0::/:/bin/sh\n\n')],
    ['mode', () => chmodSync(join(tree, 'etc'), 0o777)],
    ['a file less', () => rmSync(join(tree, 'etc/same'))],
    ['a file more', () => writeFileSync(join(tree, 'etc/evil'), '')],
    ['a time', () => utimesSync(join(tree, 'etc/passwd'), 1, 1)],
    ['everything', () => rmSync(tree, { recursive: true })],
  ])('%s: found, and made again', async (_, damage) => {
    damage();
    expect(await verify()).toMatchObject([{ state: 'rebuilt', difference: expect.any(String) }]);
    expect(await verify()).toMatchObject([{ state: 'whole' }]);
  });

  test('a damaged layer that pods use is told and left', async () => {
    chmodSync(join(tree, 'etc'), 0o777);
    const used = image.layers.map(({ diffId }) => diffId);
    const difference = 'etc: its mode';
    expect(await verify(used)).toMatchObject([{ state: 'in-use', difference }]);
    expect(await verify(used)).toMatchObject([{ state: 'in-use' }]);
  });

  test('a damaged blob is told, and out of the way for the next fetch', async () => {
    const digest = image.layers[0]?.blob.digest ?? image.id;
    writeFileSync(store.blobs.path(digest), 'other');
    await expect(verify()).rejects.toMatchObject({ code: 'store' });
    expect(store.blobs.has(digest)).toBe(false);
    expect(store.layers.has(image.layers[0]?.diffId ?? image.id)).toBe(true);
  });
});

describe('image verify of a layer as EROFS', () => {
  let erofs: Store;
  let image: ImageRecord;
  let tree: string;
  const verify = (used: readonly Digest[] = []) => verifyImage(erofs, image, new Set(used));

  beforeEach(async () => {
    const dir = join(folder.path, 'erofs');
    // Nothing is mounted here: it works where the kernel has no EROFS, too.
    const form = { ...makeErofsForm(dir), unavailable: () => undefined };
    erofs = openStore(dir, { forms: [form] });
    image = await addTestImage(erofs, testImage('two', [LAYER]), 'docker://h.x/two:1');
    const kept = erofs.layers.tree(image.layers[0]?.diffId ?? image.id);
    if (kept.form !== 'erofs') throw new Error('the form was asked for');
    tree = dirname(kept.tar);
  });
  afterEach(async () => {
    await erofs.layers.rest();
    erofs.close();
  });

  const flip = (name: string, at: number) => {
    const bytes = readFileSync(join(tree, name));
    bytes[at] = (bytes[at] ?? 0) ^ 1;
    writeFileSync(join(tree, name), bytes);
  };
  test.each([
    ['the tar', 'layer.tar: its content', () => flip('layer.tar', 1200)],
    ['a shorter tar', 'layer.tar: its size', () => truncateSync(join(tree, 'layer.tar'), 1024)],
    ['the index', 'meta.erofs: its content', () => flip('meta.erofs', 1600)],
    ['the superblock', 'meta.erofs: its content', () => flip('meta.erofs', 1024)],
    ['no index', 'it is missing|it is another', () => rmSync(join(tree, 'meta.erofs'))],
    ['the record', 'erofs.json: its', () => writeFileSync(join(tree, 'erofs.json'), '{}')],
    ['a file more', 'it is another|it is missing', () => writeFileSync(join(tree, 'z'), '')],
  ])('%s: found, and made again', async (_, difference, damage) => {
    expect(await verify()).toMatchObject([{ state: 'whole' }]);
    damage();
    const used = image.layers.map(({ diffId }) => diffId);
    const found = { difference: expect.stringMatching(difference) };
    expect(await verify(used)).toMatchObject([{ state: 'in-use', ...found }]);
    expect(await verify()).toMatchObject([{ state: 'rebuilt', ...found }]);
    expect(await verify()).toMatchObject([{ state: 'whole' }]);
    expect(readdirSync(join(folder.path, 'erofs/cas/v1/tmp'))).toEqual([]);
  });
});

test('names of one file are not names of two', () => {
  for (const tree of ['one', 'two']) {
    mkdirSync(join(folder.path, tree));
    for (const name of ['a', 'c']) writeFileSync(join(folder.path, tree, name), 'x');
  }
  // Each file has two names in both, but not with the same one.
  linkSync(join(folder.path, 'one/a'), join(folder.path, 'one/b'));
  linkSync(join(folder.path, 'one/c'), join(folder.path, 'one/d'));
  linkSync(join(folder.path, 'two/c'), join(folder.path, 'two/b'));
  linkSync(join(folder.path, 'two/a'), join(folder.path, 'two/d'));
  const difference = () =>
    treeDifference(join(folder.path, 'one'), join(folder.path, 'two'), { times: false });
  expect(difference()).toBe('c: its hard links');
  expect(treeDifference(join(folder.path, 'one'), join(folder.path, 'one'), { times: true })).toBe(
    undefined,
  );
});

describe('image gc by size', () => {
  test('the least recently used go until the rest fits; what a pod uses stays', async () => {
    const images: ImageRecord[] = [];
    for (const name of ['a', 'b', 'c']) {
      const layer = tar({ name, data: name.repeat(100_000) });
      images.push(await addTestImage(store, testImage(name, [layer]), `docker://h.x/${name}:1`));
      await new Promise(resolve => setTimeout(resolve, 5));
    }
    const [a, b, c] = images;
    if (a === undefined || b === undefined || c === undefined) throw new Error('three images');
    const uses = [
      {
        id: a.id,
        manifestDigest: a.manifestDigest,
        name: 'a',
        layers: a.layers.map(({ diffId }) => diffId),
        verdict: a.verdict,
      },
    ];
    const budget = { graceMs: Number.POSITIVE_INFINITY, maxBytes: 500_000 };
    const options = { ...budget, inUse: () => uses };
    const names = () => store.images().map(({ id }) => id);
    expect(store.gc({ ...options, dryRun: true })).toMatchObject({ images: [b.id], layers: [] });
    expect(names()).toHaveLength(3);
    expect(store.gc(options).images).toEqual([b.id]);
    expect(names().sort()).toEqual([a.id, c.id].sort());
    expect(store.gc({ ...options, maxBytes: 0 }).images).toEqual([c.id]);
    expect(store.gc({ ...options, maxBytes: 0, inUse: () => [] }).images).toEqual([a.id]);
  });
});
