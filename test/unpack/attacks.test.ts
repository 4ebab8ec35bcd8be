/**
 * Attacks that hit other runtimes' unpackers, each by its name. Every archive tries to reach `outside`,
 * a folder beside the layer's root; nothing there may change.
 */
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { DEFAULT_BOUNDS } from '../../stage0/unpack/bounds.ts';
import { makeDirectoryForm } from '../../stage0/unpack/directory.ts';
import { type Member, member, tar } from './tar-writer.ts';
import { listTree } from './tree.ts';
import { testFolder, unpack } from './unpacking.ts';

/** Unpacks beside a bait; returns what came of it and checks that the bait is as it was. */
async function attack(members: readonly Member[] | ((outside: string) => readonly Member[])) {
  const folder = testFolder();
  const outside = join(folder, 'outside');
  mkdirSync(outside, { mode: 0o700 });
  writeFileSync(join(outside, 'passwd'), 'root', { mode: 0o600 });
  const list = typeof members === 'function' ? members(outside) : members;
  const before = snapshot(outside);
  let error: unknown;
  let root: string | undefined;
  try {
    root = (await unpack(tar(...list), { folder })).root;
  } catch (thrown) {
    error = thrown;
    // a failed unpack leaves nothing
    expect(existsSync(join(folder, 'ours'))).toBe(false);
  }
  expect(snapshot(outside)).toEqual(before);
  return { root: root ?? '', error };
}

function snapshot(folder: string): unknown {
  return [...listTree(folder)].map(([name, entry]) => [
    name,
    { ...entry, mtime: String(entry.mtime) },
  ]);
}

const REFUSED = { name: 'TspodError', code: 'unpack' };

describe('writing outside the root', () => {
  it('CVE-2014-6407: through a symbolic link of the same archive', async () => {
    const { root } = await attack(outside => [
      { name: 'link', type: '2', link: outside },
      { name: 'link/passwd', data: 'evil' },
      { name: 'up', type: '2', link: '../../../../../../../..' },
      { name: 'up/tmp-evil', data: 'evil' },
    ]);
    // the link leads to a folder of that name inside the root
    expect(readFileSync(join(root, 'tmp-evil'), 'utf8')).toBe('evil');
    const inside = readlinkSync(join(root, 'link'));
    expect(readFileSync(join(root, inside, 'passwd'), 'utf8')).toBe('evil');
  });

  it('CVE-2014-6408: through hard links to outside', async () => {
    const absolute = await attack(outside => [
      { name: 'hard', type: '1', link: join(outside, 'passwd') },
      { name: 'hard', data: 'evil' },
    ]);
    expect(absolute.error).toMatchObject(REFUSED);
    const climbing = await attack([{ name: 'hard', type: '1', link: '../outside/passwd' }]);
    expect(climbing.error).toMatchObject(REFUSED);
    const byLink = await attack(outside => [
      { name: 'dir', type: '2', link: outside },
      { name: 'hard', type: '1', link: 'dir/passwd' },
    ]);
    expect(byLink.error).toMatchObject(REFUSED);
  });

  it('CVE-2014-9356: an absolute symbolic link exchanged for what was a folder', async () => {
    const { root } = await attack(outside => [
      { name: 'dir/', type: '5' },
      { name: 'dir/known', data: '1' },
      { name: 'dir', type: '2', link: outside },
      { name: 'dir/passwd', data: 'evil' },
    ]);
    expect(lstatSync(join(root, 'dir')).isSymbolicLink()).toBe(true);
  });

  it('CVE-2021-29136: an entry for the root that is no folder', async () => {
    for (const name of ['.', './', '/', '', 'a/..']) {
      for (const type of ['0', '1', '2', '3', '6']) {
        const { error } = await attack(outside => [
          { name, type, link: outside, major: 1, minor: 3 },
        ]);
        // a name with a final slash and type 0 is a folder of old
        if (name.endsWith('/') && type === '0') expect(error).toBeUndefined();
        else expect(error, `${name} of type ${type}`).toMatchObject(REFUSED);
      }
    }
    const { root } = await attack([{ name: './', type: '5', mode: 0o751, uid: 7, gid: 8 }]);
    const stat = lstatSync(root);
    expect([stat.mode & 0o7777, stat.uid, stat.gid]).toEqual([0o751, 7, 8]);
  });

  it('CVE-2021-32760: chmod through a hard link to a symbolic link', async () => {
    const { root } = await attack(outside => [
      { name: 'soft', type: '2', link: join(outside, 'passwd') },
      { name: 'hard', type: '1', link: 'soft', mode: 0o4777 },
      { name: 'soft', type: '2', link: join(outside, 'passwd'), mode: 0o4777 },
    ]);
    expect(lstatSync(join(root, 'hard')).isSymbolicLink()).toBe(true);
  });

  it('CVE-2025-47290: folders exchanged for links while the unpacker remembers them', async () => {
    const { root } = await attack(outside => [
      { name: 'a/b/', type: '5' },
      { name: 'a/b/1', data: '1' },
      { name: 'a', type: '2', link: outside },
      { name: 'a/b/2', data: '2' },
      { name: 'a/b', type: '2', link: '/' },
      { name: 'a/b/etc-evil', data: '3' },
    ]);
    expect(readFileSync(join(root, 'etc-evil'), 'utf8')).toBe('3');
  });

  it('CVE-2026-50163: a hard link whose checked target is not the one used', async () => {
    const { error } = await attack(outside => [
      { name: 'd', type: '2', link: '/' },
      { name: 'd/hard', type: '1', link: `d/../..${outside}/passwd` },
    ]);
    expect(error).toMatchObject(REFUSED);
  });

  it('docker2aci#205, rkt#96: names with ..', async () => {
    for (const name of ['../outside/passwd', 'a/../../outside/passwd', '/../outside/passwd']) {
      expect((await attack([{ name, data: 'evil' }])).error, name).toMatchObject(REFUSED);
    }
    const { root } = await attack([
      { name: '/etc/absolute', data: '1' },
      { name: 'a/../b', data: '2' },
    ]);
    expect([...listTree(root).keys()]).toEqual(['.', 'b', 'etc', 'etc/absolute']);
  });
});

describe('exhausting the unpacker', () => {
  it.each([
    ['gzip', gzipSync],
    ['zstd', zstdCompressSync],
  ] as const)('CVE-2023-25153: a bomb of %s ends at the ratio', async (compression, compress) => {
    const bomb = compress(Buffer.concat([member({ name: 'a', size: 64e6 }), Buffer.alloc(64e6)]));
    const form = makeDirectoryForm({ bounds: { ...DEFAULT_BOUNDS, ratioFloor: 1e6 } });
    await expect(unpack(bomb, { compression, form })).rejects.toMatchObject({ code: 'limit' });
  });

  it('CVE-2023-25153: headers that claim more than the bounds', async () => {
    const cases: Member[] = [
      { name: 'x', type: 'x', size: 8 * 1024 ** 2 * 8 - 1 },
      { name: 'L', type: 'L', size: 1e6 },
      { name: 'huge', pax: { size: '9007199254740991' } },
      { name: 'long', pax: { path: 'a/'.repeat(3000) } },
      { name: 'xattr', pax: { 'SCHILY.xattr.user.a': Buffer.alloc(70_000) } },
    ];
    for (const one of cases) {
      const { error } = await attack([one]);
      expect(error, String(one.name)).toMatchObject({ name: 'TspodError', code: 'limit' });
      expect(String(error)).toMatch(/bound of \d+/);
    }
  });

  it('CVE-2021-20291: a malformed layer ends the unpack instead of blocking it', async () => {
    // much more input than pipes hold, after an error in the first block
    const archive = Buffer.concat([Buffer.alloc(512, 1), Buffer.alloc(32e6)]);
    await expect(unpack(archive)).rejects.toMatchObject(REFUSED);
  });

  it('CVE-2021-20291: input that stops coming ends the unpack', async () => {
    const root = join(testFolder(), 'ours');
    mkdirSync(root);
    const sink = makeDirectoryForm({ inputIdleMs: 300 }).begin(root, 'none', 'sha256');
    await sink.write(tar({ name: 'a', data: 'b' }).subarray(0, 700));
    const stalled = async (): Promise<void> => {
      for (;;) {
        await sink.write(Buffer.alloc(0)); // nothing: only asks whether the child still lives
        await new Promise(resolve => setTimeout(resolve, 50));
      }
    };
    await expect(stalled()).rejects.toThrow(/no data came/);
    await sink.abort();
    expect(existsSync(root)).toBe(false);
  });

  it('an abort at any time leaves neither process nor folder', async () => {
    const root = join(testFolder(), 'ours');
    mkdirSync(root);
    const sink = makeDirectoryForm().begin(root, 'none', 'sha256');
    await sink.write(tar({ name: 'a', data: Buffer.alloc(5e6) }).subarray(0, 2e6));
    await sink.abort();
    await sink.abort();
    expect(existsSync(root)).toBe(false);
    await expect(sink.write(Buffer.alloc(1))).rejects.toMatchObject(REFUSED);
    const processes = execFileSync('ps', ['-eo', 'args'], { encoding: 'utf8' });
    expect(processes).not.toContain(root);
  });
});
