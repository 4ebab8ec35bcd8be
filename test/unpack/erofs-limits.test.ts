/** The format's edges and ours, shown by the kernel and checked by fsck.erofs. */
import { createHash } from 'node:crypto';
import {
  closeSync,
  ftruncateSync,
  openSync,
  readFileSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { TspodError } from '../../src/errors.ts';
import { Budget } from '../../stage0/unpack/erofs/budget.ts';
import { ErofsIndexer } from '../../stage0/unpack/erofs/index-writer.ts';
import { SPARSE_BOUNDS, SparsePlanner } from '../../stage0/unpack/erofs/sparse-plan.ts';
import type { TarEntry } from '../../stage0/unpack/tar-entry.ts';
import { TarReader } from '../../stage0/unpack/tar-reader.ts';
import { cases, fuzzTimeout } from '../support/fuzz.ts';
import { erofsMount, index, listMounted, mountedTree, withMounts } from './erofs-image.ts';
import { erofsUtil } from './erofs-utils.ts';
import { type Member, member, paxMember, tar } from './tar-writer.ts';
import { differences, listTree, type TreeEntry } from './tree.ts';
import { gnuUnpack, testFolder, unpack } from './unpacking.ts';

/** The tree as the kernel shows it; fsck.erofs agrees that the image is good. */
function made(archive: Buffer): Map<string, TreeEntry> {
  const folder = testFolder();
  const indexed = index(archive, folder);
  const checked = erofsUtil('fsck.erofs', '--extract', `--device=${indexed.tar}`, indexed.image);
  expect(checked).toEqual({ status: 0, text: '' });
  return mountedTree(indexed, folder);
}

const sha256 = (data: string | Buffer) => createHash('sha256').update(data).digest('hex');

describe('names', () => {
  it('of 255 bytes of any value, in folders of any size around a block', () => {
    const members: Member[] = [];
    const expected: string[] = [];
    for (let count = 0; count < 12; count += 1) {
      members.push({ name: `f${count}/`, type: '5' });
      for (let at = 0; at < count; at += 1) {
        const name = Buffer.alloc(255, 0x80 + at);
        name[254] = 1 + ((at * 37 + count) % 46);
        members.push({
          name: 'x',
          pax: { path: Buffer.concat([Buffer.from(`f${count}/`), name]) },
          data: `${count}.${at}`,
        });
        expected.push(`f${count}/${name.toString('latin1')}`);
      }
    }
    const tree = made(tar(...members));
    expect([...tree.keys()].filter(name => name.includes('/')).sort()).toEqual(expected.sort());
  });

  it('sort around `.` and `..` by bytes and all are found', () => {
    const names = ['!', '-', '--', '.', '..', '...', '.a', '..a', '.-', '/', '0', '\x01', '\xff'];
    const all = names.filter(name => !['.', '..', '/'].includes(name));
    const tree = made(tar(...all.map(name => ({ name: Buffer.from(name, 'latin1'), data: name }))));
    expect(tree.size).toBe(all.length + 1);
    for (const name of all) expect(tree.get(name)?.hash).toBe(sha256(name));
  });

  it('of every length: directory blocks that end everywhere', () => {
    const members = Array.from({ length: 250 }, (_, at) => ({
      name: 'x',
      pax: { path: String.fromCharCode(97 + (at % 26)).repeat(at + 1) },
      data: String(at),
    }));
    const tree = made(tar(...members));
    expect(tree.size).toBe(251);
    for (const [at, { pax }] of members.entries()) {
      expect(tree.get(pax.path)?.hash).toBe(sha256(String(at)));
    }
  });

  it('a path of 4095 bytes is the longest, through links too', () => {
    const deep = 'a/'.repeat(2046);
    const folder = testFolder();
    const indexed = index(tar({ name: 'x', pax: { path: `${deep}bb` }, data: 'deep' }), folder);
    const root = join(folder, 'mounted');
    const show = ['sh', '-c', 'cd "$0" && cat "$1"', root, `${deep}bb`];
    expect(withMounts([erofsMount(indexed, root)], ...show)).toBe('deep');
    const long = (path: string) => () => index(tar({ name: 'x', pax: { path } }), testFolder());
    expect(long(`${deep}bbb`)).toThrow(/4095 bytes/);
    expect(long('n'.repeat(256))).toThrow(/255 bytes/);
    const half = 'b/'.repeat(1100);
    const through: Member[] = [
      { name: 'x', pax: { path: `${half}c/` }, type: '5' },
      { name: 'l', type: '2', pax: { linkpath: half } },
      { name: 'x', pax: { path: `l/${'d/'.repeat(1000)}` }, type: '5' },
    ];
    expect(() => index(tar(...through), testFolder())).toThrow(/4095 bytes/);
  });

  it('of folders that the archive does not hold take a bounded memory', () => {
    const members = Array.from({ length: 40 }, (_, at) =>
      member({ name: 'x', pax: { path: `${at}${'/a'.repeat(2000)}` } }),
    );
    const indexer = new ErofsIndexer({ memory: 32 * 1024 ** 2 });
    const reader = new TarReader(indexer);
    expect(() => reader.write(Buffer.concat(members))).toThrow(/33554432 bytes of memory/);
    expect(indexer.entries).toBeGreaterThan(30);
  });

  it('a folder of 100,000 entries', () => {
    const members = Array.from({ length: 100_000 }, (_, at) =>
      member({ name: `many/${(at * 7919) % 100_000}` }),
    );
    const folder = testFolder();
    const indexed = index(Buffer.concat([...members, Buffer.alloc(1024)]), folder);
    const root = join(folder, 'mounted');
    const said = withMounts(
      [erofsMount(indexed, root)],
      'sh',
      '-c',
      `ls "$0/many" | sort -n | sha256sum; stat -c %s "$0/many/77777" "$0/many/0"`,
      root,
    );
    const names = `${Array.from({ length: 100_000 }, (_, at) => at).join('\n')}\n`;
    expect(said).toBe(`${sha256(names)}  -\n0\n0\n`);
  }, 60_000);
});

describe('inodes', () => {
  it('numbers at their ends', () => {
    const ids = { uid: '4294967294', gid: '4294967293' };
    const tree = made(
      tar(
        { name: 'ids', pax: ids },
        { name: 'long-ago', pax: { mtime: '-9007199254.5' } },
        { name: 'far', pax: { mtime: '99999999999.000000001' } },
        { name: 'block', type: '4', mode: 0o7777, major: 4095, minor: 1_048_575 },
        { name: 'plain', mode: 0 },
      ),
    );
    expect(tree.get('ids')).toMatchObject({ uid: 4_294_967_294, gid: 4_294_967_293 });
    expect(tree.get('long-ago')?.mtime).toBe(-9_007_199_254_500_000_000n);
    expect(tree.get('far')?.mtime).toBe(99_999_999_999_000_000_001n);
    expect(tree.get('block')).toMatchObject({ mode: '7777', rdev: 0xff_ff_ff_ff });
    expect(tree.get('plain')?.mode).toBe('0');
  });

  it('70,000 links of one file', () => {
    const links = Array.from({ length: 70_000 }, (_, at) =>
      member({ name: `d${at % 10}/l${at}`, type: '1', link: 'file' }),
    );
    const folder = testFolder();
    const file = member({ name: 'file', data: 'x' });
    const indexed = index(Buffer.concat([file, ...links, Buffer.alloc(1024)]), folder);
    const root = join(folder, 'mounted');
    const stat = ['stat', '-c', '%h %s', `${root}/file`, `${root}/d9/l69999`];
    expect(withMounts([erofsMount(indexed, root)], ...stat)).toBe('70001 1\n70001 1\n');
  }, 60_000);

  it('links of every length', () => {
    const lengths = [1, 59, 60, 383, 384, 447, 448, 449, 480, 511, 512, 513, 1024, 4000, 4095];
    const members = lengths.map(length => ({
      name: `l${length}`,
      type: '2',
      pax: { linkpath: 't'.repeat(length) },
    }));
    const tree = made(tar(...members));
    for (const length of lengths) {
      expect(tree.get(`l${length}`)).toMatchObject({ size: length, link: 't'.repeat(length) });
    }
  });
});

describe('large files', () => {
  /** A member's header is as it is; the data is a hole of the tar but for a mark at each end. */
  it('of more than 4 and 8 GiB', () => {
    const folder = testFolder();
    const path = join(folder, 'layer.tar');
    const fd = openSync(path, 'w');
    const indexer = new ErofsIndexer();
    let offset = 0;
    const sizes = [2 ** 32 - 1, 2 ** 32, 2 ** 33 + 12_345];
    for (const [at, size] of sizes.entries()) {
      const entry = { ...ENTRY, name: Buffer.from(`f${at}`), size, offset };
      indexer.begin({ ...entry, dataOffset: offset + 512 });
      indexer.end();
      writeSync(fd, `start${at}`, offset + 512);
      writeSync(fd, `end${at}`, offset + 512 + size - 4);
      offset += 512 + Math.ceil(size / 512) * 512;
    }
    ftruncateSync(fd, offset);
    closeSync(fd);
    const image = join(folder, 'image.erofs');
    writeFileSync(image, Buffer.concat([...indexer.finish(offset)]));
    const root = join(folder, 'mounted');
    const show = 'for f in "$0"/*; do stat -c %s $f; head -c 6 $f; tail -c 4 $f; echo; done';
    const mount = erofsMount({ image, tar: path, indexer }, root);
    expect(withMounts([mount], 'sh', '-c', show, root)).toBe(
      sizes.map((size, at) => `${size}\nstart${at}end${at}\n`).join(''),
    );
  });
});

const ENTRY: TarEntry = {
  type: 'file',
  name: Buffer.from('f'),
  linkName: Buffer.alloc(0),
  mode: 0o644,
  uid: 0,
  gid: 0,
  size: 0,
  major: 0,
  minor: 0,
  mtimeSec: 1,
  mtimeNsec: 0,
  atimeSec: 1,
  atimeNsec: 0,
  xattrs: [],
  sparse: false,
  segments: [],
  offset: 0,
  dataOffset: 512,
};

/** A sparse member of format 0.1 with these pieces. */
function sparse(
  name: string,
  size: number,
  pieces: readonly (readonly [number, number])[],
): Member {
  return {
    name,
    data: Buffer.concat(pieces.map(([at, length]) => Buffer.alloc(length, `${name}${at} `))),
    pax: {
      'GNU.sparse.size': String(size),
      'GNU.sparse.numblocks': String(pieces.length),
      'GNU.sparse.map': pieces.flat().join(','),
    },
  };
}

describe('sparse files', () => {
  it('as they are unpacked, however the pieces lie', async () => {
    const members = [
      sparse('aligned', 100_000, [
        [512, 512],
        [4096, 8192],
        [99_840, 160],
      ]),
      sparse('large-steps', 2 ** 24, [
        [2 ** 20, 2 ** 20],
        [2 ** 23, 2 ** 21],
        [2 ** 24, 0],
      ]),
      sparse('adjacent', 8192, [
        [0, 4096],
        [4096, 4096],
      ]),
      sparse('all', 5000, [[0, 5000]]),
      sparse('empty', 0, [[0, 0]]),
      sparse('zero-length', 8192, [
        [100, 0],
        [4096, 1024],
        [8192, 0],
      ]),
      sparse('hole', 2 ** 41, [[2 ** 41, 0]]),
    ];
    // here tools differ: to GNU tar every piece of an archive begins at a block
    const unaligned = [
      sparse('file-unaligned', 100_000, [
        [100, 512],
        [5000, 1024],
      ]),
      sparse('tar-unaligned', 100_000, [
        [512, 100],
        [4096, 10_000],
      ]),
      sparse('end-unaligned', 100_000, [
        [512, 512],
        [4096, 100],
      ]),
      sparse(
        'bytes',
        20_000,
        Array.from({ length: 100 }, (_, at) => [at * 199, 1 + (at % 3)]),
      ),
      sparse('far', 2 ** 36, [[2 ** 35 + 5, 7]]),
    ];
    const small = (some: readonly Member[]) =>
      some.filter(({ name }) => !['hole', 'far'].includes(String(name)));
    const byGnu = tar(...small(members));
    const gnu = listTree(gnuUnpack(byGnu, testFolder()));
    const ours = made(byGnu);
    for (const tree of [gnu, ours]) tree.delete('.');
    expect(differences(gnu, ours)).toEqual({});
    const bytes = tar(...small(unaligned));
    const files = listTree((await unpack(bytes)).root);
    const image = made(bytes);
    for (const tree of [files, image]) tree.delete('.');
    expect(differences(files, image)).toEqual({});
    const folder = testFolder();
    const indexed = index(tar(...members, ...unaligned), folder);
    const root = join(folder, 'mounted');
    const show =
      'stat -c %s "$0/hole"; tail -c 3 "$0/hole" | od -An -c; dd if="$0/far" bs=1 skip=34359738372 count=9 status=none';
    expect(withMounts([erofsMount(indexed, root)], 'sh', '-c', show, root)).toBe(
      `${2 ** 41}\n  \\0  \\0  \\0\n\0far3435\0`,
    );
  });

  it('are copied only where blocks would not do, in the largest chunks', () => {
    const plan = (size: number, segments: readonly number[]) => {
      const planner = new SparsePlanner(new Budget());
      const { chunkBits, chunks, copied } = planner.plan({
        ...ENTRY,
        sparse: true,
        size,
        segments,
      });
      return [chunkBits, chunks, copied?.size];
    };
    expect(plan(100_001, [0, 512, 99_840, 161])).toEqual([9, 196, undefined]);
    expect(plan(100_001, [8192, 4096, 16_384, 83_617])).toEqual([12, 25, undefined]);
    expect(plan(5000, [0, 5000])).toEqual([13, 1, undefined]);
    expect(plan(2 ** 41, [])).toEqual([40, 2, undefined]);
    expect(plan(2 ** 41, [2 ** 40, 2 ** 40])).toEqual([40, 2, undefined]);
    expect(plan(0, [])).toEqual([9, 0, undefined]);
    expect(plan(100_001, [0, 513])).toEqual([12, 25, 1]);
    expect(plan(100_001, [100, 512, 8190, 4])).toEqual([12, 25, 3]);
  });

  it('are bounded: what is copied, and the number of chunks', () => {
    const piece = (at: number) => [at * 2 ** 20 + 1, 1] as const;
    const many = Array.from({ length: SPARSE_BOUNDS.copiedBytes / 4096 + 1 }, (_, at) => piece(at));
    expect(() => index(tar(sparse('copied', 2 ** 50, many)), testFolder())).toThrow(
      `${SPARSE_BOUNDS.copiedBytes} bytes of sparse files`,
    );
    const members = [1, 2].map(at =>
      sparse(`f${at}`, SPARSE_BOUNDS.chunks * 512 * 0.75, [[512, 512]]),
    );
    expect(() => index(tar(...members), testFolder())).toThrow(
      `${SPARSE_BOUNDS.chunks} chunks of sparse files`,
    );
  });
});

describe('attributes', () => {
  const attribute = (name: string, value: string | Buffer) => ({ [`SCHILY.xattr.${name}`]: value });

  it('long, many, shared and empty ones', () => {
    const long = Buffer.alloc(65_000, 'long ');
    const many = Object.assign(
      {},
      ...Array.from({ length: 300 }, (_, at) => attribute(`user.n${at}`, `value ${at}`)),
    );
    const tree = made(
      tar(
        { name: 'long', pax: attribute('user.long', long) },
        { name: 'again', pax: attribute('user.long', long) },
        { name: 'many', pax: many },
        { name: 'many-more', pax: { ...many, ...attribute('trusted.own', '') }, data: 'x' },
        { name: 'folder/', type: '5', pax: many },
        { name: 'link', type: '2', link: 't'.repeat(90), pax: attribute('trusted.l', long) },
        { name: 'fifo', type: '6', pax: attribute('trusted.f', 'f') },
        { name: 'name', pax: attribute(`user.${'n'.repeat(250)}`, 'v') },
      ),
    );
    const hex = (value: string | Buffer) => Buffer.from(value).toString('hex');
    const all = Array.from({ length: 300 }, (_, at) => [`user.n${at}`, hex(`value ${at}`)]);
    expect(tree.get('long')?.xattrs).toEqual({ 'user.long': hex(long) });
    expect(tree.get('again')?.xattrs).toEqual({ 'user.long': hex(long) });
    expect(tree.get('many')?.xattrs).toEqual(Object.fromEntries(all));
    expect(tree.get('many-more')).toMatchObject({
      xattrs: Object.fromEntries([...all, ['trusted.own', '']]),
      hash: sha256('x'),
    });
    expect(tree.get('folder')?.xattrs).toEqual(Object.fromEntries(all));
    expect(tree.get('link')).toMatchObject({ xattrs: { 'trusted.l': hex(long) }, size: 90 });
    expect(tree.get('fifo')?.xattrs).toEqual({ 'trusted.f': hex('f') });
    expect(tree.get('name')?.xattrs).toEqual({ [`user.${'n'.repeat(250)}`]: hex('v') });
  });

  it('are bounded: one value, all of a file, the whole image', () => {
    const one = (pax: Record<string, string | Buffer>) => () =>
      index(tar({ name: 'x', pax }), testFolder());
    expect(one(attribute('user.a', Buffer.alloc(65_535)))).not.toThrow();
    expect(one(attribute('user.a', Buffer.alloc(65_536)))).toThrow(/bound of 65535 bytes/);
    const all = Object.fromEntries(
      Array.from({ length: 800 }, (_, at) => [`SCHILY.xattr.user.${at}`, 'v'.repeat(1000)]),
    );
    expect(one(all)).toThrow(/262148 bytes of extended attributes/);
    // a global header gives them to every member: 255 are shared, the rest is with each of them
    const global = Object.fromEntries(
      Array.from({ length: 480 }, (_, at) => [`SCHILY.xattr.user.${at}`, 'v'.repeat(1000)]),
    );
    const members = Array.from({ length: 3000 }, (_, at) => member({ name: `m${at}` }));
    const bomb = Buffer.concat([paxMember('g', global), ...members, Buffer.alloc(1024)]);
    expect(() => index(bomb, testFolder())).toThrow(/bytes of metadata for an archive of/);
  }, 60_000);

  it('that would be commands to overlayfs are escaped, whiteouts are its own', () => {
    const tree = made(
      tar(
        { name: '.wh.gone' },
        { name: 'd/.wh..wh..opq' },
        { name: 'd/', type: '5', mtime: 5, pax: attribute('trusted.overlay.opaque', 'n') },
        { name: '.wh..wh..opq' },
      ),
    );
    expect(tree.get('gone')).toMatchObject({ type: 2, rdev: 0, mode: '0' });
    expect(tree.get('d')?.xattrs).toEqual({
      'trusted.overlay.opaque': '79',
      'trusted.overlay.overlay.opaque': '6e',
    });
    expect(tree.get('.')?.xattrs).toEqual({ 'trusted.overlay.opaque': '79' });
  });
});

describe('the image', () => {
  const archive = tar(
    { name: './', type: '5', mode: 0o1751, uid: 3, gid: 4 },
    { name: 'b', data: 'bb', pax: { 'SCHILY.xattr.user.b': 'b' } },
    { name: 'a/x', data: 'x' },
    { name: '.wh..wh..opq' },
  );

  it('is the same for the same tar, carries the UUID, and tells of its root', () => {
    const images = [1 << 20, 777, 1].map(chunk => {
      const indexed = index(archive, testFolder(), chunk);
      expect(indexed.indexer.root).toEqual({ mode: 0o1751, uid: 3, gid: 4, opaque: true });
      expect([indexed.indexer.entries, indexed.indexer.bytes]).toEqual([4, 3]);
      return readFileSync(indexed.image).toString('hex');
    });
    expect(new Set(images).size).toBe(1);
    const uuid = Buffer.from('0102030405060708090a0b0c0d0e0f10', 'hex');
    const [first] = new ErofsIndexer({ uuid }).finish(0);
    expect(first?.subarray(1024 + 48, 1024 + 64)).toEqual(uuid);
  });

  it('of an empty tar has a root', () => {
    expect([...made(Buffer.alloc(0))].map(([name, { mode }]) => [name, mode])).toEqual([
      ['.', '755'],
    ]);
  });

  it('and the tar behind it in one file are one device', () => {
    const folder = testFolder();
    const indexed = index(archive, folder);
    const flat = join(folder, 'flat');
    writeFileSync(flat, Buffer.concat([readFileSync(indexed.image), readFileSync(indexed.tar)]));
    const roots = [join(folder, 'one'), join(folder, 'two')] as const;
    const mounts = [erofsMount(indexed, roots[0]), [flat, roots[1], 'erofs', 1, ''] as const];
    const [two, one] = listMounted(mounts, roots);
    expect(one?.get('a/x')?.hash).toBe(sha256('x'));
    expect(one).toEqual(two);
  });

  it('what goes into it may end without its last padding', () => {
    const cut = member({ name: 'f', data: 'cut' }).subarray(0, 515);
    expect(made(Buffer.from(cut)).get('f')?.hash).toBe(sha256('cut'));
  });
});

describe('any bytes', () => {
  const seeds = [
    tar({ name: 'a/b', data: 'data' }, { name: 'l', type: '2', link: 'a' }, { name: 'l/.wh.x' }),
    tar(
      sparse('s', 10_000, [
        [100, 10],
        [4096, 600],
      ]),
      { name: 'h', type: '1', link: 's' },
    ),
    tar({ name: 'x', pax: { 'SCHILY.xattr.user.a': 'v', path: 'a/'.repeat(80) }, type: '5' }),
  ];
  const changed = fc
    .tuple(
      fc.constantFrom(...seeds),
      fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 8 }),
      fc.boolean(),
    )
    .map(([seed, changes, mend]) => {
      const bytes = Buffer.from(seed);
      for (const [at, value] of changes) bytes[at % bytes.length] = value;
      if (mend) for (let at = 0; at < bytes.length; at += 512) mendChecksum(bytes.subarray(at));
      return bytes;
    });

  it(
    'give an image or a TspodError',
    () => {
      const any = fc.oneof(
        changed,
        fc.uint8Array({ maxLength: 2000 }).map(bytes => Buffer.from(bytes)),
      );
      let images = 0;
      fc.assert(
        fc.property(any, bytes => {
          try {
            const indexer = new ErofsIndexer();
            const reader = new TarReader(indexer);
            reader.write(bytes);
            reader.end();
            let length = 0;
            for (const piece of indexer.finish(bytes.length)) length += piece.length;
            expect(length % 4096).toBe(0);
            images += 1;
          } catch (error) {
            if (!(error instanceof TspodError)) throw error;
          }
        }),
        { numRuns: cases(5000) },
      );
      expect(images).toBeGreaterThan(100);
    },
    fuzzTimeout(60_000),
  );
});

/** Gives what looks like a header its checksum. */
function mendChecksum(block: Buffer): void {
  if (block.toString('latin1', 257, 262) !== 'ustar') return;
  block.fill(0x20, 148, 156);
  const sum = block.subarray(0, 512).reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 8, 'latin1');
}
