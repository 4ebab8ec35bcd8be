/** Overlayfs itself is the oracle: the copy must be what a mount of the same layers shows. */
import { execFileSync } from 'node:child_process';
import { existsSync, lstatSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { flattenLayers } from '../../stage0/unpack/flatten.ts';
import { type Member, tar } from './tar-writer.ts';
import { differences, listTree, type TreeEntry } from './tree.ts';
import { testFolder, unpack } from './unpacking.ts';

async function layersOf(...archives: readonly (readonly Member[])[]): Promise<string[]> {
  const layers: string[] = [];
  for (const members of archives) layers.push((await unpack(tar(...members))).root);
  return layers;
}

async function flattened(layers: readonly string[]): Promise<string> {
  const target = join(testFolder(), 'target');
  mkdirSync(target);
  await flattenLayers(layers, target);
  return target;
}

/** What overlayfs shows of the layers, packed and unpacked by GNU tar, since the mount is gone then. */
function overlay(layers: readonly string[]): string {
  const folder = testFolder();
  const [mount, copy] = [join(folder, 'mount'), join(folder, 'copy')];
  mkdirSync(mount);
  mkdirSync(copy);
  const lower = [...layers].reverse().join(':');
  const flags = "--xattrs --xattrs-include='*' --numeric-owner";
  const script =
    `mount -t overlay none -o ro,lowerdir=${lower} ${mount} && ` +
    `tar ${flags} --format=pax -cf ${folder}/tar -C ${mount} . && ` +
    `tar ${flags} -xpf ${folder}/tar -C ${copy}`;
  execFileSync('unshare', ['-m', '--propagation', 'private', 'sh', '-c', script]);
  return copy;
}

/** Overlayfs may give names of one inode separate numbers; the root is whoever is topmost. */
function comparable(tree: Map<string, TreeEntry>): Map<string, TreeEntry> {
  tree.delete('.');
  return tree;
}

describe('flattenLayers', () => {
  it('shows what overlayfs shows', async () => {
    const layers = await layersOf(
      [
        { name: './', type: '5', mode: 0o751, uid: 3 },
        { name: 'etc/', type: '5', mode: 0o700, mtime: 100 },
        { name: 'etc/passwd', data: 'root' },
        { name: 'etc/gone', data: 'gone' },
        { name: 'opaque/old', data: 'old' },
        { name: 'folder/below', data: 'below' },
        { name: 'tree/deep/below', data: 'below' },
        { name: 'was-file', data: 'file' },
        { name: 'was-folder/x', data: 'x' },
        { name: 'was-link', type: '2', link: 'etc' },
        { name: 'h1', data: 'hard', uid: 7, mode: 0o4755 },
        { name: 'h2', type: '1', link: 'h1' },
        { name: 's1', type: '2', link: '/etc/passwd' },
        { name: 'fifo', type: '6', mode: 0o600 },
        { name: 'null', type: '3', major: 1, minor: 3, mode: 0o666, gid: 9 },
      ],
      [
        { name: 'etc/', type: '5', mode: 0o755, mtime: 200.0, gid: 4 },
        { name: 'etc/.wh.gone' },
        {
          name: 'etc/shadow',
          data: 's',
          pax: { mtime: '77.123456789', 'SCHILY.xattr.user.a': 'b' },
        },
        { name: 'opaque/.wh..wh..opq' },
        { name: 'opaque/new', data: 'new' },
        { name: '.wh.folder' },
        { name: 'folder/above', data: 'above' },
        { name: 'was-file/now', data: 'folder' },
        { name: 'was-folder', data: 'file' },
        { name: 'was-link/now', data: 'folder' },
      ],
      [
        { name: 'etc/gone', data: 'back' },
        {
          name: 'tree/deep/above',
          data: 'above',
          pax: { 'SCHILY.xattr.trusted.overlay.x': 'own' },
        },
        { name: 'h1', data: 'broken link' },
        { name: '.wh.s1' },
      ],
    );
    const target = await flattened(layers);
    const ours = listTree(target);
    expect(ours.get('.')).toMatchObject({ mode: '751', uid: 3 });
    expect(differences(comparable(listTree(overlay(layers))), comparable(ours))).toEqual({});
    expect(ours.get('tree/deep/above')?.xattrs).toEqual({
      'trusted.overlay.x': Buffer.from('own').toString('hex'),
    });
  });

  it('keeps hard links and holes', async () => {
    const layers = await layersOf([
      { name: 'a/x', data: 'hard', uid: 7, mode: 0o4755 },
      { name: 'b/y', type: '1', link: 'a/x' },
      {
        name: 'sparse',
        data: Buffer.alloc(4096, 'd'),
        pax: { 'GNU.sparse.size': '10000000', 'GNU.sparse.map': '1048576,4096' },
      },
    ]);
    const [layer = ''] = layers;
    const target = await flattened(layers);
    expect(differences(listTree(layer), listTree(target))).toEqual({});
    expect(lstatSync(join(target, 'sparse')).blocks).toBeLessThan(200);
  });

  it('never writes through a link of a layer', async () => {
    const outside = testFolder();
    writeFileSync(join(outside, 'f'), 'as it was');
    const layers = await layersOf(
      [
        { name: 'd', type: '2', link: outside },
        { name: 'f', type: '2', link: join(outside, 'f') },
      ],
      [
        { name: 'd/', type: '5' },
        { name: 'd/evil', data: 'evil' },
        { name: 'f', data: 'evil' },
      ],
    );
    const target = await flattened(layers);
    expect(readFileSync(join(target, 'd/evil'), 'utf8')).toBe('evil');
    expect(readFileSync(join(outside, 'f'), 'utf8')).toBe('as it was');
    expect(existsSync(join(outside, 'evil'))).toBe(false);
  });
});
