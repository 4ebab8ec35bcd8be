/** GNU tar is the oracle: what it makes of an archive and what the kernel shows of our image are the same. */
import { execFileSync } from 'node:child_process';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { debianRootfs } from './debian-rootfs.ts';
import { index, mountedTree, overlaidTree } from './erofs-image.ts';
import { addWhatPaxKeeps, makeSparse, makeTree, pack } from './sources.ts';
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
