/** bzip2 and xz against the programs of those names: what they make is read, what is damaged is told. */
import { spawnSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { TspodError } from '../../src/errors.ts';
import { DamagedData } from '../../stage0/unpack/byte-source.ts';
import { decodeBzip2 } from '../../stage0/unpack/bzip2.ts';
import { decodeXz } from '../../stage0/unpack/xz.ts';
import { cases } from '../support/fuzz.ts';

type Decode = typeof decodeXz;

function pack(program: string, args: readonly string[], input: Uint8Array): Buffer {
  const { status, stdout, error } = spawnSync(program, ['-c', ...args], {
    input,
    maxBuffer: 1 << 30,
  });
  if (status !== 0) throw new Error(`${program}: ${error?.message ?? status}`);
  return stdout;
}

async function* inChunks(bytes: Buffer, size: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function decoded(decode: Decode, bytes: Buffer, size = 65_536): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of decode(inChunks(bytes, size))) parts.push(Buffer.from(part));
  return Buffer.concat(parts);
}

const text = Buffer.from(
  Array.from({ length: 60_000 }, (_, i) => `line ${i} of ${i * 7919}\n`).join(''),
);
const SAMPLES: Readonly<Record<string, Buffer>> = {
  empty: Buffer.alloc(0),
  'one byte': Buffer.from('x'),
  text,
  random: randomBytes(1_500_000),
  zeros: Buffer.alloc(5_000_000),
  'runs of every length': Buffer.concat(
    Array.from({ length: 600 }, (_, i) => Buffer.alloc(i, i & 0xff)),
  ),
  'text and random': Buffer.concat([text, randomBytes(300_000), text, Buffer.alloc(100_000, 0xff)]),
  'this program': Buffer.concat([await programBytes(), await programBytes()]),
};

async function programBytes(): Promise<Buffer> {
  const { readFile } = await import('node:fs/promises');
  return (await readFile('/bin/bash')).subarray(0, 1_200_000);
}

const same = (a: Buffer, b: Buffer) => a.length === b.length && hash(a) === hash(b);
const hash = (bytes: Buffer) => createHash('sha1').update(bytes).digest('hex');

const PROGRAMS: readonly (readonly [string, Decode, string[][]])[] = [
  ['bzip2', decodeBzip2, [['-1'], ['-9']]],
  [
    'xz',
    decodeXz,
    [
      ['-0'],
      ['-9e'],
      ['-6', '-T2', '--block-size=300000'],
      ['--check=none'],
      ['--check=crc32'],
      ['--check=sha256'],
      ['--lzma2=dict=4KiB,lc=0,lp=4,pb=4'],
      ['--lzma2=dict=1MiB,lc=4,lp=0,pb=0,mode=fast,mf=hc3'],
    ],
  ],
];

describe.each(PROGRAMS)('%s', (program, decode, variants) => {
  describe.each(variants.map(args => ({ args })))('$args', ({ args }) => {
    test.each(Object.keys(SAMPLES))('%s', async name => {
      const sample = SAMPLES[name] ?? Buffer.alloc(0);
      const packed = pack(program, args, sample);
      expect(same(await decoded(decode, packed), sample)).toBe(true);
    });
  });

  test('several after one another, in chunks of any size', async () => {
    const packed = Buffer.concat([
      pack(program, [], text),
      pack(program, ['-1'], Buffer.from('more')),
    ]);
    const expected = Buffer.concat([text, Buffer.from('more')]);
    for (const size of [1, 7, 100_003]) {
      expect(same(await decoded(decode, packed, size), expected)).toBe(true);
    }
  });

  test('cut off anywhere, it is damaged', async () => {
    const packed = pack(program, [], text.subarray(0, 20_000));
    for (let length = 1; length < packed.length; length += 13) {
      await expect(decoded(decode, packed.subarray(0, length))).rejects.toThrow(DamagedData);
    }
    await expect(decoded(decode, Buffer.concat([packed, Buffer.from('tail')]))).rejects.toThrow(
      DamagedData,
    );
  });

  test('whatever is changed is found out, or changes nothing', async () => {
    const sample = text.subarray(0, 5000);
    const packed = pack(program, [], sample);
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat({ max: packed.length - 1 }), fc.integer({ min: 1, max: 255 })), {
          minLength: 1,
          maxLength: 4,
        }),
        async changes => {
          const bytes = Buffer.from(packed);
          for (const [at, mask] of changes) bytes[at] = (bytes[at] ?? 0) ^ mask;
          try {
            expect(same(await decoded(decode, bytes), sample)).toBe(true);
          } catch (error) {
            if (!(error instanceof DamagedData || error instanceof TspodError)) throw error;
          }
        },
      ),
      { numRuns: cases(1500) },
    );
  });

  test('garbage after the magic', async () => {
    const head = pack(program, [], Buffer.from('x')).subarray(0, program === 'xz' ? 12 : 10);
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 2000 }), async garbage => {
        await expect(decoded(decode, Buffer.concat([head, garbage]))).rejects.toSatisfy(
          error => error instanceof DamagedData || error instanceof TspodError,
        );
      }),
      { numRuns: cases(500) },
    );
  });
});

describe('xz refuses by name', () => {
  test('a dictionary over 64 MiB', async () => {
    const packed = pack('xz', ['--lzma2=dict=96MiB'], Buffer.from('x'));
    await expect(decoded(decodeXz, packed)).rejects.toMatchObject({
      code: 'limit',
      message: expect.stringMatching(/dictionary of 100663296 bytes/),
    });
  });

  test('filters for programs', async () => {
    const packed = pack('xz', ['--x86', '--lzma2'], text);
    await expect(decoded(decodeXz, packed)).rejects.toMatchObject({
      code: 'unsupported',
      message: expect.stringMatching(/filter x86/),
    });
  });
});
