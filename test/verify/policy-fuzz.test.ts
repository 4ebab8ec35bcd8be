/** Whatever a registry or a rule file says: a typed value or one of our errors, and the longest prefix decides. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  normalPrefix,
  prefixFault,
  readTrust,
  ruleFor,
  type TrustRule,
} from '../../src/config/trust.ts';
import { TspodError } from '../../src/errors.ts';
import { JsonReader } from '../../src/image/json.ts';
import { findSignatures } from '../../stage0/fetch/find-signatures.ts';
import { sha256 } from '../fetch/support.ts';
import { cases } from '../support/fuzz.ts';

const subject = sha256('subject');
const text = fc.oneof(
  fc.string({ maxLength: 20 }),
  fc.constantFrom(
    subject,
    'application/pgp-signature',
    'application/vnd.dev.sigstore.bundle.v0.3+json',
    'application/vnd.dev.cosign.simplesigning.v1+json',
  ),
);
const value = fc.letrec(tie => ({
  any: fc.oneof(
    { maxDepth: 4 },
    text,
    fc.integer(),
    fc.constant(null),
    fc.array(tie('any'), { maxLength: 3 }),
    fc.dictionary(
      fc.constantFrom('mediaType', 'digest', 'size', 'annotations', 'subject', 'layers'),
      tie('any'),
    ),
  ),
})).any;

test('manifests of signatures, whatever is in them', async () => {
  const manifest = fc.record(
    {
      schemaVersion: fc.constant(2),
      artifactType: text,
      subject: value,
      layers: value,
      config: value,
    },
    { requiredKeys: ['schemaVersion'] },
  );
  await fc.assert(
    fc.asyncProperty(manifest, fc.option(text, { nil: undefined }), async (made, artifactType) => {
      const bytes = Buffer.from(JSON.stringify(made));
      const descriptor = {
        mediaType: 'application/vnd.oci.image.manifest.v1+json',
        digest: sha256(bytes),
        size: bytes.length,
        ...(artifactType === undefined ? {} : { artifactType }),
      };
      const place = {
        shown: 'here',
        referrers: async () => [descriptor],
        tagged: async () => [bytes],
        manifest: async () => bytes,
        document: async () => Buffer.from('x'),
      };
      try {
        const kinds = new Set(['openpgp', 'cosign', 'sigstore'] as const);
        for await (const found of findSignatures(place, subject, kinds)) {
          expect(found.origin).toMatch(/^here/);
        }
      } catch (error) {
        expect(error).toBeInstanceOf(TspodError);
      }
    }),
    { numRuns: cases(1000) },
  );
});

test('rule files, whatever is in them', () => {
  const keys = ['prefixes', 'require', 'openpgp', 'cosignKeys', 'identities', 'trustedRoot', 'x'];
  fc.assert(
    fc.property(fc.dictionary(fc.constantFrom(...keys), value), object => {
      try {
        const entries = readTrust(new JsonReader({ what: 'f', code: 'config' }), object, 'f');
        for (const { key } of entries) expect(prefixFault(key)).toBeUndefined();
      } catch (error) {
        expect(error).toMatchObject({ message: expect.stringMatching(/^f: /) });
      }
    }),
    { numRuns: cases(1000) },
  );
});

test('the longest prefix of whole components', () => {
  const name = fc
    .array(fc.constantFrom('a', 'b', 'ab'), { minLength: 1, maxLength: 4 })
    .chain(parts => fc.constantFrom(parts.join('/'), `/${parts.join('/')}`));
  const prefix = fc.oneof(name, fc.constantFrom('*', '/', ''));
  fc.assert(
    fc.property(fc.array(prefix, { maxLength: 5 }), name, (prefixes, asked) => {
      const rules = new Map(
        prefixes.map(normalPrefix).map((each): [string, TrustRule] => [
          each,
          {
            prefix: each,
            require: 'none',
            openpgp: false,
            cosignKeys: [],
            identities: [],
            trustedRoot: undefined,
            file: 'f',
          },
        ]),
      );
      const fits = (each: string) =>
        each === '*' || each === asked || asked.startsWith(each === '/' ? '/' : `${each}/`);
      const length = (each: string) => (each === '*' ? 0 : each.length);
      const [best] = [...rules.keys()].filter(fits).sort((a, b) => length(b) - length(a));
      expect(ruleFor(rules, asked)?.prefix).toBe(best);
    }),
  );
});
