/**
 * A layer's disks for machines with an older kernel: blocks of 4096 bytes, data apart. The kernel shows the same tree
 * of them as of the store's own form, and fsck.erofs finds nothing.
 */
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { artifact } from '../../src/sys/artifacts.ts';
import { cases, fuzzTimeout } from '../support/fuzz.ts';
import { debianRootfs } from './debian-rootfs.ts';
import { index, mountedTree } from './erofs-image.ts';
import { erofsUtil } from './erofs-utils.ts';
import { makeSparse, makeTree, pack } from './sources.ts';
import { type Member, tar } from './tar-writer.ts';
import { differences } from './tree.ts';
import { testFolder } from './unpacking.ts';

/** What the process that makes them says; nothing when all is well. */
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
  const indexed = index(bytes, folder);
  expect(makeDisk(folder)).toBe('');
  const [image, data] = [join(folder, 'disk.erofs'), join(folder, 'disk.data')];
  expect(readFileSync(image).readUInt8(1024 + 12)).toBe(12);
  for (const file of [image, data]) expect(statSync(file).size % 4096).toBe(0);
  const disk = mountedTree({ ...indexed, image, tar: data }, join(folder, 'disk'));
  expect(differences(mountedTree(indexed, join(folder, 'own')), disk)).toEqual({});
  expect(erofsUtil('fsck.erofs', '--extract', `--device=${data}`, image)).toEqual({
    status: 0,
    text: '',
  });
  expect(readdirSync(folder).filter(name => /\.\d+$/.test(name))).toEqual([]);
}

describe('disks of a layer', () => {
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
    writeFileSync(join(folder, 'layer.tar'), Buffer.alloc(1024, 'x'));
    expect(makeDisk(folder)).toMatch(/"ok":false/);
    expect(readdirSync(folder)).toEqual(['layer.tar']);
  });
});
