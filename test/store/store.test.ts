import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { describe, expect, test } from 'vitest';
import { ensureLayers, holdImage } from '../../src/store/ensure-layers.ts';
import { openStore } from '../../src/store/store.ts';
import type { PodImageUse } from '../../src/store/types.ts';
import {
  addTestImage,
  addTestLayer,
  assertWhole,
  fileForm,
  openTestStore,
  plainTree,
  sha256,
  temporaryFolder,
  testImage,
  VERDICT,
} from './support.ts';

const NAME = 'docker://127.0.0.1:5000/busybox:latest';
const NOBODY = (): PodImageUse[] => [];

describe('opening', () => {
  test('makes nothing before the first write', () => {
    using folder = temporaryFolder();
    const dir = join(folder.path, 'data');
    const store = openTestStore(dir);
    expect(store.images()).toEqual([]);
    expect(store.byName(NAME)).toBeUndefined();
    expect(store.byIdPrefix('abcd')).toBeUndefined();
    expect(store.gc({ graceMs: 0, inUse: NOBODY }).blobs).toEqual([]);
    store.close();
    expect(existsSync(dir)).toBe(false);
  });

  test('CVE-2021-41091, CVE-2024-25621: every folder is 0700, whatever the umask', async () => {
    using folder = temporaryFolder();
    const dir = join(folder.path, 'data');
    const umask = process.umask(0);
    try {
      const store = openTestStore(dir);
      await addTestImage(store, testImage('a', ['one']), NAME);
      store.close();
    } finally {
      process.umask(umask);
    }
    const walk = (path: string): void => {
      if (!statSync(path).isDirectory() || path.endsWith('/tree')) return;
      expect((statSync(path).mode & 0o777).toString(8), path).toBe('700');
      for (const name of readdirSync(path)) walk(join(path, name));
    };
    walk(dir);
  });

  test.each(['cas', 'cas/v1', 'cas/v1/layers', 'cas/v1/blobs'])(
    'CVE-2021-41091: a store whose %s is open to others is refused',
    async name => {
      using folder = temporaryFolder();
      const store = openTestStore(folder.path);
      await addTestImage(store, testImage('a', ['one']), NAME);
      store.close();
      chmodSync(join(folder.path, name), 0o755);
      expect(() => openTestStore(folder.path)).toThrow(/has mode 0755, so others can get in/);
      chmodSync(join(folder.path, name), 0o711);
      openTestStore(folder.path).close();
    },
  );

  test('a store of a newer schema is refused by name', async () => {
    using folder = temporaryFolder();
    const store = openTestStore(folder.path);
    await addTestImage(store, testImage('a', ['one']), NAME);
    store.close();
    const db = new DatabaseSync(join(folder.path, 'cas/v1/store.db'));
    db.exec('PRAGMA user_version = 7');
    db.close();
    expect(() => openTestStore(folder.path).images()).toThrow(
      /has schema 7, and this tspod knows up to 4/,
    );
  });

  test('a store of an older schema is brought up to date', async () => {
    using folder = temporaryFolder();
    const store = openTestStore(folder.path);
    const { id } = await addTestImage(store, testImage('a', ['one']), NAME);
    store.close();
    const db = new DatabaseSync(join(folder.path, 'cas/v1/store.db'));
    db.exec(`
      DROP TABLE downloads;
      ALTER TABLE images DROP COLUMN appc_id;
      ALTER TABLE images DROP COLUMN appc_manifest;
      ALTER TABLE images DROP COLUMN verdict;
      PRAGMA user_version = 1;
    `);
    db.close();
    const newer = openTestStore(folder.path);
    expect(newer.byName(NAME)).toMatchObject({ id, names: [NAME] });
    newer.setDownload(NAME, { etag: '"x"', freshUntil: 7 });
    expect(newer.download(NAME)).toEqual({ etag: '"x"', freshUntil: 7 });
    newer.removeImage(id);
    expect(newer.download(NAME)).toBeUndefined();
    newer.close();
  });

  test('a data folder that is a file is refused', () => {
    using folder = temporaryFolder();
    const file = join(folder.path, 'file');
    writeFileSync(file, '');
    expect(() => openTestStore(file)).toThrow(/is not a folder/);
  });

  test('read only: reads, makes nothing, refuses writes', async () => {
    using folder = temporaryFolder();
    const store = openTestStore(folder.path);
    const image = await addTestImage(store, testImage('a', ['one']), NAME);
    store.close();
    const reader = openStore(folder.path, { forms: [fileForm], readOnly: true });
    expect(reader.byName(NAME)).toEqual(image);
    expect(() => reader.lease()).toThrow(/opened for reading/);
    expect(() => reader.removeImage(image.id)).toThrow(/opened for reading/);
    reader.close();
  });
});

describe('the database', () => {
  test.each(['lost', 'damaged'])('%s: is rebuilt from the image records', async how => {
    using folder = temporaryFolder();
    const store = openTestStore(folder.path);
    await addTestImage(store, testImage('a', ['one']), NAME);
    await addTestImage(store, testImage('b', ['one', 'two']), NAME);
    await addTestImage(store, testImage('b', ['one', 'two']), 'other');
    const before = store.images();
    store.close();
    const path = join(folder.path, 'cas/v1/store.db');
    if (how === 'damaged') {
      const bytes = readFileSync(path);
      bytes.fill(0x55, 100, 4000);
      writeFileSync(path, bytes);
      const broken = openTestStore(folder.path);
      expect(() => broken.images()).toThrow(/store\.db is damaged/);
      broken.close();
    }
    rmSync(path);
    const reader = openStore(folder.path, { forms: [fileForm], readOnly: true });
    expect(() => reader.images()).toThrow(/missing or unfinished/);
    const again = openTestStore(folder.path);
    expect(again.images()).toEqual(before);
    again.close();
  });
});

test('a name that went with its image does not come back when the database is rebuilt', async () => {
  using folder = temporaryFolder();
  const store = openTestStore(folder.path);
  const first = await addTestImage(store, testImage('a', ['one']), NAME);
  age(folder.path, first.id, 3600);
  const { lastUsedAt } = store.byIdPrefix(first.id) ?? first;
  const second = await addTestImage(store, testImage('b', ['one']), NAME);
  expect(store.byIdPrefix(first.id)?.lastUsedAt).toBe(lastUsedAt);
  store.removeImage(second.id);
  store.close();
  rmSync(join(folder.path, 'cas/v1/store.db'));
  const again = openTestStore(folder.path);
  expect(again.byName(NAME)).toBeUndefined();
  expect(again.images().map(image => image.id)).toEqual([first.id]);
});

describe('blobs', () => {
  const bytes = Buffer.from('some content of a blob');
  const descriptor = { mediaType: 'x', digest: sha256(bytes), size: bytes.length };

  test('written in chunks, read back', async () => {
    using folder = temporaryFolder();
    const { blobs } = openTestStore(folder.path);
    const writer = await blobs.open(descriptor);
    writer?.write(bytes.subarray(0, 5));
    writer?.write(bytes.subarray(5));
    expect(blobs.has(descriptor.digest)).toBe(false);
    writer?.commit();
    expect(blobs.has(descriptor.digest)).toBe(true);
    expect(Buffer.from(blobs.read(descriptor.digest, 100))).toEqual(bytes);
    expect(() => blobs.read(descriptor.digest, 5)).toThrow(/over the limit of 5/);
    expect(await blobs.open(descriptor)).toBeUndefined();
  });

  test.each([
    ['wrong content', Buffer.from('SOME content of a blob'), /its content has the digest sha256:/],
    ['too short', bytes.subarray(1), /ended after 21 of 22 bytes/],
    ['too long', Buffer.concat([bytes, bytes]), /longer than the 22 bytes of its descriptor/],
  ])('%s: refused, and nothing is left', async (_, content, message) => {
    using folder = temporaryFolder();
    const { blobs } = openTestStore(folder.path);
    const writer = await blobs.open(descriptor);
    expect(() => {
      writer?.write(content);
      writer?.commit();
    }).toThrow(message);
    expect(blobs.has(descriptor.digest)).toBe(false);
    expect(readdirSync(join(folder.path, 'cas/v1/tmp'))).toEqual([]);
  });

  test('an interrupted one is resumed', async () => {
    using folder = temporaryFolder();
    const { blobs } = openTestStore(folder.path);
    const first = await blobs.open(descriptor);
    first?.write(bytes.subarray(0, 7));
    first?.suspend();
    const second = await blobs.open(descriptor);
    expect(second?.offset).toBe(7);
    second?.write(bytes.subarray(7));
    second?.commit();
    expect(Buffer.from(blobs.read(descriptor.digest, 100))).toEqual(bytes);
  });

  test('a damaged partial file is found out, and the next attempt starts anew', async () => {
    using folder = temporaryFolder();
    const { blobs } = openTestStore(folder.path);
    const first = await blobs.open(descriptor);
    first?.write(Buffer.alloc(7));
    first?.suspend();
    const second = await blobs.open(descriptor);
    expect(() => {
      second?.write(bytes.subarray(7));
      second?.commit();
    }).toThrow(/its content has the digest/);
    expect((await blobs.open(descriptor))?.offset).toBe(0);
  });

  test('a partial file that is complete needs no writer', async () => {
    using folder = temporaryFolder();
    const { blobs } = openTestStore(folder.path);
    const first = await blobs.open(descriptor);
    first?.write(bytes);
    first?.suspend();
    expect(await blobs.open(descriptor)).toBeUndefined();
    expect(blobs.has(descriptor.digest)).toBe(true);
  });

  test('a second writer waits, and finds it done', async () => {
    using folder = temporaryFolder();
    const first = await openTestStore(folder.path).blobs.open(descriptor);
    let waited = 0;
    const second = openTestStore(folder.path).blobs.open(descriptor, () => waited++);
    await new Promise(resolve => setTimeout(resolve, 100));
    first?.write(bytes);
    first?.commit();
    expect(await second).toBeUndefined();
    expect(waited).toBe(1);
  });

  test('a damaged blob is named, put aside, and can be fetched again', async () => {
    using folder = temporaryFolder();
    const { blobs } = openTestStore(folder.path);
    blobs.put(bytes, descriptor.digest);
    writeFileSync(blobs.path(descriptor.digest), 'something else');
    expect(() => blobs.read(descriptor.digest, 100)).toThrow(/its content is damaged/);
    expect(blobs.has(descriptor.digest)).toBe(false);
    blobs.put(bytes, descriptor.digest);
    expect(Buffer.from(blobs.read(descriptor.digest, 100))).toEqual(bytes);
  });

  test('sha512, and the empty blob', async () => {
    using folder = temporaryFolder();
    const { blobs } = openTestStore(folder.path);
    const empty = Buffer.alloc(0);
    blobs.put(empty, sha256(empty));
    expect(blobs.read(sha256(empty), 0)).toHaveLength(0);
    const { createHash } = await import('node:crypto');
    const { parseDigest } = await import('../../src/image/digest.ts');
    const long = parseDigest(`sha512:${createHash('sha512').update(bytes).digest('hex')}`, 'test');
    blobs.put(bytes, long);
    expect(Buffer.from(blobs.read(long, 100))).toEqual(bytes);
  });
});

describe('layers', () => {
  const layer = Buffer.from('a layer');
  const diffId = sha256(layer);

  test('committed, found, its tree named', async () => {
    using folder = temporaryFolder();
    const { layers } = openTestStore(folder.path);
    const writer = await layers.open(diffId, 'none');
    await writer?.write(layer);
    expect(layers.has(diffId)).toBe(false);
    await writer?.commit();
    expect(layers.has(diffId)).toBe(true);
    expect(readFileSync(join(plainTree({ layers }, diffId), 'content'))).toEqual(layer);
    expect((statSync(plainTree({ layers }, diffId)).mode & 0o777).toString(8)).toBe('755');
    expect(await layers.open(diffId, 'none')).toBeUndefined();
    expect(readdirSync(join(folder.path, 'cas/v1/tmp'))).toEqual([]);
  });

  test('a blob of no use goes at once, unless an image or another lease names it', () => {
    using folder = temporaryFolder();
    const store = openTestStore(folder.path);
    const bytes = Buffer.from('of no use');
    const digest = sha256(bytes);
    const own = store.lease();
    own.add(digest);
    store.blobs.put(bytes, digest);
    const other = openTestStore(folder.path).lease();
    other.add(digest);
    own.discard(digest);
    expect(store.blobs.has(digest)).toBe(true);
    other.release();
    own.discard(digest);
    expect(store.blobs.has(digest)).toBe(false);
    expect(readdirSync(join(folder.path, 'cas/v1/tmp'))).toEqual([]);
    own.discard(digest);
    own.release();
  });

  test('wrong diff-id: refused, and nothing is left', async () => {
    using folder = temporaryFolder();
    const { layers } = openTestStore(folder.path);
    const writer = await layers.open(diffId, 'none');
    await writer?.write(Buffer.from('another'));
    await expect(writer?.commit()).rejects.toThrow(/its uncompressed content has the digest/);
    expect(layers.has(diffId)).toBe(false);
    expect(readdirSync(join(folder.path, 'cas/v1/tmp'))).toEqual([]);
    const again = await layers.open(diffId, 'none');
    await again?.abort();
    expect(readdirSync(join(folder.path, 'cas/v1/tmp'))).toEqual([]);
  });

  test('two at once: the second waits, and finds it done', async () => {
    using folder = temporaryFolder();
    const first = await openTestStore(folder.path).layers.open(diffId, 'none');
    let waited = 0;
    const second = openTestStore(folder.path).layers.open(diffId, 'none', () => waited++);
    await new Promise(resolve => setTimeout(resolve, 100));
    await first?.write(layer);
    await first?.commit();
    expect(await second).toBeUndefined();
    expect(waited).toBe(1);
  });

  test('one that did not reach the disk before a reboot is not there', async () => {
    using folder = temporaryFolder();
    const store = openTestStore(folder.path);
    const image = await addTestImage(store, testImage('a', [layer]), NAME);
    const record = join(plainTree(store, diffId), '../layer.json');
    const rebooted = readFileSync(record, 'utf8').replace(/"boot":"[^"]*"/, '"boot":"another"');
    writeFileSync(record, rebooted);
    expect(store.layers.has(diffId)).toBe(false);
    expect(() => plainTree(store, diffId)).toThrow(/not in the store/);
    await ensureLayers(store, image);
    expect(readFileSync(join(plainTree(store, diffId), 'content'))).toEqual(layer);
  });

  test('one that was settled is there after a reboot', async () => {
    using folder = temporaryFolder();
    const store = openTestStore(folder.path);
    await addTestLayer(store, layer);
    store.settle();
    const record = join(plainTree(store, diffId), '../layer.json');
    writeFileSync(
      record,
      readFileSync(record, 'utf8').replace(/"boot":"[^"]*"/, '"boot":"another"'),
    );
    expect(store.layers.has(diffId)).toBe(true);
  });
});

describe('images', () => {
  test('added, found by name, id and digits', async () => {
    using folder = temporaryFolder();
    const store = openTestStore(folder.path);
    const made = testImage('a', ['one', 'two']);
    const image = await addTestImage(store, made, NAME);
    expect(image).toMatchObject({
      id: made.config.digest,
      manifestDigest: made.manifest.digest,
      names: [NAME],
      verdict: VERDICT,
      size: made.manifest.bytes.length + made.config.bytes.length + 12,
    });
    expect(image.layers.map(layer => layer.diffId)).toEqual(['one', 'two'].map(sha256));
    expect(store.byName(NAME)).toEqual(image);
    for (const text of [
      image.id,
      image.id.replace(':', '-'),
      image.id.slice(0, 12),
      image.id.slice(7, 9),
      image.manifestDigest,
      image.manifestDigest.slice(7, 20),
    ]) {
      expect(store.byIdPrefix(text), text).toEqual(image);
    }
    for (const text of ['', 'a', 'sha256:', 'xyz', '../..', image.id.slice(7, 8)]) {
      expect(store.byIdPrefix(text), text).toBeUndefined();
    }
    expect(store.manifest(image).digest).toBe(image.manifestDigest);
    expect(store.config(image).value.diffIds).toHaveLength(2);
  });

  test('a name moves to the image that it was last given to', async () => {
    using folder = temporaryFolder();
    const store = openTestStore(folder.path);
    const first = await addTestImage(store, testImage('a', ['one']), NAME);
    const second = await addTestImage(store, testImage('b', ['one']), NAME);
    expect(store.byName(NAME)?.id).toBe(second.id);
    expect(store.byIdPrefix(first.id)?.names).toEqual([]);
  });

  test('digits that fit two are ambiguous', async () => {
    using folder = temporaryFolder();
    const store = openTestStore(folder.path);
    for (let i = 0; i < 260; i++) {
      const image = testImage(`n${i}`, []);
      store.addImage({ manifest: image.manifest, config: image.config, verdict: VERDICT });
    }
    const digits = store.images().map(image => image.id.slice(7, 9));
    const twice = digits.find((text, index) => digits.indexOf(text) !== index) ?? '';
    expect(() => store.byIdPrefix(twice)).toThrow(/ambiguous image ID/);
  });

  test('one whose layers are not there is refused', () => {
    using folder = temporaryFolder();
    const store = openTestStore(folder.path);
    const image = testImage('a', ['one']);
    expect(() =>
      store.addImage({ manifest: image.manifest, config: image.config, verdict: VERDICT }),
    ).toThrow(/its layer sha256:\w+ is not in the store/);
    expect(store.images()).toEqual([]);
  });

  test('touch moves the last use', async () => {
    using folder = temporaryFolder();
    const store = openTestStore(folder.path);
    const image = await addTestImage(store, testImage('a', ['one']), NAME);
    age(folder.path, image.id, 3600);
    expect(Date.now() - (store.byName(NAME)?.lastUsedAt ?? 0)).toBeGreaterThan(3_500_000);
    store.touch(image);
    expect(Date.now() - (store.byName(NAME)?.lastUsedAt ?? 0)).toBeLessThan(60_000);
  });
});

describe('getting hold of an image', () => {
  test('found, leased, whole', async () => {
    using folder = temporaryFolder();
    const store = openTestStore(folder.path);
    const image = await addTestImage(store, testImage('a', ['one']), NAME);
    rmSync(join(plainTree(store, sha256('one')), '..'), { recursive: true });
    const lease = store.lease();
    const held = await holdImage(store, lease, () => store.byName(NAME));
    expect(held).toEqual(image);
    openTestStore(folder.path).gc({ graceMs: -1, inUse: NOBODY });
    assertWhole(store);
    expect(store.byName(NAME)?.id).toBe(image.id);
    expect(await holdImage(store, lease, () => store.byName('other'))).toBeUndefined();
  });

  test('removed or moved between the look and the lease', async () => {
    using folder = temporaryFolder();
    const store = openTestStore(folder.path);
    const first = await addTestImage(store, testImage('a', ['one']), NAME);
    const second = await addTestImage(store, testImage('b', ['two']), 'other');
    const answers = [first, second, second];
    const lease = store.lease();
    expect((await holdImage(store, lease, () => answers.shift()))?.id).toBe(second.id);
    const gone = [first, undefined];
    expect(await holdImage(store, lease, () => gone.shift())).toBeUndefined();
  });

  test('a missing layer whose blob is damaged says so', async () => {
    using folder = temporaryFolder();
    const store = openTestStore(folder.path);
    const image = await addTestImage(store, testImage('a', ['one']), NAME);
    rmSync(join(plainTree(store, sha256('one')), '..'), { recursive: true });
    writeFileSync(store.blobs.path(sha256('one')), 'two');
    await expect(ensureLayers(store, image)).rejects.toThrow(/its content is damaged/);
    await expect(ensureLayers(store, image)).rejects.toThrow(/neither it nor its blob/);
    await addTestImage(store, testImage('a', ['one']), NAME);
    assertWhole(store);
  });
});

describe('gc', () => {
  test('a removed image leaves with all that no other has', async () => {
    using folder = temporaryFolder();
    const store = openTestStore(folder.path);
    const a = await addTestImage(store, testImage('a', ['shared', 'only a']), 'a');
    const b = await addTestImage(store, testImage('b', ['shared', 'only b']), 'b');
    store.removeImage(a.id);
    expect(() => store.removeImage(a.id)).toThrow(/not in the store/);
    const result = store.gc({ graceMs: Number.POSITIVE_INFINITY, inUse: NOBODY });
    expect(new Set(result.layers)).toEqual(new Set([sha256('only a')]));
    expect(new Set(result.blobs)).toEqual(new Set([a.id, a.manifestDigest, sha256('only a')]));
    expect(result).toMatchObject({ images: [], failures: [] });
    expect(store.images().map(image => image.id)).toEqual([b.id]);
    expect(store.layers.has(sha256('shared'))).toBe(true);
    expect(readdirSync(join(folder.path, 'cas/v1/tmp'))).toEqual([]);
  });

  test('images unused for the grace period go, used ones stay', async () => {
    using folder = temporaryFolder();
    const store = openTestStore(folder.path);
    const old = await addTestImage(store, testImage('a', ['a']), 'a');
    const fresh = await addTestImage(store, testImage('b', ['b']), 'b');
    const used = await addTestImage(store, testImage('c', ['c']), 'c');
    const leased = await addTestImage(store, testImage('d', ['d']), 'd');
    const db = new DatabaseSync(join(folder.path, 'cas/v1/store.db'));
    db.exec('UPDATE images SET imported_at = 0');
    db.close();
    for (const image of [old, used, leased]) age(folder.path, image.id, 7200);
    const lease = openTestStore(folder.path).lease();
    lease.add(leased.id);
    const inUse = (): PodImageUse[] => [
      {
        id: used.id,
        manifestDigest: used.manifestDigest,
        name: 'c',
        layers: used.layers.map(layer => layer.diffId),
        verdict: VERDICT,
      },
    ];
    expect(store.gc({ graceMs: 3_600_000, inUse }).images).toEqual([old.id]);
    expect(new Set(store.images().map(image => image.id))).toEqual(
      new Set([fresh.id, used.id, leased.id]),
    );
    lease.release();
    expect(store.gc({ graceMs: 3_600_000, inUse }).images).toEqual([leased.id]);
    expect(store.gc({ graceMs: 0, inUse: NOBODY }).images).toHaveLength(2);
    expect(readdirSync(join(folder.path, 'cas/v1/blobs/sha256'))).toEqual([]);
    expect(readdirSync(join(folder.path, 'cas/v1/layers/directory/sha256'))).toEqual([]);
    expect(readdirSync(join(folder.path, 'cas/v1/images'))).toEqual([]);
  });

  test('layers of a pod stay when its image was removed', async () => {
    using folder = temporaryFolder();
    const store = openTestStore(folder.path);
    const image = await addTestImage(store, testImage('a', ['one']), 'a');
    const use = { ...image, name: 'a', layers: [sha256('one')] };
    store.removeImage(image.id);
    store.gc({ graceMs: 0, inUse: () => [use] });
    expect(store.layers.has(sha256('one'))).toBe(true);
    expect(store.blobs.has(image.id)).toBe(true);
    store.gc({ graceMs: 0, inUse: NOBODY });
    expect(store.layers.has(sha256('one'))).toBe(false);
  });

  test('what a lease names stays before there is a record', async () => {
    using folder = temporaryFolder();
    const store = openTestStore(folder.path);
    const image = testImage('a', ['one']);
    const lease = store.lease();
    lease.add(...image.digests);
    await addTestLayer(store, Buffer.from('one'));
    const gc = () => openTestStore(folder.path).gc({ graceMs: 0, inUse: NOBODY });
    expect(gc()).toMatchObject({ layers: [], blobs: [] });
    lease.release();
    expect(gc()).toMatchObject({ layers: [sha256('one')], blobs: [sha256('one')] });
  });

  test('partial blobs stay for a resume within the grace period; live writers are left alone', async () => {
    using folder = temporaryFolder();
    const store = openTestStore(folder.path);
    const bytes = Buffer.from('0123456789');
    const descriptor = { mediaType: 'x', digest: sha256(bytes), size: 10 };
    const writer = await store.blobs.open(descriptor);
    writer?.write(bytes.subarray(0, 5));
    store.gc({ graceMs: 0, inUse: NOBODY });
    writer?.suspend();
    store.gc({ graceMs: 3_600_000, inUse: NOBODY });
    const again = await store.blobs.open(descriptor);
    expect(again?.offset).toBe(5);
    again?.suspend();
    store.gc({ graceMs: -1000, inUse: NOBODY });
    expect((await store.blobs.open(descriptor))?.offset).toBe(0);
  });

  test('an unreadable pod stops gc before anything is lost', async () => {
    using folder = temporaryFolder();
    const store = openTestStore(folder.path);
    await addTestImage(store, testImage('a', ['one']), 'a');
    const inUse = (): PodImageUse[] => {
      throw new Error('pod unreadable');
    };
    expect(() => store.gc({ graceMs: 0, inUse })).toThrow('pod unreadable');
    expect(store.images()).toHaveLength(1);
    expect(store.layers.has(sha256('one'))).toBe(true);
  });

  test('strangers in the store folders are left alone', async () => {
    using folder = temporaryFolder();
    const store = openTestStore(folder.path);
    await addTestImage(store, testImage('a', ['one']), 'a');
    const stranger = join(folder.path, 'cas/v1/blobs/sha256/README');
    writeFileSync(stranger, '');
    mkdirSync(join(folder.path, 'cas/v1/layers/directory/sha256/lost+found'));
    store.gc({ graceMs: 0, inUse: NOBODY });
    expect(existsSync(stranger)).toBe(true);
  });
});

function age(dir: string, id: string, seconds: number): void {
  const then = new Date(Date.now() - seconds * 1000);
  utimesSync(join(dir, 'cas/v1/images', `${id.replace(':', '-')}.json`), then, then);
}
