/**
 * The executable contract of LayerForm: what every form must do with a layer, honest or hostile. A form's
 * own test calls `layerContract` and is done.
 *
 * The tree that a form shows is one that overlayfs takes as a lower layer: a whiteout is a character
 * device 0:0, an opaque folder has the attribute trusted.overlay.opaque (kernel documentation,
 * filesystems/overlayfs.rst). Root is needed: owners, devices and trusted attributes are.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { TspodError } from '../../src/errors.ts';
import { type Digest, parseDigest } from '../../src/image/digest.ts';
import type { Compression } from '../../src/image/oci.ts';
import { openStore } from '../../src/store/store.ts';
import type { LayerForm, LayerTree, Store } from '../../src/store/types.ts';
import { sha256, temporaryFolder } from './support.ts';
import { type TarEntry, tar } from './tar.ts';
import { type Node, readTree } from './tree.ts';

export interface ContractOptions {
  /** Makes `LayerForm.tree` a folder that can be walked, where the form needs a mount for that. */
  readonly view?: (tree: LayerTree) => { readonly path: string } & Disposable;
}

const MTIME = 1_234_567_890;
const BIG = Buffer.alloc(3_000_001, 'big file ');

const ORDINARY: readonly TarEntry[] = [
  { name: './', type: '5', mode: 0o751, uid: 3, gid: 4, mtime: MTIME },
  { name: 'etc/', type: '5', mode: 0o755, mtime: MTIME },
  { name: 'etc/passwd', content: 'root:x:0:0::/:/bin/sh\n', mtime: MTIME },
  { name: 'etc/shadow', content: 'root:*:::::::\n', mode: 0o640, gid: 42, mtime: MTIME },
  { name: 'empty', mtime: MTIME },
  { name: 'big', content: BIG, mtime: MTIME },
  { name: 'usr/', type: '5', mtime: MTIME },
  { name: 'usr/bin/', type: '5', mtime: MTIME },
  { name: 'usr/bin/su', content: 'elf', mode: 0o4755, mtime: MTIME },
  { name: 'usr/bin/wall', content: 'elf', mode: 0o2755, uid: 1000, gid: 5, mtime: MTIME },
  { name: 'usr/bin/su-too', type: '1', link: 'usr/bin/su' },
  { name: 'bin', type: '2', link: 'usr/bin', mode: 0o777, mtime: MTIME },
  { name: 'abs', type: '2', link: '/nonexistent/../etc', uid: 7, gid: 8, mtime: MTIME },
  { name: 'tmp/', type: '5', mode: 0o1777, mtime: MTIME },
  { name: 'closed/', type: '5', mode: 0o000, mtime: MTIME },
  { name: 'closed/file', mode: 0o000, content: 'x', mtime: MTIME },
  { name: 'null', type: '3', mode: 0o666, device: [1, 3], mtime: MTIME },
  { name: 'loop', type: '4', mode: 0o660, device: [7, 300], mtime: MTIME },
  { name: 'pipe', type: '6', mode: 0o600, mtime: MTIME },
  {
    name: 'nanoseconds',
    content: 'x',
    mtime: MTIME,
    pax: { mtime: `${MTIME}.123456789` },
  },
  {
    name: 'attributes',
    content: 'x',
    mtime: MTIME,
    pax: {
      'SCHILY.xattr.user.color': 'blue',
      'SCHILY.xattr.security.capability': Buffer.from(
        '0100000200040000000000000000000000000000',
        'hex',
      ),
    },
  },
  { name: Buffer.from([0x6e, 0xff, 0xfe]), content: 'not UTF-8', mtime: MTIME },
  { name: `${'long/'.repeat(60)}name`, content: 'deep', mtime: MTIME },
  { name: 'owner', uid: 100_000, gid: 0o7777777, content: 'x', mtime: MTIME },
  {
    name: 'large-owner',
    content: 'x',
    mtime: MTIME,
    pax: { uid: '4294967294', gid: '3000000000' },
  },
];

export function layerContract(form: LayerForm, options: ContractOptions = {}): void {
  const view =
    options.view ??
    (tree => {
      if (tree.form !== 'directory') throw new Error('the test of this form needs a view');
      return { path: tree.path, [Symbol.dispose]() {} };
    });

  const unpack = async (
    bytes: Buffer,
    compression: Compression = 'none',
    chunk = 65_536,
    diffId?: Digest,
  ) => {
    const folder = temporaryFolder();
    const store = openStore(folder.path, { forms: [form] });
    const digest = diffId ?? diffIdOf(bytes, compression);
    try {
      await commit(store, digest, bytes, compression, chunk);
      using tree = view(store.layers.tree(digest));
      return readTree(tree.path);
    } finally {
      expect(leftovers(folder.path)).toEqual([]);
      await store.layers.rest();
      store.close();
      folder[Symbol.dispose]();
    }
  };

  describe.skipIf(process.geteuid?.() !== 0 || form.unavailable() !== undefined)(
    `layer form ${form.name}`,
    () => {
      test('says how its tree is found', () => {
        const { form: name, ...parts } = form.tree('/somewhere');
        expect(name).toBe(form.name);
        const paths = Object.values(parts).filter(part => part.includes('/'));
        expect(paths.every(path => path.startsWith('/somewhere'))).toBe(true);
      });

      test('everything that an image has: types, modes, owners, times, links, devices, attributes', async () => {
        const tree = await unpack(tar(ORDINARY));
        const get = (name: string): Node => {
          const node = tree.get(name);
          if (node === undefined) throw new Error(`${name} is missing`);
          return node;
        };
        const nanoseconds = BigInt(MTIME) * 1_000_000_000n;
        expect(get('')).toMatchObject({
          type: 'folder',
          mode: '751',
          owner: '3:4',
          mtime: nanoseconds,
        });
        expect(get('etc')).toMatchObject({
          type: 'folder',
          mode: '755',
          owner: '0:0',
          mtime: nanoseconds,
        });
        expect(get('etc/shadow')).toMatchObject({ mode: '640', owner: '0:42', mtime: nanoseconds });
        expect(get('empty')).toMatchObject({ type: 'file', content: hex('') });
        expect(get('big')).toMatchObject({ type: 'file', content: hex(BIG) });
        expect(get('usr/bin/su')).toMatchObject({
          mode: '4755',
          owner: '0:0',
          content: hex('elf'),
        });
        expect(get('usr/bin/wall')).toMatchObject({ mode: '2755', owner: '1000:5' });
        expect(get('usr/bin/su-too')).toMatchObject({ mode: '4755', same: 'usr/bin/su' });
        expect(get('bin')).toMatchObject({ type: 'link', content: 'usr/bin', mtime: nanoseconds });
        expect(get('abs')).toMatchObject({
          type: 'link',
          content: '/nonexistent/../etc',
          owner: '7:8',
        });
        expect(get('tmp')).toMatchObject({ type: 'folder', mode: '1777', mtime: nanoseconds });
        expect(get('closed')).toMatchObject({ mode: '0', mtime: nanoseconds });
        expect(get('closed/file')).toMatchObject({ mode: '0' });
        expect(get('null')).toMatchObject({ type: 'character', mode: '666', content: '1:3' });
        expect(get('loop')).toMatchObject({ type: 'block', mode: '660', content: '7:300' });
        expect(get('pipe')).toMatchObject({ type: 'fifo', mode: '600' });
        expect(get('nanoseconds').mtime).toBe(nanoseconds + 123_456_789n);
        expect(get('attributes').xattrs).toEqual({
          'user.color': 'blue',
          'security.capability': Buffer.from(
            '0100000200040000000000000000000000000000',
            'hex',
          ).toString('latin1'),
        });
        expect(get('n\xff\xfe')).toMatchObject({ content: hex('not UTF-8') });
        expect(get(`${'long/'.repeat(60)}name`)).toMatchObject({ content: hex('deep') });
        expect(get('long')).toMatchObject({ type: 'folder', mode: '755', owner: '0:0' });
        expect(get('owner')).toMatchObject({ owner: `100000:${0o7777777}` });
        expect(get('large-owner')).toMatchObject({ owner: '4294967294:3000000000' });
        expect(tree.size).toBe(ORDINARY.length + 60);
      });

      test.each(['none', 'gzip', 'zstd'] as const)('compressed by %s', async compression => {
        const plain = tar(ORDINARY);
        const packed = compress(plain, compression);
        const tree = await unpack(packed, compression, 65_536, sha256(plain));
        expect(tree.get('big')?.content).toBe(hex(BIG));
      });

      test.each(['bzip2', 'xz'] as const)(
        'compressed by %s, or refused by name',
        async compression => {
          const plain = tar(ORDINARY);
          try {
            const tree = await unpack(
              compress(plain, compression),
              compression,
              65_536,
              sha256(plain),
            );
            expect(tree.get('big')?.content).toBe(hex(BIG));
          } catch (error) {
            expect(error).toMatchObject({ code: 'unsupported' });
          }
        },
      );

      test('bytes arrive in any portions', async () => {
        const bytes = tar(ORDINARY.filter(entry => entry.name !== 'big'));
        const whole = await unpack(bytes, 'none', bytes.length);
        const atATime = await unpack(bytes, 'none', 7);
        expect(withoutTimes(atATime)).toEqual(withoutTimes(whole));
        const packed = gzipSync(bytes);
        expect(withoutTimes(await unpack(packed, 'gzip', 13, sha256(bytes)))).toEqual(
          withoutTimes(whole),
        );
      });

      test('an empty layer, and one without an entry for its root', async () => {
        const empty = await unpack(tar([]));
        expect([...empty.keys()]).toEqual(['']);
        expect(empty.get('')).toMatchObject({ type: 'folder', mode: '755', owner: '0:0' });
      });

      test('whiteouts and opaque folders are overlayfs’s', async () => {
        const tree = await unpack(
          tar([
            { name: 'etc/', type: '5' },
            { name: 'etc/.wh.gone' },
            { name: 'opaque/', type: '5', mode: 0o700 },
            { name: 'opaque/.wh..wh..opq' },
            { name: 'opaque/here', content: 'x' },
            { name: '.wh.top' },
          ]),
        );
        for (const name of ['etc/gone', 'top']) {
          expect(tree.get(name)).toMatchObject({ type: 'character', content: '0:0' });
        }
        expect(tree.get('opaque')).toMatchObject({
          mode: '700',
          xattrs: { 'trusted.overlay.opaque': 'y' },
        });
        expect(tree.get('opaque/here')).toMatchObject({ type: 'file' });
        expect([...tree.keys()].filter(name => name.includes('.wh.'))).toEqual([]);
      });

      test('the last of several entries with one name counts', async () => {
        const tree = await unpack(
          tar([
            { name: 'file', content: 'first', mode: 0o600 },
            { name: 'file', content: 'second', mode: 0o644 },
            { name: 'was-file', content: 'x' },
            { name: 'was-file/', type: '5' },
            { name: 'was-file/inside', content: 'y' },
            { name: 'was-link', type: '2', link: 'etc' },
            { name: 'was-link', content: 'a file now' },
            { name: 'folder/', type: '5', mode: 0o700 },
            { name: 'folder/inside', content: 'z' },
            { name: 'folder/', type: '5', mode: 0o755 },
            { name: 'one', content: 'shared' },
            { name: 'two', type: '1', link: 'one' },
            { name: 'one', content: 'apart' },
          ]),
        );
        expect(tree.get('file')).toMatchObject({ content: hex('second'), mode: '644' });
        expect(tree.get('was-file/inside')).toMatchObject({ content: hex('y') });
        expect(tree.get('was-link')).toMatchObject({ type: 'file', content: hex('a file now') });
        expect(tree.get('folder')).toMatchObject({ mode: '755' });
        expect(tree.get('folder/inside')).toMatchObject({ content: hex('z') });
        expect(tree.get('one')).toMatchObject({ content: hex('apart') });
        expect(tree.get('two')).toMatchObject({ content: hex('shared'), same: undefined });
      });

      test('an entry below a symbolic link to a folder lands where the link leads, inside', async () => {
        const tree = await unpack(
          tar([
            { name: 'usr/lib/', type: '5' },
            { name: 'lib', type: '2', link: 'usr/lib' },
            { name: 'lib/so', content: 'x' },
          ]),
        );
        expect(tree.get('lib')).toMatchObject({ type: 'link' });
        expect(tree.get('usr/lib/so')).toMatchObject({ content: hex('x') });
      });

      test.each<readonly [string, (outside: string) => readonly TarEntry[]]>([
        [
          'CVE-2014-6407: a symbolic link, then an entry below it',
          outside => [
            { name: 'link', type: '2', link: outside },
            { name: 'link/planted', content: 'x' },
          ],
        ],
        [
          'CVE-2014-9356: a relative link that climbs out',
          outside => [
            { name: 'link', type: '2', link: `${'../'.repeat(40)}${outside.slice(1)}` },
            { name: 'link/planted', content: 'x' },
          ],
        ],
        [
          'CVE-2014-6408: a hard link to a file outside, then a write',
          outside => [
            { name: 'hard', type: '1', link: `${outside}/precious` },
            { name: 'hard', content: 'overwritten' },
          ],
        ],
        [
          'a hard link through a symbolic link',
          outside => [
            { name: 'link', type: '2', link: outside },
            { name: 'hard', type: '1', link: 'link/precious' },
          ],
        ],
        ['an absolute name', outside => [{ name: `${outside}/planted`, content: 'x' }]],
        [
          'a name that climbs out',
          outside => [{ name: `${'../'.repeat(40)}${outside.slice(1)}/planted`, content: 'x' }],
        ],
        [
          'a hard link whose target climbs out',
          outside => [
            { name: 'hard', type: '1', link: `${'../'.repeat(40)}${outside.slice(1)}/precious` },
          ],
        ],
        [
          'CVE-2021-29136: the root as a symbolic link',
          outside => [
            { name: '.', type: '2', link: outside },
            { name: 'planted', content: 'x' },
          ],
        ],
        [
          'CVE-2021-32760: a mode through a hard link to a symbolic link',
          outside => [
            { name: 'link', type: '2', link: `${outside}/precious` },
            { name: 'hard', type: '1', link: 'link', mode: 0o4777 },
          ],
        ],
        [
          'a whiteout that climbs out',
          outside => [{ name: 'link', type: '2', link: outside }, { name: 'link/.wh.precious' }],
        ],
        ['a whiteout of ..', () => [{ name: '.wh...' }, { name: '.wh..' }]],
        [
          'an opaque mark through a link',
          outside => [{ name: 'link', type: '2', link: outside }, { name: 'link/.wh..wh..opq' }],
        ],
      ])('%s: nothing outside is touched', async (_, attack) => {
        using folder = temporaryFolder();
        const outside = join(folder.path, 'outside');
        mkdirSync(outside);
        writeFileSync(join(outside, 'precious'), 'precious', { mode: 0o600 });
        const before = readTree(outside);
        const dir = join(folder.path, 'data');
        const store = openStore(dir, { forms: [form] });
        const bytes = tar(attack(outside));
        try {
          await commit(store, sha256(bytes), bytes, 'none');
        } catch (error) {
          // To refuse it is as good as to keep it inside.
          expect(error).toBeInstanceOf(TspodError);
        }
        expect(readTree(outside)).toEqual(before);
        expect(leftovers(dir)).toEqual([]);
        await store.layers.rest();
        store.close();
      });

      test('an image’s own overlay attributes do not become overlayfs’s', async () => {
        const tree = await unpack(
          tar([
            {
              name: 'folder/',
              type: '5',
              pax: {
                'SCHILY.xattr.trusted.overlay.opaque': 'y',
                'SCHILY.xattr.trusted.overlay.redirect': '/etc',
              },
            },
          ]),
        );
        const names = Object.keys(tree.get('folder')?.xattrs ?? {});
        expect(names).not.toContain('trusted.overlay.opaque');
        expect(names).not.toContain('trusted.overlay.redirect');
      });

      test.each<readonly [string, Buffer, Compression]>([
        ['a tar that ends in a file', tar(ORDINARY).subarray(0, 100_000), 'none'],
        ['a tar whose header is damaged', damage(tar(ORDINARY), 600), 'none'],
        ['no tar at all', Buffer.alloc(100_000, 'x'), 'none'],
        ['a gzip stream that breaks off', gzipSync(tar(ORDINARY)).subarray(0, 3000), 'gzip'],
        ['a gzip stream that is damaged', damage(gzipSync(tar(ORDINARY)), 400), 'gzip'],
        ['something else than gzip', tar(ORDINARY), 'gzip'],
        ['a hard link to nothing', tar([{ name: 'hard', type: '1', link: 'missing' }]), 'none'],
        ['a negative owner', tar([{ name: 'x', pax: { uid: '-1' } }]), 'none'],
        [
          'CVE-2024-40635: an owner beyond 32 bits',
          tar([{ name: 'x', pax: { uid: '4294967296' } }]),
          'none',
        ],
        ['a size beyond what there is', tar([{ name: 'x', pax: { size: '99999999999' } }]), 'none'],
      ])('%s is one clear error, and nothing is left', async (_, bytes, compression) => {
        using folder = temporaryFolder();
        const store = openStore(folder.path, { forms: [form] });
        const diffId = sha256(bytes);
        await expect(commit(store, diffId, bytes, compression)).rejects.toBeInstanceOf(TspodError);
        expect(store.layers.has(diffId)).toBe(false);
        expect(leftovers(folder.path)).toEqual([]);
        await store.layers.rest();
        expect(children()).toEqual([]);
        await store.layers.rest();
        store.close();
      });

      test('a diff-id of sha512', async () => {
        const bytes = tar(ORDINARY);
        const diffId = parseDigest(
          `sha512:${createHash('sha512').update(bytes).digest('hex')}`,
          'test',
        );
        const tree = await unpack(gzipSync(bytes), 'gzip', 65_536, diffId);
        expect(withoutTimes(tree)).toEqual(withoutTimes(await unpack(bytes)));
        const wrong = parseDigest(`sha512:${'0'.repeat(128)}`, 'test');
        await expect(unpack(bytes, 'none', 65_536, wrong)).rejects.toThrow(
          `its uncompressed content has the digest ${diffId}`,
        );
      });

      test('a wrong diff-id leaves nothing', async () => {
        using folder = temporaryFolder();
        const store = openStore(folder.path, { forms: [form] });
        const diffId = sha256('something else');
        await expect(commit(store, diffId, tar(ORDINARY), 'none')).rejects.toMatchObject({
          code: 'digest',
        });
        expect(store.layers.has(diffId)).toBe(false);
        expect(leftovers(folder.path)).toEqual([]);
        await store.layers.rest();
        store.close();
      });

      test.each([0, 1000, 2_000_000])('aborted after %d bytes it leaves nothing', async length => {
        using folder = temporaryFolder();
        const store = openStore(folder.path, { forms: [form] });
        const bytes = tar(ORDINARY);
        const writer = await store.layers.open(sha256(bytes), 'none');
        if (length > 0) await writer?.write(bytes.subarray(0, length));
        await writer?.abort();
        expect(store.layers.has(sha256(bytes))).toBe(false);
        expect(leftovers(folder.path)).toEqual([]);
        await store.layers.rest();
        expect(children()).toEqual([]);
        await store.layers.rest();
        store.close();
      });

      test('a child that is killed is an error', async () => {
        using folder = temporaryFolder();
        const store = openStore(folder.path, { forms: [form] });
        const bytes = tar(ORDINARY);
        const writer = await store.layers.open(sha256(bytes), 'none');
        if (writer === undefined) throw new Error('the layer is there already');
        await writer.write(bytes.subarray(0, 2000));
        const running = children();
        // A form that unpacks without a child has nothing to be killed.
        if (running.length === 0) return await writer.abort();
        for (const pid of running) process.kill(pid, 'SIGKILL');
        await expect(
          (async () => {
            await writer.write(bytes.subarray(2000));
            await writer.commit();
          })(),
        ).rejects.toBeInstanceOf(TspodError);
        await writer.abort();
        expect(store.layers.has(sha256(bytes))).toBe(false);
        expect(leftovers(folder.path)).toEqual([]);
        await store.layers.rest();
        expect(children()).toEqual([]);
        await store.layers.rest();
        store.close();
      });

      test('several layers at once do not mix', async () => {
        using folder = temporaryFolder();
        const store = openStore(folder.path, { forms: [form] });
        const layers = Array.from({ length: 6 }, (_, index) =>
          tar([
            { name: 'which', content: `layer ${index}` },
            { name: `only-${index}`, content: Buffer.alloc(200_000, index) },
          ]),
        );
        await Promise.all(layers.map(bytes => commit(store, sha256(bytes), bytes, 'none', 4096)));
        for (const [index, bytes] of layers.entries()) {
          using tree = view(store.layers.tree(sha256(bytes)));
          const nodes = readTree(tree.path);
          expect([...nodes.keys()].sort()).toEqual(['', `only-${index}`, 'which']);
          expect(nodes.get('which')?.content).toBe(hex(`layer ${index}`));
        }
        await store.layers.rest();
        store.close();
      });

      test('two writers of one layer: the second finds it done', async () => {
        using folder = temporaryFolder();
        const stores = [1, 2].map(() => openStore(folder.path, { forms: [form] }));
        const bytes = tar(ORDINARY);
        await Promise.all(stores.map(store => commit(store, sha256(bytes), bytes, 'none')));
        for (const store of stores) {
          expect(store.layers.has(sha256(bytes))).toBe(true);
          await store.layers.rest();
          store.close();
        }
        expect(leftovers(folder.path)).toEqual([]);
      });
    },
  );
}

async function commit(
  store: Store,
  diffId: Digest,
  bytes: Buffer,
  compression: Compression,
  chunk = 65_536,
): Promise<void> {
  const writer = await store.layers.open(diffId, compression);
  if (writer === undefined) return;
  try {
    for (let at = 0; at < bytes.length; at += chunk) {
      await writer.write(bytes.subarray(at, at + chunk));
    }
    await writer.commit();
  } catch (error) {
    await writer.abort();
    throw error;
  }
}

function diffIdOf(bytes: Buffer, compression: Compression): Digest {
  if (compression !== 'none') throw new Error('give the diff-id of a compressed layer');
  return sha256(bytes);
}

function compress(bytes: Buffer, compression: Compression): Buffer {
  switch (compression) {
    case 'none':
      return bytes;
    case 'gzip':
      return gzipSync(bytes);
    case 'zstd':
      return zstdCompressSync(bytes);
    default: {
      const { stdout, status, error } = spawnSync(compression, ['-c'], {
        input: bytes,
        maxBuffer: 64 * 1024 * 1024,
      });
      if (status !== 0) throw error ?? new Error(`${compression} failed`);
      return stdout;
    }
  }
}

function leftovers(dir: string): string[] {
  const tmp = join(dir, 'cas/v1/tmp');
  return existsSync(tmp) ? readdirSync(tmp) : [];
}

/** Processes that this one has started and that still run. */
function children(): number[] {
  return readdirSync('/proc/self/task').flatMap(task => {
    try {
      return readFileSync(`/proc/self/task/${task}/children`, 'latin1')
        .split(' ')
        .filter(text => text !== '')
        .map(Number);
    } catch {
      return []; // a thread that has ended
    }
  });
}

function withoutTimes(tree: ReadonlyMap<string, Node>): Map<string, Node> {
  // Folders that no entry names have the time of their making.
  return new Map([...tree].map(([name, node]) => [name, { ...node, mtime: 0n }]));
}

function damage(bytes: Buffer, at: number): Buffer {
  const copy = Buffer.from(bytes);
  copy.fill(0xa5, at, at + 40);
  return copy;
}

function hex(content: Uint8Array | string): string {
  return createHash('sha256').update(content).digest('hex');
}
