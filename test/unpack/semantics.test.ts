/** What an archive may say that GNU tar and a container layer answer differently, or not at all. */
import { lstatSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { native } from '../../src/sys/native.ts';
import { type Member, member, paxMember, tar } from './tar-writer.ts';
import { listTree, type TreeEntry } from './tree.ts';
import { testFolder, unpack } from './unpacking.ts';

async function made(
  ...members: readonly Member[]
): Promise<Map<string, TreeEntry> & { root: string }> {
  const { root } = await unpack(tar(...members), { folder: testFolder() });
  return Object.assign(listTree(root), { root });
}

const FOLDER = 4;
const FILE = 8;
const LINK = 10;
const CHAR = 2;
const OPAQUE = { 'trusted.overlay.opaque': '79' };

describe('whiteouts', () => {
  it('become device 0:0 and the opaque attribute', async () => {
    const tree = await made(
      { name: 'etc/.wh.gone' },
      { name: 'var/.wh..wh..opq' },
      { name: '.wh..wh.plnk/1.2', data: 'aufs' },
      { name: '.wh..wh.aufs' },
    );
    expect(tree.get('etc/gone')).toMatchObject({ type: CHAR, rdev: 0 });
    expect(tree.get('var')?.xattrs).toEqual(OPAQUE);
    expect([...tree.keys()]).toEqual(['.', 'etc', 'etc/gone', 'var']);
  });

  it.each([
    ['before', (mark: Member, entry: Member) => [mark, entry]],
    ['after', (mark: Member, entry: Member) => [entry, mark]],
  ])('hide nothing of their own layer when they come %s it', async (_, order) => {
    const file = await made(...order({ name: '.wh.a' }, { name: 'a', data: 'stays' }));
    expect(file.get('a')).toMatchObject({ type: FILE, size: 5 });
    const folder = await made(...order({ name: '.wh.a' }, { name: 'a/b', data: 'stays' }));
    expect(folder.get('a')).toMatchObject({ type: FOLDER, xattrs: OPAQUE });
    expect(folder.get('a/b')).toMatchObject({ type: FILE });
    const explicit = await made(
      ...order({ name: '.wh.a' }, { name: 'a/', type: '5', mode: 0o711 }),
    );
    expect(explicit.get('a')).toMatchObject({ type: FOLDER, mode: '711', xattrs: OPAQUE });
    const opaque = await made(...order({ name: 'a/.wh..wh..opq' }, { name: 'a/b', data: 'stays' }));
    expect(opaque.get('a')).toMatchObject({ xattrs: OPAQUE });
    expect(opaque.get('a/b')).toMatchObject({ type: FILE });
  });

  it.each(['.wh.', '.wh..', '.wh...', 'a/.wh..', '.wh.a/b'])(
    '%s hides nothing and is refused',
    async name => {
      await expect(made({ name })).rejects.toMatchObject({ code: 'unpack' });
    },
  );

  it('of an image are refused as devices and escaped as attributes', async () => {
    await expect(made({ name: 'w', type: '3' })).rejects.toThrow(/0:0/);
    const pax = {
      'SCHILY.xattr.trusted.overlay.opaque': 'y',
      'SCHILY.xattr.trusted.overlay.redirect': '/etc',
      'SCHILY.xattr.user.overlay.opaque': 'y',
    };
    const tree = await made({ name: 'd', type: '5', pax });
    expect(Object.keys(tree.get('d')?.xattrs ?? {})).toEqual([
      'trusted.overlay.overlay.opaque',
      'trusted.overlay.overlay.redirect',
      'user.overlay.overlay.opaque',
    ]);
  });

  it('are no targets of hard links', async () => {
    await expect(
      made({ name: '.wh.a' }, { name: 'b', type: '1', link: 'a' }),
    ).rejects.toMatchObject({ code: 'unpack' });
  });
});

describe('entries that replace others', () => {
  it('of every type by every type', async () => {
    const kinds: Record<string, Member> = {
      file: { name: 'x', data: 'data' },
      large: { name: 'x', data: Buffer.alloc(2e6) },
      folder: { name: 'x/', type: '5' },
      link: { name: 'x', type: '2', link: 'other' },
      hard: { name: 'x', type: '1', link: 'other/kept' },
      fifo: { name: 'x', type: '6' },
      char: { name: 'x', type: '3', major: 1, minor: 3 },
    };
    const types: Record<string, number> = {
      file: FILE,
      large: FILE,
      folder: FOLDER,
      link: LINK,
      hard: FILE,
      fifo: 1,
      char: CHAR,
    };
    for (const [before, first] of Object.entries(kinds)) {
      for (const [after, second] of Object.entries(kinds)) {
        const inner: Member[] = before === 'folder' ? [{ name: 'x/in/deep', data: '1' }] : [];
        const tree = await made({ name: 'other/kept', data: 'kept' }, first, ...inner, second);
        const why = `${before} by ${after}`;
        expect(tree.get('x')?.type, why).toBe(types[after]);
        expect(tree.has('x/in/deep'), why).toBe(before === 'folder' && after === 'folder');
        expect(readFileSync(join(tree.root, 'other/kept'), 'utf8'), why).toBe('kept');
      }
    }
  }, 60_000);

  it('a hard link to itself changes nothing', async () => {
    const tree = await made({ name: 'a', data: '1' }, { name: './a', type: '1', link: 'a' });
    expect(tree.get('a')).toMatchObject({ type: FILE, size: 1 });
  });

  it('a file on the way to another is refused', async () => {
    await expect(made({ name: 'a' }, { name: 'a/b' })).rejects.toThrow(/not a folder/);
  });

  it("folders' attributes go with the folder, not with the name", async () => {
    const tree = await made(
      { name: 'a/', type: '5', mode: 0o700 },
      { name: 'a/b/', type: '5', mode: 0o711, mtime: 5 },
      { name: 'c/b/', type: '5', mode: 0o755, mtime: 6 },
      { name: 'a', type: '2', link: 'c' },
    );
    expect(tree.get('c/b')).toMatchObject({ mode: '755', mtime: 6_000_000_000n });
    const through = await made(
      { name: 'usr/lib/', type: '5', mtime: 5 },
      { name: 'lib', type: '2', link: 'usr/lib' },
      { name: 'lib/x/', type: '5', mode: 0o2711, uid: 5, mtime: 7 },
      { name: 'lib/x/y', data: '1' },
    );
    expect(through.get('usr/lib/x')).toMatchObject({ mode: '2711', uid: 5, mtime: 7_000_000_000n });
    expect(through.get('usr/lib')?.mtime).toBe(5_000_000_000n);
  });
});

describe('headers', () => {
  it('makes missing folders 0755 root', async () => {
    const tree = await made({ name: 'a/b/c', uid: 5, mode: 0o600 });
    expect(tree.get('a/b')).toMatchObject({ type: FOLDER, mode: '755', uid: 0, gid: 0 });
  });

  it('global pax headers apply, the own one wins, an empty value takes back', async () => {
    const archive = Buffer.concat([
      paxMember('g', { uid: '77', mtime: '5.25' }),
      member({ name: 'a', uid: 1 }),
      member({ name: 'b', uid: 1, pax: { uid: '78' } }),
      member({ name: 'c', uid: 1, pax: { uid: '' } }),
    ]);
    const { root } = await unpack(archive);
    const tree = listTree(root);
    expect(['a', 'b', 'c'].map(name => tree.get(name)?.uid)).toEqual([77, 78, 1]);
    expect(tree.get('a')?.mtime).toBe(5_250_000_000n);
  });

  it('libarchive attributes', async () => {
    const value = Buffer.from([0, 255, 10]).toString('base64').replace(/=+$/, '');
    const tree = await made({ name: 'a', pax: { 'LIBARCHIVE.xattr.user.a%3Db': value } });
    expect(tree.get('a')?.xattrs).toEqual({ 'user.a=b': '00ff0a' });
  });

  it('setuid and capabilities outlive chown', async () => {
    const capability = Buffer.from('0100000200200000000000000000000000000000', 'hex');
    const pax = { 'SCHILY.xattr.security.capability': capability };
    for (const size of [10, 3e6]) {
      const tree = await made({ name: 'a', mode: 0o6755, uid: 9, pax, data: Buffer.alloc(size) });
      expect(tree.get('a')).toMatchObject({
        mode: '6755',
        uid: 9,
        xattrs: { 'security.capability': capability.toString('hex') },
      });
    }
  });

  it('attributes of this machine are passed over', async () => {
    const pax = { 'SCHILY.xattr.security.selinux': 'x', 'SCHILY.xattr.security.ima': 'y' };
    expect((await made({ name: 'a', pax })).get('a')?.xattrs).toEqual({});
  });

  it.each([
    ['a wrong checksum', { name: 'a', badChecksum: true }],
    ['an unknown type', { name: 'a', type: 'Q' }],
    ['a user that would wrap round', { name: 'a', pax: { uid: '4294967295' } }],
    ['a user that would wrap round', { name: 'a', pax: { uid: '4294967296' } }],
    ['a NUL in a name', { name: 'a', pax: { path: 'a\0b' } }],
    ['a link to nothing', { name: 'a', type: '2' }],
    ['a hard link to nothing', { name: 'a', type: '1', link: 'b' }],
    ['a hard link to a folder', { name: 'a', type: '1', link: '/' }],
    [
      'a sparse map that does not fit',
      { name: 'a', data: 'abc', pax: { 'GNU.sparse.size': '9', 'GNU.sparse.map': '0,5' } },
    ],
    [
      'a sparse map that overlaps',
      { name: 'a', data: 'abcd', pax: { 'GNU.sparse.size': '9', 'GNU.sparse.map': '2,2,1,2' } },
    ],
  ] as const)('refuses %s and names the entry', async (_, one) => {
    await expect(made(one)).rejects.toThrow(/layer entry .*at offset \d+: /);
  });

  it('negative and base-256 numbers', async () => {
    const patch = (block: Buffer) => {
      block.fill(0xff, 136, 148);
      block.writeUInt32BE(0x80000000, 108);
      block.writeUInt32BE(3_000_000_000, 112);
    };
    const tree = await made({ name: 'a', format: 'gnu', patch });
    expect(tree.get('a')).toMatchObject({ mtime: -1_000_000_000n, uid: 3_000_000_000 });
  });

  it('nothing at all is an empty layer', async () => {
    expect(await unpack(Buffer.alloc(0))).toMatchObject({ entries: 0, bytes: 0 });
    expect((await unpack(tar())).entries).toBe(0);
  });

  it('an archive without its end is whole between members only', async () => {
    const archive = member({ name: 'a', data: 'x'.repeat(600) });
    expect((await unpack(archive)).entries).toBe(1);
    expect((await unpack(archive.subarray(0, 512 + 600))).entries).toBe(1);
    for (const length of [100, 511, 512, 1000]) {
      await expect(unpack(archive.subarray(0, length))).rejects.toThrow(/ends in the middle/);
    }
  });

  it('what follows the end is part of the digest and nothing else', async () => {
    const archive = Buffer.concat([tar({ name: 'a' }), Buffer.alloc(5000, 'garbage')]);
    const { root, entries } = await unpack(archive);
    expect(entries).toBe(1);
    expect(lstatSync(join(root, 'a')).isFile()).toBe(true);
  });

  it('sees that names are bytes', async () => {
    const name = Buffer.from([0x63, 0xe9, 0xff, 0x0a]);
    const tree = await made({ name }, { name: 'l', type: '2', link: name });
    expect(tree.get(name.toString('latin1'))?.type).toBe(FILE);
    expect(tree.get('l')?.link).toBe(name.toString('latin1'));
    expect(native().llistxattr(tree.root)).toEqual([]);
  });
});
