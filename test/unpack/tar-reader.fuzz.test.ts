/**
 * The reader on bytes from outside: whatever comes, it succeeds or throws a TspodError, soon; and the
 * answer does not depend on how the stream is cut into chunks.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { TspodError } from '../../src/errors.ts';
import { removeTree } from '../../src/store/remove-tree.ts';
import { DEFAULT_BOUNDS } from '../../stage0/unpack/bounds.ts';
import { TarReader } from '../../stage0/unpack/tar-reader.ts';
import { components } from '../../stage0/unpack/tree-path.ts';
import { cases, fuzzTimeout } from '../support/fuzz.ts';
import { checksum, type Member, member, paxMember, tar } from './tar-writer.ts';

const BOUNDS = { ...DEFAULT_BOUNDS, entries: 1000, archiveBytes: 1e9, sparseSegments: 1000 };

/** What the reader says of these chunks, as text. */
function read(chunks: readonly Buffer[]): string {
  const said: string[] = [];
  let data: { at: number; end: number; bytes: Buffer[] }[] = [];
  const reader = new TarReader(
    {
      begin(entry) {
        const { name, linkName, xattrs, ...rest } = entry;
        const attributes = xattrs.map(one => [one.name, Buffer.from(one.value).toString('hex')]);
        said.push(
          JSON.stringify([name.toString('hex'), linkName.toString('hex'), attributes, rest]),
        );
        data = [];
      },
      data(_, chunk, position) {
        const last = data.at(-1);
        const bytes = Buffer.from(chunk);
        if (last !== undefined && last.end === position) {
          last.bytes.push(bytes);
          last.end += bytes.length;
        } else {
          data.push({ at: position, end: position + bytes.length, bytes: [bytes] });
        }
      },
      end(entry) {
        const pieces = data.map(({ at, bytes }) => ({ at, bytes: Buffer.concat(bytes) }));
        for (const { at, bytes } of pieces) {
          said.push(`${at}: ${bytes.toString('hex')}`);
          expect(at + bytes.length).toBeLessThanOrEqual(entry.size);
        }
      },
    },
    BOUNDS,
  );
  try {
    for (const chunk of chunks) reader.write(chunk);
    reader.end();
    said.push('end');
  } catch (error) {
    if (!(error instanceof TspodError)) throw error;
    expect(['unpack', 'limit']).toContain(error.code);
    said.push(`${error.code}: ${error.message}`);
  }
  return said.join('\n');
}

function cut(bytes: Buffer, at: readonly number[]): Buffer[] {
  const edges = [...new Set(at.map(edge => edge % (bytes.length + 1)))].sort((a, b) => a - b);
  return [0, ...edges].map((edge, index) => bytes.subarray(edge, edges[index] ?? bytes.length));
}

const archives: Buffer[] = [];

beforeAll(() => {
  const source = testFolderOnce();
  for (const format of ['v7', 'gnu', 'oldgnu', 'ustar', 'pax']) {
    const sparse = format === 'gnu' || format === 'pax' ? ['-S'] : [];
    archives.push(pack(source, `--format=${format}`, ...sparse));
  }
  for (const version of ['0.0', '0.1']) {
    archives.push(pack(source, '--format=pax', '-S', `--sparse-version=${version}`));
  }
  archives.push(
    Buffer.concat([
      paxMember('g', { uid: '5', 'SCHILY.xattr.user.g': 'g' }),
      tar(
        { name: 'a', data: 'abc', pax: { mtime: '1.5', 'SCHILY.xattr.user.a': 'v' } },
        { name: 'long', type: 'L', data: `${'n'.repeat(300)}\0` },
        { name: 'cut', data: 'x'.repeat(1000) },
        { name: 'link', type: 'K', data: `${'t'.repeat(300)}\0` },
        { name: 's', type: '2', link: 'cut' },
      ),
    ]),
  );

  function pack(folder: string, ...flags: string[]): Buffer {
    return execFileSync('tar', [...flags, '-b1', '-cf', '-', '-C', folder, '.'], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
  }
});

function testFolderOnce(): string {
  const folder = mkdtempSync(join(tmpdir(), 'tspod-unpack-'));
  cleanUp.push(folder);
  mkdirSync(join(folder, 'd'));
  writeFileSync(join(folder, 'd/file'), 'x'.repeat(700));
  writeFileSync(join(folder, 'd/latin1-\u00e9'), '');
  execFileSync('ln', ['-s', 'file', join(folder, 'd/link')]);
  execFileSync('ln', [join(folder, 'd/file'), join(folder, 'hard')]);
  for (let at = 0; at < 6; at += 1) {
    const where = ['conv=notrunc', `seek=${at * 16}`, 'bs=4096', 'count=1', 'status=none'];
    execFileSync('dd', ['if=/dev/urandom', `of=${join(folder, 'sparse')}`, ...where]);
  }
  return folder;
}

const cleanUp: string[] = [];
afterAll(() => {
  for (const folder of cleanUp) removeTree(folder);
});

const anArchive = fc.nat().map(index => archives[index % archives.length] ?? Buffer.alloc(0));
const edges = fc.array(fc.nat(), { maxLength: 20 });

describe('the reader', () => {
  it('says the same of real archives, however they are cut', () => {
    for (const archive of archives) {
      const whole = read([archive]);
      expect(whole).toMatch(/\nend$/);
      for (const step of [1, 7, 511, 512, 513, 4096]) {
        const chunks: Buffer[] = [];
        for (let at = 0; at < archive.length; at += step)
          chunks.push(archive.subarray(at, at + step));
        if (step > 1 || archive.length < 40_000) expect(read(chunks)).toBe(whole);
      }
    }
    fc.assert(
      fc.property(anArchive, edges, (archive, at) => {
        expect(read(cut(archive, at))).toBe(read([archive]));
      }),
      { numRuns: cases(200) },
    );
  });

  it(
    'survives mutated archives, with checksums mended',
    () => {
      const mutation = fc.record({ at: fc.nat(), byte: fc.nat(255), header: fc.boolean() });
      fc.assert(
        fc.property(
          anArchive,
          fc.array(mutation, { minLength: 1, maxLength: 8 }),
          fc.boolean(),
          edges,
          (archive, mutations, mend, at) => {
            const bytes = Buffer.from(archive);
            for (const one of mutations) {
              // most of an archive is data; aim at what is parsed
              const block = (one.at >> 9) % Math.max(1, bytes.length >> 9);
              const position = one.header ? block * 512 + (one.at % 512) : one.at % bytes.length;
              bytes[position] = one.byte;
              const start = position - (position % 512);
              if (mend && start + 512 <= bytes.length) checksum(bytes.subarray(start, start + 512));
            }
            expect(read(cut(bytes, at))).toBe(read([bytes]));
          },
        ),
        { numRuns: cases(3000) },
      );
    },
    fuzzTimeout(120_000),
  );

  it('survives cut archives and random bytes', () => {
    fc.assert(
      fc.property(anArchive, fc.nat(), edges, (archive, length, at) => {
        const bytes = archive.subarray(0, length % (archive.length + 1));
        expect(read(cut(bytes, at))).toBe(read([bytes]));
      }),
      { numRuns: cases(500) },
    );
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 5000 }), edges, (random, at) => {
        const bytes = Buffer.from(random);
        expect(read(cut(bytes, at))).toBe(read([bytes]));
      }),
      { numRuns: cases(500) },
    );
  });

  it(
    'survives well-framed headers of random content',
    () => {
      const records = fc.dictionary(
        fc.constantFrom(
          'path',
          'linkpath',
          'size',
          'uid',
          'gid',
          'mtime',
          'atime',
          'GNU.sparse.major',
          'GNU.sparse.minor',
          'GNU.sparse.name',
          'GNU.sparse.realsize',
          'GNU.sparse.size',
          'GNU.sparse.map',
          'GNU.sparse.offset',
          'GNU.sparse.numbytes',
          'SCHILY.xattr.user.a',
          'LIBARCHIVE.xattr.user.b',
        ),
        fc.oneof(
          fc.nat(3000).map(String),
          fc.constantFrom('', '0', '1', '0,0', '0,5,9,1', '-1.999', '1e3', '\0', 'YQ=='),
          fc.string({ maxLength: 20 }),
        ),
      );
      const aMember = fc
        .record({
          name: fc.string({ maxLength: 20 }),
          type: fc.constantFrom(...'01234567LKSxgV\0'),
          link: fc.string({ maxLength: 10 }),
          data: fc.oneof(
            fc.string({ maxLength: 1200 }),
            fc.array(fc.nat(600)).map(list => `${list.join('\n')}\n`),
            records.map(all => paxBody(all)),
          ),
          pax: fc.option(records, { nil: undefined }),
        })
        .map(({ pax, ...rest }): Member => (pax === undefined ? rest : { ...rest, pax }));
      fc.assert(
        fc.property(fc.array(aMember, { maxLength: 6 }), edges, (members, at) => {
          const bytes = Buffer.concat(members.map(one => member(one)));
          expect(read(cut(bytes, at))).toBe(read([bytes]));
        }),
        { numRuns: cases(3000) },
      );
    },
    fuzzTimeout(120_000),
  );

  it('takes a large PAX header in small chunks without quadratic work', () => {
    const attributes = Object.fromEntries(
      Array.from({ length: 900 }, (_, index) => [`SCHILY.xattr.user.${index}`, 'v'.repeat(4000)]),
    );
    const archive = tar({ name: 'a', pax: attributes });
    const chunks: Buffer[] = [];
    for (let at = 0; at < archive.length; at += 100) chunks.push(archive.subarray(at, at + 100));
    expect(read(chunks)).toMatch(/\nend$/);
  });
});

function paxBody(records: Record<string, string>): Buffer {
  const whole = paxMember('x', records);
  return whole.subarray(512);
}

describe('names', () => {
  it('never leave the root', () => {
    const part = fc.constantFrom('a', '..', '.', '', 'b', '...', '..a');
    fc.assert(
      fc.property(fc.array(part, { maxLength: 12 }), parts => {
        const found = components(parts.join('/'));
        let depth = 0;
        let left = false;
        for (const one of parts) {
          if (one === '..') depth -= 1;
          else if (one !== '' && one !== '.') depth += 1;
          if (depth < 0) left = true;
        }
        expect(found === undefined).toBe(left);
        if (found !== undefined) {
          expect(found).not.toContain('..');
          expect(found).toHaveLength(depth);
        }
      }),
    );
  });
});
