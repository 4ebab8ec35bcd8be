/** GNU tar is the oracle: what it makes of an archive and what the kernel shows of our image are the same. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { native } from '../../src/sys/native.ts';
import { debianRootfs } from './debian-rootfs.ts';
import {
  erofsMount,
  index,
  listMounted,
  type Mount,
  mountedTree,
  overlaidTree,
} from './erofs-image.ts';
import { erofsUtil } from './erofs-utils.ts';
import { addWhatPaxKeeps, makeSparse, makeTree, pack } from './sources.ts';
import { tar } from './tar-writer.ts';
import { differences, listTree } from './tree.ts';
import { gnuUnpack, testFolder } from './unpacking.ts';

describe('a Debian root filesystem', () => {
  it('mounted and overlaid is what GNU tar unpacks', () => {
    const file = debianRootfs();
    const folder = testFolder();
    const expected = listTree(gnuUnpack(file, folder));
    const indexed = index(file, folder);
    expect(differences(expected, mountedTree(indexed, folder))).toEqual({});
    expect(indexed.indexer.entries).toBe(expected.size);
    const overlaid = overlaidTree(indexed, folder);
    // an overlay's root is the upper layer's
    for (const tree of [expected, overlaid]) tree.delete('.');
    expect(differences(expected, overlaid)).toEqual({});
    expect(statSync(indexed.image).size % 4096).toBe(0);
  }, 300_000);
});

describe('mkfs.erofs', () => {
  it('makes an image of the same tree', () => {
    const source = testFolder();
    makeTree(source);
    native().lsetxattr(join(source, 'a/file'), 'user.a', Buffer.from('b'));
    // mkfs.erofs reads a fraction without its last zeros, as GNU tar writes it, as another time
    const attributes = ['--format=pax', '--xattrs', '--xattrs-include=*', '--mtime=@1700000000'];
    for (const archive of [debianRootfs(), pack(source, ...attributes)]) {
      const folder = testFolder();
      const ours = index(archive, folder);
      const image = join(folder, 'mkfs.erofs');
      expect(erofsUtil('mkfs.erofs', '--quiet', '--tar=i', image, ours.tar).status).toBe(0);
      const theirs = mountedTree({ ...ours, image }, join(folder, 'theirs'));
      expect(differences(theirs, mountedTree(ours, folder))).toEqual({});
      expect(statSync(ours.image).size).toBeLessThan(statSync(image).size * 1.1 + 4096);
    }
  }, 120_000);
});

describe('layers under an overlay', () => {
  const lowest = tar(
    { name: 'etc/', type: '5', mode: 0o750, mtime: 1 },
    { name: 'etc/gone', data: 'gone' },
    { name: 'etc/kept', data: 'kept' },
    { name: 'etc/gone-folder/x', data: 'x' },
    { name: 'var/cache/old', data: 'old' },
    { name: 'opt/again/old', data: 'old' },
    { name: 'opt/type', data: 'file' },
  );
  const upper = tar(
    { name: 'etc/', type: '5', mode: 0o711, mtime: 2 },
    { name: 'etc/.wh.gone' },
    { name: 'etc/.wh.gone-folder' },
    { name: 'var/cache/.wh..wh..opq' },
    { name: 'var/cache/new', data: 'new' },
    { name: 'opt/.wh.again' },
    { name: 'opt/again/new', data: 'new' },
    { name: 'opt/type/', type: '5' },
    {
      name: 'opt/attributes',
      pax: { 'SCHILY.xattr.trusted.overlay.opaque': 'x' },
    },
  );

  it('hide what they say', () => {
    const folder = testFolder();
    const layers = [upper, lowest].map((archive, at) => {
      const own = join(folder, String(at));
      mkdirSync(own);
      return { indexed: index(archive, own), root: join(own, 'mounted') };
    });
    const root = join(folder, 'overlaid');
    const options = `lowerdir=${layers.map(layer => layer.root).join(':')}`;
    const mounts: Mount[] = layers.map(layer => erofsMount(layer.indexed, layer.root));
    const [tree] = listMounted([...mounts, ['overlay', root, 'overlay', 1, options]], [root]);
    expect([...(tree ?? [])].map(([name]) => name)).toEqual([
      '.',
      'etc',
      'etc/kept',
      'opt',
      'opt/again',
      'opt/again/new',
      'opt/attributes',
      'opt/type',
      'var',
      'var/cache',
      'var/cache/new',
    ]);
    expect(tree?.get('etc')).toMatchObject({ mode: '711', mtime: 2_000_000_000n });
    expect(tree?.get('opt/attributes')?.xattrs).toEqual({
      'trusted.overlay.opaque': Buffer.from('x').toString('hex'),
    });
  });
});

describe("archives by GNU tar's formats", () => {
  const rich = ['gnu', 'pax'];
  it.each(['v7', 'oldgnu', 'gnu', 'ustar', 'pax'])('%s', format => {
    const source = testFolder();
    makeTree(source);
    if (rich.includes(format)) addWhatPaxKeeps(source);
    const attributes = format === 'pax' ? ['--xattrs', '--xattrs-include=*'] : [];
    if (format === 'v7')
      for (const name of ['fifo', 'char', 'block']) execFileSync('rm', [join(source, name)]);
    const archive = pack(source, `--format=${format}`, ...attributes);
    const folder = testFolder();
    const expected = listTree(gnuUnpack(archive, folder));
    expect(differences(expected, mountedTree(index(archive, folder), folder))).toEqual({});
  });

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
    const indexed = index(archive, folder);
    expect(differences(expected, mountedTree(indexed, folder))).toEqual({});
    expect(statSync(indexed.image).size).toBeLessThan(1_000_000);
  });
});
