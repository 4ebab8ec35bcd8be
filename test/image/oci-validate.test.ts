/** Documents from outside: the rules about kinds, sizes, digests; anything else is a TspodError. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { TspodError } from '../../src/errors.ts';
import { parseDigest } from '../../src/image/digest.ts';
import { parseImageConfig, parseImageDocument } from '../../src/image/oci-validate.ts';
import { cases } from '../support/fuzz.ts';

const DIGEST = parseDigest(`sha256:${'0'.repeat(64)}`, 'test');
const blob = { mediaType: 'application/vnd.oci.image.config.v1+json', digest: DIGEST, size: 1 };
const bytes = (value: unknown) => Buffer.from(JSON.stringify(value));
const parse = (value: unknown) => parseImageDocument(bytes(value), DIGEST, undefined);
const base = { schemaVersion: 2, config: blob, layers: [blob] };

test.each([
  [{ ...base, manifests: [] }, /both/],
  [{ ...base, layers: [{ ...blob, size: -1 }] }, /layers\[0\]\.size/],
  [{ ...base, layers: [{ ...blob, size: 2 ** 53 }] }, /layers\[0\]\.size/],
  [{ ...base, layers: [{ ...blob, size: 7 }] }, /two sizes/],
  [{ ...base, layers: Array(501).fill(blob) }, /limit of 500/],
  [{ ...base, config: { ...blob, digest: 'sha256:x' } }, /config\.digest/],
  [{ ...base, mediaType: 'application/vnd.oci.image.index.v1+json' }, /does not fit/],
  [{ schemaVersion: 1 }, /schema 1/],
])('refused: %#', (value, expected) => {
  expect(() => parse(value)).toThrow(expected);
});

test('nesting is bounded before JSON.parse', () => {
  const deep = Buffer.from('['.repeat(100_000));
  expect(() => parseImageConfig(deep, DIGEST)).toThrow(/deeper than 64/);
});

test('any JSON gives a document or a TspodError', () => {
  const fields = fc.record(
    {
      schemaVersion: fc.constantFrom(2, 1),
      config: fc.jsonValue(),
      layers: fc.jsonValue(),
      rootfs: fc.jsonValue(),
    },
    { requiredKeys: [] },
  );
  fc.assert(
    fc.property(fc.oneof(fc.jsonValue(), fields), value => {
      for (const read of [parse, (each: unknown) => parseImageConfig(bytes(each), DIGEST)]) {
        try {
          read(value);
        } catch (error) {
          expect(error).toBeInstanceOf(TspodError);
        }
      }
    }),
    { numRuns: cases(500) },
  );
});
