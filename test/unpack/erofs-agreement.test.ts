/**
 * Both forms of a layer agree: the same archive gives the same tree or is refused, as plain files by the
 * Extractor and as an EROFS image that the kernel shows.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { errnoOf, TspodError } from '../../src/errors.ts';
import { writeSelfContained } from '../../stage0/unpack/erofs/self-contained.ts';
import { cases, fuzzTimeout } from '../support/fuzz.ts';
import { erofsMount, type Indexed, index, listMounted, type Mount } from './erofs-image.ts';
import { erofsUtil } from './erofs-utils.ts';
import { type Member, tar } from './tar-writer.ts';
import { differences, listTree, type TreeEntry } from './tree.ts';
import { testFolder, unpack } from './unpacking.ts';

const MS_RDONLY = 1;

type Outcome = { readonly tree: Map<string, TreeEntry> } | { readonly refused: string };

function refusal(error: unknown): { readonly refused: string } {
  if (!(error instanceof TspodError)) throw error;
  return { refused: `${error.code} ${errnoOf(error) ?? ''} ${error.message}` };
}

async function extracted(archive: Buffer, folder: string): Promise<Outcome> {
  try {
    const { root } = await unpack(archive, { folder });
    return { tree: listTree(root) };
  } catch (error) {
    return refusal(error);
  }
}

/** What the kernel shows of all images, in one mount namespace. */
function shown(archives: readonly Buffer[], folders: readonly string[]): Outcome[] {
  const indexed = archives.map((archive, at): Indexed | { readonly refused: string } => {
    try {
      // any division into chunks gives the same image
      return index(archive, folders[at] ?? '', at % 2 === 0 ? 1 << 20 : 777);
    } catch (error) {
      return refusal(error);
    }
  });
  const images = indexed.filter(one => 'image' in one);
  const roots = images.map(one => `${one.image}.mounted`);
  const mounts = images.map((one, at) => erofsMount(one, roots[at] ?? ''));
  const whole = images.map(one => `${one.image}.whole`);
  for (const [at, { tar: file }] of images.entries())
    writeSelfContained({ form: 'erofs', tar: file }, whole[at] ?? '');
  const wholeRoots = whole.map(path => `${path}.mounted`);
  const wholeMounts = whole.map(
    (path, at): Mount => [path, wholeRoots[at] ?? '', 'erofs', MS_RDONLY, ''],
  );
  const all = listMounted([...mounts, ...wholeMounts], [...roots, ...wholeRoots]);
  const trees = all.slice(0, images.length);
  for (const [at, path] of whole.entries()) {
    const [one, other] = [trees[at] ?? new Map(), all[images.length + at] ?? new Map()];
    expect(differences(one, other)).toEqual({});
    expect(erofsUtil('fsck.erofs', '--extract', path)).toEqual({ status: 0, text: '' });
  }
  for (const one of images) {
    const checked = erofsUtil('fsck.erofs', '--extract', `--device=${one.tar}`, one.image);
    expect(checked).toEqual({ status: 0, text: '' });
  }
  return indexed.map(one => {
    if (!('image' in one)) return one;
    return { tree: trees[images.indexOf(one)] ?? new Map<string, TreeEntry>() };
  });
}

/** Where the archive says nothing the times are ours: 0 in an image, now on disk. The root is the caller's. */
function comparable(tree: Map<string, TreeEntry>, image: Map<string, TreeEntry>) {
  const rest = [...tree].filter(([name]) => name !== '.');
  return new Map(
    rest.map(([name, entry]) => [name, image.get(name)?.mtime === 0n ? untimed(entry) : entry]),
  );
}

function untimed(entry: TreeEntry): TreeEntry {
  return { ...entry, mtime: 0n };
}

async function expectAgreement(lists: readonly (readonly Member[])[]): Promise<Outcome[]> {
  const folder = testFolder();
  const archives = lists.map(members => tar(...members));
  const folders = lists.map((_, at) => join(folder, String(at)));
  for (const one of folders) mkdirSync(one);
  const images = shown(archives, folders);
  for (let at = 0; at < archives.length; at += 4) {
    const some = archives.slice(at, at + 4);
    const plain = await Promise.all(
      some.map((archive, next) => extracted(archive, folders[at + next] ?? '')),
    );
    for (const [next, disk] of plain.entries()) {
      const image = images[at + next];
      const why = JSON.stringify(lists[at + next]);
      if (image === undefined || 'refused' in image || 'refused' in disk) {
        expect([image, disk], why).toEqual([
          { refused: expect.any(String) },
          { refused: expect.any(String) },
        ]);
        continue;
      }
      const [a, b] = [comparable(disk.tree, image.tree), comparable(image.tree, image.tree)];
      expect(differences(a, b), why).toEqual({});
    }
  }
  return images;
}

const KINDS: readonly Member[] = [
  { name: 'x', data: 'data' },
  { name: 'x', data: Buffer.alloc(2e6, 'large') },
  { name: 'x/', type: '5', mode: 0o711 },
  { name: 'x', type: '2', link: 'other' },
  { name: 'x', type: '1', link: 'other/kept' },
  { name: 'x', type: '6', mode: 0o4640 },
  { name: 'x', type: '3', major: 1, minor: 3 },
  { name: '.wh.x' },
];

describe('replacing', () => {
  it('every type by every type', async () => {
    const lists = KINDS.flatMap(first =>
      KINDS.map(second => {
        const inner: Member[] = first.type === '5' ? [{ name: 'x/in/deep', data: '1' }] : [];
        return [{ name: 'other/kept', data: 'kept' }, first, ...inner, second];
      }),
    );
    await expectAgreement(lists);
  }, 60_000);
});

describe('attributes of folders', () => {
  it('count when they are the last of a folder that is still there', async () => {
    const pax = { 'SCHILY.xattr.security.capability': Buffer.from('0100000300200000', 'hex') };
    const bad: Member = { name: 'x', type: '5', pax };
    const outcomes = await expectAgreement([
      [bad],
      [{ name: 'x', type: '5' }, bad],
      [bad, { name: 'x', type: '5' }],
      [bad, { name: 'x', data: 'a file' }],
      [
        { name: 'a', type: '5' },
        { ...bad, name: 'a/x' },
        { name: 'a', data: 'a file' },
      ],
      [{ ...bad, name: './' }],
    ]);
    const refused = outcomes.map(one => 'refused' in one);
    expect(refused).toEqual([true, true, false, false, false, true]);
  }, 60_000);
});

/** Archives that reach out of the root; an image has no outside, but must not tell of another tree. */
const ATTACKS: Readonly<Record<string, readonly Member[]>> = {
  'CVE-2014-6407': [
    { name: 'link', type: '2', link: '/out/side' },
    { name: 'link/passwd', data: 'evil' },
    { name: 'up', type: '2', link: '../../../../../../../..' },
    { name: 'up/tmp-evil', data: 'evil' },
  ],
  'CVE-2014-6408, absolute': [
    { name: 'hard', type: '1', link: '/etc/passwd' },
    { name: 'hard', data: 'evil' },
  ],
  'CVE-2014-6408, climbing': [
    { name: 'etc/passwd' },
    { name: 'hard', type: '1', link: '../etc/passwd' },
  ],
  'CVE-2014-6408, by a link': [
    { name: 'dir', type: '2', link: '/etc' },
    { name: 'hard', type: '1', link: 'dir/passwd' },
  ],
  'CVE-2014-9356': [
    { name: 'dir/', type: '5' },
    { name: 'dir/known', data: '1' },
    { name: 'dir', type: '2', link: '/out' },
    { name: 'dir/passwd', data: 'evil' },
  ],
  'CVE-2021-32760': [
    { name: 'soft', type: '2', link: '/etc/passwd' },
    { name: 'hard', type: '1', link: 'soft', mode: 0o4777 },
    { name: 'soft', type: '2', link: '/etc/passwd', mode: 0o4777 },
  ],
  'CVE-2025-47290': [
    { name: 'a/b/', type: '5' },
    { name: 'a/b/1', data: '1' },
    { name: 'a', type: '2', link: '/out' },
    { name: 'a/b/2', data: '2' },
    { name: 'a/b', type: '2', link: '/' },
    { name: 'a/b/etc-evil', data: '3' },
  ],
  'CVE-2026-50163': [
    { name: 'd', type: '2', link: '/' },
    { name: 'out/passwd' },
    { name: 'd/hard', type: '1', link: 'd/../../out/passwd' },
  ],
  'a target in the folder that the link replaces': [
    { name: 'a/b/c', data: '1' },
    { name: 'a', type: '1', link: 'a/b/c' },
  ],
  'a target in it, by another name': [
    { name: 'a/b/c', data: '1' },
    { name: 'l', type: '2', link: 'a/b' },
    { name: 'a', type: '1', link: 'l/c' },
  ],
  'a folder in place of a link that was gone through': [
    { name: 'd/', type: '5' },
    { name: 'l', type: '2', link: 'd' },
    { name: 'l/1', data: '1' },
    { name: 'l/', type: '5' },
    { name: 'l/2', data: '2' },
    { name: 'l', type: '2', link: '/' },
    { name: 'l/3', data: '3' },
    { name: 'l', data: 'file' },
    { name: 'l/4', data: '4' },
  ],
  'links in its place': [
    { name: 'a/b/', type: '5' },
    { name: 'l', type: '2', link: 'a' },
    { name: 'l/b/1', data: '1' },
    { name: 'l/b', type: '2', link: '../c' },
    { name: 'l/b/2', data: '2' },
    { name: 'hard', type: '1', link: 'l/b' },
    { name: 'hard/3', data: '3' },
    { name: 'l/', type: '5' },
    { name: 'l/b/4', data: '4' },
  ],
  'links in a circle': [
    { name: 'a', type: '2', link: 'b' },
    { name: 'b', type: '2', link: 'a' },
    { name: 'a/x', data: '1' },
  ],
  'links that grow': [
    { name: 'a', type: '2', link: 'a/a/a' },
    { name: 'a/x', data: '1' },
  ],
  'folders by links to nowhere': [
    { name: 'lib', type: '2', link: 'usr/lib' },
    { name: 'lib/x/', type: '5', mode: 0o2711, uid: 5, mtime: 7 },
    { name: 'lib/../y', data: '1' },
    { name: 'usr/', type: '5', mtime: 9 },
  ],
};

describe('attacks', () => {
  it('all', async () => {
    await expectAgreement(Object.values(ATTACKS));
    const roots = ['.', './', '/', '', 'a/..'].flatMap(path =>
      ['0', '1', '2', '3', '5', '6'].map(type => [
        { name: path, type, link: '/etc', major: 1, minor: 3, mode: 0o751, uid: 7 },
      ]),
    );
    await expectAgreement(roots); // CVE-2021-29136
    const names = [
      '../out',
      'a/../../out',
      '/../out',
      '/a//./b/',
      'n\0',
      '.wh.',
      '.wh..',
      '.wh.a/b',
    ];
    await expectAgreement(names.map(path => [{ name: path, data: 'evil' }]));
  }, 60_000);
});

const name = fc
  .tuple(
    fc.constantFrom('', '', './', '/', '../'),
    fc.array(
      fc.oneof(
        { weight: 8, arbitrary: fc.constantFrom('a', 'b', 'c', 'x\xff') },
        { weight: 1, arbitrary: fc.constantFrom('..', '.', '') },
      ),
      { maxLength: 3 },
    ),
    fc.oneof(
      { weight: 10, arbitrary: fc.constantFrom('a', 'b', 'c', 'd') },
      {
        weight: 2,
        arbitrary: fc.constantFrom('.wh.a', '.wh.b', '.wh..wh..opq', '.wh..wh.aufs'),
      },
    ),
  )
  .map(([start, middle, last]) => Buffer.from(start + [...middle, last].join('/'), 'latin1'));

const acl = (...entries: readonly (readonly [number, number, number])[]): Buffer => {
  const list = Buffer.alloc(4 + entries.length * 8);
  list.writeUInt32LE(2, 0);
  for (const [at, [tag, permission, id]] of entries.entries()) {
    list.writeUInt16LE(tag, 4 + at * 8);
    list.writeUInt16LE(permission, 6 + at * 8);
    list.writeUInt32LE(id, 8 + at * 8);
  }
  return list;
};
const NOBODY = 0xffffffff;
const ACLS = [
  acl([1, 7, NOBODY], [2, 5, 1000], [4, 4, NOBODY], [16, 5, NOBODY], [32, 1, NOBODY]),
  acl([1, 6, NOBODY], [4, 2, NOBODY], [32, 4, NOBODY]),
  acl([1, 6, NOBODY], [2, 2, 5], [4, 2, NOBODY], [32, 4, NOBODY]),
  acl([1, 6, NOBODY], [4, 2, NOBODY], [16, 7, NOBODY], [32, 4, NOBODY]),
  acl(),
  Buffer.from('no list'),
  Buffer.alloc(0),
];

const attribute = fc.oneof(
  fc.record({
    key: fc.constantFrom(
      'user.a',
      'user.overlay.opaque',
      'trusted.b',
      'trusted.overlay.redirect',
      'trusted.',
      'security.selinux',
      'system.other',
    ),
    value: fc.oneof(
      fc.constantFrom('', 'y', 'v'.repeat(600)),
      fc.uint8Array({ maxLength: 20 }).map(bytes => Buffer.from(bytes)),
    ),
  }),
  fc.record({
    key: fc.constantFrom('system.posix_acl_access', 'system.posix_acl_default'),
    value: fc.constantFrom(...ACLS),
  }),
  fc.record({
    key: fc.constant('security.capability'),
    value: fc.constantFrom(
      Buffer.from('0100000200200000000000000000000000000000', 'hex'),
      Buffer.from('010000030020000000000000000000000000000000000000', 'hex'),
      Buffer.from('0100000300200000', 'hex'),
    ),
  }),
);

const pax = fc
  .tuple(
    fc.option(fc.integer({ min: 1, max: 999_999_999 }), { nil: undefined, freq: 2 }),
    fc.oneof(
      { weight: 5, arbitrary: fc.constant([]) },
      { weight: 1, arbitrary: fc.array(attribute, { minLength: 1, maxLength: 2 }) },
    ),
  )
  .map(([nsec, attributes]) => ({
    ...(nsec === undefined ? {} : { mtime: `1700000000.${String(nsec).padStart(9, '0')}` }),
    ...Object.fromEntries(attributes.map(({ key, value }) => [`SCHILY.xattr.${key}`, value])),
  }));

const member: fc.Arbitrary<Member> = fc
  .record({
    name,
    type: fc.oneof(
      { weight: 4, arbitrary: fc.constant('0') },
      { weight: 4, arbitrary: fc.constant('5') },
      { weight: 3, arbitrary: fc.constant('2') },
      { weight: 2, arbitrary: fc.constant('1') },
      { weight: 1, arbitrary: fc.constantFrom('3', '4', '6', '7') },
    ),
    link: name,
    mode: fc.integer({ min: 0, max: 0o7777 }),
    uid: fc.constantFrom(0, 1, 1000, 65_535, 65_536, 2_097_151),
    gid: fc.constantFrom(0, 1, 65_535, 65_536, 2_097_151),
    mtime: fc.constantFrom(1, 1_700_000_000, 4_294_967_296),
    major: fc.constantFrom(0, 1, 259, 4095),
    minor: fc.constantFrom(0, 3, 255, 256, 1_048_575),
    data: fc.constantFrom('', 'x', 'y'.repeat(512), 'z'.repeat(5000)),
    pax,
  })
  .map(({ data, ...one }) => ({ ...one, data: one.type === '0' || one.type === '7' ? data : '' }));

describe('random archives', () => {
  it(
    'give the same tree or none',
    async () => {
      const count = cases(300);
      const lists = fc.sample(fc.array(member, { minLength: 1, maxLength: 7 }), count);
      const outcomes = await expectAgreement(lists);
      // neither side may be the only one that is tried
      const trees = outcomes.filter(one => 'tree' in one).length;
      expect(trees).toBeGreaterThan(count / 6);
      expect(trees).toBeLessThan((count * 5) / 6);
    },
    fuzzTimeout(300_000),
  );
});
