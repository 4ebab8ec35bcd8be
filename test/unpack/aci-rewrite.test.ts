/**
 * ACIs as layers. The oracle is GNU tar: it unpacks the ACI, and what lies in its `rootfs` has to be what the
 * layer has, in every format that GNU tar writes.
 */
import { execFileSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  ftruncateSync,
  linkSync,
  mkdirSync,
  openSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { TspodError } from '../../src/errors.ts';
import type { AciTransform } from '../../src/image/oci.ts';
import { native } from '../../src/sys/native.ts';
import {
  ACI_MANIFEST_MAX_BYTES,
  AciRewriter,
  rewriteAci,
} from '../../stage0/unpack/aci-rewrite.ts';
import { cases } from '../support/fuzz.ts';
import { debianRootfs } from './debian-rootfs.ts';
import { type Member, member, paxMember, tar } from './tar-writer.ts';
import { differences, listTree } from './tree.ts';
import { gnuUnpack, testFolder, unpack } from './unpacking.ts';

const ALL: AciTransform = { kind: 'aci', own: [], above: [] };
const MANIFEST: Member = { name: 'manifest', data: '{}' };
const ROOTFS: Member = { name: 'rootfs/', type: '5' };

function rewrite(archive: Buffer, transform: AciTransform = ALL, sizes = [archive.length]): Buffer {
  const rewriter = new AciRewriter(transform);
  const out: Buffer[] = [];
  for (let at = 0, turn = 0; at < archive.length; turn += 1) {
    const size = Math.max(1, sizes[turn % sizes.length] ?? 1);
    out.push(...rewriter.write(archive.subarray(at, at + size)).map(piece => Buffer.from(piece)));
    at += size;
  }
  out.push(...rewriter.end());
  return Buffer.concat(out);
}

/** Names with the link targets, as our own reader and the extractor see them. */
async function pathsOf(archive: Buffer, transform: AciTransform = ALL): Promise<string[]> {
  const { root } = await unpack(archive, { packing: { compression: 'none', transform } });
  return [...listTree(root).keys()].filter(name => name !== '.');
}

const refused = async (archive: Buffer, transform: AciTransform = ALL): Promise<string> => {
  try {
    await unpack(archive, { packing: { compression: 'none', transform } });
  } catch (error) {
    if (error instanceof TspodError) return `${error.code}: ${error.message}`;
    throw error;
  }
  throw new Error('it was not refused');
};

async function expectAsGnu(file: string): Promise<void> {
  const folder = testFolder();
  const expected = listTree(join(gnuUnpack(file, folder), 'rootfs'));
  const { root } = await unpack(file, {
    folder,
    packing: { compression: 'none', transform: ALL },
  });
  expect(differences(expected, listTree(root))).toEqual({});
}

function makeAci(folder: string): void {
  const root = join(folder, 'rootfs');
  const long = `${'n'.repeat(90)}/${'m'.repeat(120)}`;
  mkdirSync(join(root, 'a', long), { recursive: true });
  writeFileSync(join(folder, 'manifest'), '{"acKind":"ImageManifest"}');
  writeFileSync(join(root, 'a', long, 'file'), 'content');
  writeFileSync(
    join(root, Buffer.from('caf\xe9 \n=', 'latin1').toString('latin1')),
    'x'.repeat(513),
  );
  linkSync(join(root, 'a', long, 'file'), join(root, 'hard'));
  symlinkSync('rootfs/not/rewritten', join(root, 'soft'));
  symlinkSync('t'.repeat(300), join(root, 'long-soft'));
  const { lchown, mknod, lsetxattr } = native();
  lchown(join(root, 'soft'), 12, 34);
  mknod(join(root, 'char'), 0o020660, 5, 1);
  lsetxattr(join(root, 'hard'), 'user.note', Buffer.from('a=b'));
  const sparse = openSync(join(root, 'sparse'), 'w');
  for (let at = 0; at < 60; at += 1) writeSync(sparse, 'data', at * 1_000_000);
  ftruncateSync(sparse, 100_000_000);
  closeSync(sparse);
  execFileSync('chmod', ['1751', root]);
}

describe('an ACI becomes the layer that GNU tar finds in it', () => {
  for (const format of [
    ['--format=gnu'],
    ['--format=gnu', '--sparse'],
    ['--format=posix', '--xattrs'],
    ['--format=posix', '--sparse', '--xattrs'],
    ['--format=posix', '--sparse', '--sparse-version=0.1'],
    ['--format=posix', '--sparse', '--sparse-version=0.0'],
  ]) {
    it(format.join(' '), async () => {
      const folder = testFolder();
      makeAci(folder);
      const file = join(folder, 'x.tar');
      execFileSync('tar', ['-C', folder, ...format, '-cf', file, './manifest', './rootfs']);
      await expectAsGnu(file);
    });
  }

  it('a Debian root filesystem', async () => {
    const folder = testFolder();
    const file = join(folder, 'x.tar');
    writeFileSync(join(folder, 'manifest'), '{}');
    mkdirSync(join(folder, 'rootfs'));
    execFileSync('tar', [
      '-C',
      join(folder, 'rootfs'),
      '--xattrs',
      '--xattrs-include=*',
      '--numeric-owner',
      '-xpf',
      debianRootfs(),
    ]);
    execFileSync('tar', [
      '-C',
      folder,
      '--format=posix',
      '--xattrs',
      '--xattrs-include=*',
      '--numeric-owner',
      '-cf',
      file,
      'manifest',
      'rootfs',
    ]);
    await expectAsGnu(file);
  }, 120_000);
});

describe('the rewrite', () => {
  const archive = tar(
    MANIFEST,
    ROOTFS,
    { name: 'rootfs/dir', type: '5' },
    {
      name: 'rootfs/dir/file',
      data: 'x'.repeat(1000),
      pax: { 'SCHILY.xattr.user.a': 'b', path: `rootfs/dir/${'p'.repeat(200)}` },
    },
    {
      name: 'rootfs/hard',
      type: '1',
      link: `rootfs/dir/${'p'.repeat(84)}`,
      pax: { linkpath: `rootfs/dir/${'p'.repeat(200)}` },
    },
    { name: 'other', data: 'left out' },
  );

  it('is the same for every division into chunks', async () => {
    const whole = rewrite(archive);
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 1500 }), { minLength: 1 }), sizes => {
        expect(rewrite(archive, ALL, sizes).equals(whole)).toBe(true);
      }),
      { numRuns: cases(200) },
    );
    async function* chunks() {
      yield archive;
    }
    const parts: Buffer[] = [];
    for await (const part of rewriteAci(chunks(), ALL)) parts.push(part);
    expect(Buffer.concat(parts).equals(whole)).toBe(true);
  });

  it('takes the manifest out, wherever it is', () => {
    for (const members of [
      [MANIFEST, ROOTFS],
      [ROOTFS, { ...MANIFEST, name: './manifest' }],
    ]) {
      let found = '';
      const rewriter = new AciRewriter(ALL, {
        onManifest: bytes => {
          found = Buffer.from(bytes).toString();
        },
      });
      rewriter.write(tar(...members));
      rewriter.end();
      expect(found).toBe('{}');
    }
  });

  it('never fails but with an error of its own', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat({ max: archive.length - 1 }), fc.nat({ max: 255 })), {
          maxLength: 6,
        }),
        changes => {
          const bytes = Buffer.from(archive);
          for (const [at, value] of changes) bytes[at] = value;
          try {
            rewrite(bytes);
          } catch (error) {
            expect(error).toBeInstanceOf(TspodError);
          }
        },
      ),
      { numRuns: cases(3000) },
    );
  });
});

describe('whitelists', () => {
  const archive = tar(
    MANIFEST,
    ROOTFS,
    { name: 'rootfs/etc/', type: '5' },
    { name: 'rootfs/etc/a', data: 'a' },
    { name: 'rootfs/etc/b', data: 'b' },
    { name: 'rootfs/var/', type: '5' },
    { name: 'rootfs/var/c', data: 'c' },
  );

  it('of the image: its files, all of its folders', async () => {
    expect(await pathsOf(archive, { ...ALL, own: ['/etc/b'] })).toEqual(['etc', 'etc/b', 'var']);
  });

  it('of an image above: what is listed and what leads to it', async () => {
    expect(await pathsOf(archive, { ...ALL, above: [['/etc/b', '/x']] })).toEqual(['etc', 'etc/b']);
    expect(await pathsOf(archive, { ...ALL, above: [['/etc/b'], []] })).toEqual(['etc', 'etc/b']);
    expect(
      await pathsOf(archive, { ...ALL, own: ['/etc/a', '/etc/b'], above: [['/etc/b', '/var/']] }),
    ).toEqual(['etc', 'etc/b', 'var']);
  });

  it('that leaves out the file of a hard link is refused', async () => {
    const linked = tar(
      MANIFEST,
      ROOTFS,
      { name: 'rootfs/a', data: 'a' },
      { name: 'rootfs/b', type: '1', link: 'rootfs/a' },
    );
    expect(await refused(linked, { ...ALL, own: ['/b'] })).toMatch(
      /^unsupported: .*leaves out "rootfs\/a"/,
    );
    expect(await pathsOf(linked, { ...ALL, own: ['/b', '/a'] })).toEqual(['a', 'b']);
  });

  it('longer than an argument of a process', async () => {
    const own = Array.from({ length: 20_000 }, (_, index) => `/etc/some/path/number/${index}`);
    expect(await pathsOf(archive, { ...ALL, own: [...own, '/etc/a'] })).toEqual([
      'etc',
      'etc/a',
      'var',
    ]);
  });
});

describe('attacks', () => {
  it('CVE-2014-6407, rkt docker2aci#205: ".." in names and link targets', async () => {
    for (const name of ['rootfs/../../etc/x', 'rootfs/a/../../../x', '../x', 'rootfs/..']) {
      expect(await refused(tar(MANIFEST, ROOTFS, { name, data: 'x' }))).toMatch(
        /^unpack: .*has "\.\." in it/,
      );
      const pax = { path: name };
      expect(await refused(tar(MANIFEST, ROOTFS, { name: 'rootfs/fine', data: 'x', pax }))).toMatch(
        /^unpack: /,
      );
      const link = { name: 'rootfs/l', type: '1', link: name };
      expect(await refused(tar(MANIFEST, ROOTFS, link))).toMatch(/^unpack: /);
    }
    for (const link of ['manifest', '/etc/shadow', 'rootfs', '']) {
      expect(await refused(tar(MANIFEST, ROOTFS, { name: 'rootfs/l', type: '1', link }))).toMatch(
        /outside of rootfs/,
      );
    }
  });

  it('CVE-2014-9356, rkt#96: a link out of the root and a file through it', async () => {
    const archive = tar(
      MANIFEST,
      ROOTFS,
      { name: 'rootfs/out', type: '2', link: '/tmp' },
      { name: 'rootfs/out/tspod-escaped', data: 'x' },
    );
    const { root } = await unpack(archive, {
      packing: { compression: 'none', transform: ALL },
    }).catch(() => ({ root: '' }));
    expect(existsSync('/tmp/tspod-escaped')).toBe(false);
    if (root !== '') expect([...listTree(root).keys()]).toContain('tmp/tspod-escaped');
  });

  it('CVE-2021-29136: the root as a link', async () => {
    for (const name of ['rootfs', 'rootfs/.', './rootfs//']) {
      expect(await refused(tar(MANIFEST, { name, type: '2', link: '/' }))).toMatch(
        /stands for the root/,
      );
    }
  });

  it('whiteouts, which an ACI has not', async () => {
    for (const name of ['rootfs/.wh.etc', 'rootfs/.wh..wh..opq', 'rootfs/.wh.x/y']) {
      expect(await refused(tar(MANIFEST, ROOTFS, { name, data: '' }))).toMatch(/^unsupported: /);
    }
  });

  it('CVE-2023-25153: two manifests, none, one that is no file or is endless', async () => {
    expect(await refused(tar(MANIFEST, ROOTFS, MANIFEST))).toMatch(/twice/);
    expect(await refused(tar(ROOTFS))).toMatch(/no file "manifest"/);
    expect(await refused(tar({ name: 'manifest', type: '2', link: '/etc/passwd' }))).toMatch(
      /not a plain file/,
    );
    expect(await refused(tar({ ...MANIFEST, size: ACI_MANIFEST_MAX_BYTES + 1 }))).toMatch(
      /^limit: /,
    );
  });

  it('extension headers that speak for all members', async () => {
    for (const key of ['path', 'linkpath', 'size', 'GNU.sparse.name']) {
      const archive = Buffer.concat([paxMember('g', { [key]: '1' }), tar(MANIFEST, ROOTFS)]);
      expect(await refused(archive)).toMatch(/global PAX header/);
    }
    const comment = Buffer.concat([paxMember('g', { comment: 'x' }), tar(MANIFEST, ROOTFS)]);
    expect(await pathsOf(comment)).toEqual([]);
  });

  it('cut off', async () => {
    const whole = tar(MANIFEST, ROOTFS, { name: 'rootfs/f', data: 'x'.repeat(600) });
    for (const length of [513, 1100, 2200]) {
      expect(await refused(whole.subarray(0, length))).toMatch(
        /ends in the middle|no file "manifest"/,
      );
    }
    const noEnd = Buffer.concat([member(MANIFEST), member(ROOTFS)]);
    expect(await pathsOf(noEnd)).toEqual([]);
    const { root } = await unpack(gzipSync(whole), {
      packing: { compression: 'gzip', transform: ALL },
    });
    expect([...listTree(root).keys()]).toEqual(['.', 'f']);
  });
});
