/**
 * A layer's disk for machines with an older kernel, as the confined process makes it: the kernel shows the same tree of
 * it as of the store's own form, and fsck.erofs finds nothing.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { artifact } from '../../src/sys/artifacts.ts';
import { cases, fuzzTimeout } from '../support/fuzz.ts';
import { debianRootfs } from './debian-rootfs.ts';
import { index, listMounted, mountedTree } from './erofs-image.ts';
import { erofsUtil } from './erofs-utils.ts';
import { makeSparse, makeTree, pack } from './sources.ts';
import { type Member, tar } from './tar-writer.ts';
import { differences } from './tree.ts';
import { testFolder } from './unpacking.ts';

const MS_RDONLY = 1;

/** What the process that makes it says; nothing when all is well. */
function makeDisk(folder: string): string {
  const words = JSON.stringify({ parent: process.pid, root: folder });
  const { stdout, stderr } = spawnSync(process.execPath, [artifact('disk-child.js'), words], {
    encoding: 'utf8',
  });
  return stdout + stderr;
}

function expectSame(archive: Buffer | string): void {
  const folder = testFolder();
  const bytes = typeof archive === 'string' ? readFileSync(archive) : archive;
  const tree = join(folder, 'tree');
  mkdirSync(tree);
  const indexed = index(bytes, tree);
  expect(makeDisk(folder)).toBe('');
  expect(readdirSync(folder).sort()).toEqual(['tree', 'whole.erofs']);
  const image = join(folder, 'whole.erofs');
  expect(readFileSync(image).readUInt8(1024 + 12)).toBe(12);
  expect(statSync(image).size % 4096).toBe(0);
  const root = join(folder, 'disk');
  const [disk = new Map()] = listMounted([[image, root, 'erofs', MS_RDONLY, '']], [root]);
  expect(differences(mountedTree(indexed, join(folder, 'own')), disk)).toEqual({});
  expect(erofsUtil('fsck.erofs', '--extract', image)).toEqual({ status: 0, text: '' });
}

describe('the disk of a layer', () => {
  it('of a Debian root filesystem', () => expectSame(debianRootfs()), 300_000);

  it('of every kind of entry, sparse files among them', () => {
    const source = testFolder();
    makeTree(source);
    makeSparse(source);
    expectSame(pack(source, '--format=pax', '--xattrs', '--xattrs-include=*'));
    expectSame(pack(source, '--format=gnu', '--sparse'));
    expectSame(pack(source, '--format=pax', '--sparse', '--sparse-version=1.0'));
  }, 120_000);

  it('of nothing, of one empty file, of whole blocks and one byte more', () => {
    expectSame(tar());
    expectSame(tar({ name: 'empty', data: '' }));
    for (const size of [4095, 4096, 4097, 1_000_000])
      expectSame(tar({ name: 'a', data: Buffer.alloc(size, 'a') }, { name: 'b', data: 'b' }));
  });

  it('of a folder of 20,000 entries', () => {
    const members = Array.from(
      { length: 20_000 },
      (_, at): Member => ({
        name: `many/${'x'.repeat(at % 100)}${at}`,
        data: at % 7 === 0 ? `${at}` : '',
      }),
    );
    expectSame(tar(...members));
  }, 120_000);

  it(
    'of random files',
    () => {
      const file = fc.record({
        name: fc.stringMatching(/^[a-c]{1,3}(?:\/[a-c]{1,3}){0,2}$/),
        data: fc.nat({ max: 20_000 }).map(size => Buffer.alloc(size, 'data')),
      });
      fc.assert(
        fc.property(fc.uniqueArray(file, { selector: one => one.name, maxLength: 8 }), files => {
          const names = files.map(one => one.name);
          const leaves = files.filter(one => !names.some(name => name.startsWith(`${one.name}/`)));
          expectSame(tar(...leaves));
        }),
        { numRuns: cases(8) },
      );
    },
    fuzzTimeout(120_000),
  );

  it('of a damaged archive: the reason, and nothing half-made', () => {
    const folder = testFolder();
    mkdirSync(join(folder, 'tree'));
    writeFileSync(join(folder, 'tree/layer.tar'), Buffer.alloc(1024, 'x'));
    expect(makeDisk(folder)).toMatch(/"ok":false/);
    expect(readdirSync(folder)).toEqual(['tree']);
  });

  it('again after one that was killed; one that is there stays', () => {
    const folder = testFolder();
    mkdirSync(join(folder, 'tree'));
    index(tar({ name: 'a', data: 'a' }), join(folder, 'tree'));
    writeFileSync(join(folder, 'whole.erofs.new'), 'half');
    expect(makeDisk(folder)).toBe('');
    expect(readdirSync(folder).sort()).toEqual(['tree', 'whole.erofs']);
    const before = statSync(join(folder, 'whole.erofs')).ino;
    expect(makeDisk(folder)).toBe('');
    expect(statSync(join(folder, 'whole.erofs')).ino).toBe(before);
  });
});
