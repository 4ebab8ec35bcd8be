/**
 * Mutated bundles: whatever is changed, nothing crashes and nothing is accepted. A change that means nothing
 * (white space between members, a hint) is left out, or put back before it is counted.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { decodeBase64 } from '../../stage0/verify/sigstore/base64.ts';
import { verifyCosignKey } from '../../stage0/verify/sigstore/cosign-key.ts';
import { verifyBundle, verifyCosignKeyless } from '../../stage0/verify/sigstore/index.ts';
import { decodePem } from '../../stage0/verify/sigstore/pem.ts';
import { parseStrictJson } from '../../stage0/verify/sigstore/strict-json.ts';
import { cases } from '../support/fuzz.ts';
import { IDENTITY, ISSUER, makeInstance } from './sigstore/authority.ts';
import { ecKey, pem } from './sigstore/certificates.ts';
import { canonical } from './sigstore/logs.ts';
import { type Signing, signBundle } from './sigstore/signing.ts';
import { loadRoot, MANIFEST, simpleSigning, statementOf, subjectOf } from './sigstore/subject.ts';

const RUNS = cases(300);
const instance = makeInstance();
const root = loadRoot(instance.trustedRoot());
const subject = subjectOf();
const keys = ecKey();
const want = {
  identities: [{ identity: IDENTITY, issuer: ISSUER }],
  keys: [pem(keys.publicKey)],
};

/** Without a proof too many: to leave out one of two is no fault. */
const byCertificate: readonly Omit<Signing, 'instance' | 'signer'>[] = [
  { message: MANIFEST, version: '0.1' },
  { message: MANIFEST, version: '0.2' },
  { message: MANIFEST, entry: 'hashedrekord 0.0.2' },
  { payload: statementOf(subject), entry: 'dsse 0.0.1' },
  { payload: statementOf(subject), entry: 'intoto 0.0.2', stamped: false },
  { payload: statementOf(subject), entry: 'hashedrekord 0.0.2' },
];
const BUNDLES: readonly unknown[] = [
  ...byCertificate.map(form => signBundle({ ...form, instance, signer: instance.issue() })),
  signBundle({ instance, message: MANIFEST, signer: { keys }, entry: 'none' }),
];

async function accepted(json: Uint8Array | string): Promise<boolean> {
  const outcome = await verifyBundle(
    { kind: 'bundle', origin: '', json: Buffer.from(json) },
    subject,
    want,
    root,
  );
  if (!outcome.ok) expect(outcome.reason).toMatch(/^[^\n]{5,500}$/);
  return outcome.ok;
}

type Path = readonly (string | number)[];

/** Every value of a document, by its path. */
function paths(value: unknown, at: Path = []): Path[] {
  if (typeof value !== 'object' || value === null) return [at];
  return [at, ...Object.entries(value).flatMap(([key, item]) => paths(item, [...at, key]))];
}

function valueAt(value: unknown, path: Path): unknown {
  let at = value;
  for (const key of path) at = Object.entries(at ?? {}).find(([name]) => name === String(key))?.[1];
  return at;
}

function replaced(value: unknown, path: Path, by: (old: unknown) => unknown): unknown {
  const [key, ...rest] = path;
  if (key === undefined) return by(value);
  if (Array.isArray(value)) {
    return value.map((item, index) => (index === Number(key) ? replaced(item, rest, by) : item));
  }
  const entries = Object.entries(value ?? {});
  return Object.fromEntries(
    entries.map(([name, item]) => [name, name === key ? replaced(item, rest, by) : item]),
  );
}

/**
 * What may change without a word: a key's hint and a signature's key id are nobody's promise, and what satisfies
 * version 0.2 may satisfy 0.1, too.
 */
const MEANINGLESS = /(?:publicKey\.hint|keyid|publicKey|mediaType)$/;

const change = fc.oneof(
  fc.constantFrom<unknown>(null, 0, -1, '', [], {}, true, '0', 'AAAA', undefined),
  fc.string(),
  fc.base64String(),
  fc.jsonValue(),
);

test('as they are, they are accepted', async () => {
  for (const bundle of BUNDLES) expect(await accepted(JSON.stringify(bundle))).toBe(true);
});

describe('bundles', () => {
  test('a value replaced', async () => {
    const property = fc.asyncProperty(
      fc.constantFrom(...BUNDLES),
      fc.nat(),
      change,
      async (bundle, index, value) => {
        const all = paths(bundle).filter(path => !MEANINGLESS.test(path.join('.')));
        const path = all[index % all.length] ?? [];
        const made = replaced(bundle, path, () => value);
        fc.pre(!sameMeaning(made, bundle));
        const verdict = await accepted(JSON.stringify(made) ?? '');
        expect([path.join('.'), value, verdict]).toEqual([path.join('.'), value, false]);
      },
    );
    await fc.assert(property, { numRuns: RUNS });
  });

  test('a bit flipped in what base64 holds', async () => {
    const property = fc.asyncProperty(
      fc.constantFrom(...BUNDLES),
      fc.nat(),
      fc.nat(),
      fc.nat({ max: 7 }),
      async (bundle, index, byte, bit) => {
        const all = paths(bundle).filter(path => holdsBase64(valueAt(bundle, path)));
        const path = all[index % all.length] ?? [];
        // Much of a timestamp is not signed, and not looked at; timestamps have tests of their own.
        fc.pre(!MEANINGLESS.test(path.join('.')) && path.at(-1) !== 'signedTimestamp');
        const made = replaced(bundle, path, old => {
          const bytes = Buffer.from(String(old), 'base64');
          const at = byte % bytes.length;
          bytes[at] = (bytes[at] ?? 0) ^ (1 << bit);
          return bytes.toString('base64');
        });
        expect([path.join('.'), await accepted(JSON.stringify(made))]).toEqual([
          path.join('.'),
          false,
        ]);
      },
    );
    await fc.assert(property, { numRuns: RUNS * 2 });
  });

  test('a part of another bundle put in', async () => {
    const property = fc.asyncProperty(
      fc.constantFrom(...BUNDLES),
      fc.constantFrom(...BUNDLES),
      fc.nat(),
      async (bundle, other, index) => {
        const all = paths(bundle).filter(path => !MEANINGLESS.test(path.join('.')));
        const path = all[index % all.length] ?? [];
        const value = valueAt(other, path);
        const made = replaced(bundle, path, () => value);
        fc.pre(path.length > 0 && !sameMeaning(made, bundle));
        expect(await accepted(JSON.stringify(made))).toBe(false);
      },
    );
    await fc.assert(property, { numRuns: RUNS });
  });

  test('bytes changed, cut out, or put in', async () => {
    const property = fc.asyncProperty(
      fc.constantFrom(...BUNDLES),
      fc.nat(),
      fc.nat({ max: 3 }),
      fc.uint8Array({ maxLength: 4 }),
      async (bundle, start, gone, put) => {
        const bytes = Buffer.from(JSON.stringify(bundle));
        const at = start % bytes.length;
        const made = Buffer.concat([bytes.subarray(0, at), put, bytes.subarray(at + gone)]);
        fc.pre(!sameMeaning(parsed(made), bundle));
        const around = made.subarray(Math.max(0, at - 30), at + 30).toString('latin1');
        expect([around, await accepted(made)]).toEqual([around, false]);
      },
    );
    await fc.assert(property, { numRuns: RUNS });
  });

  test('anything at all', async () => {
    const property = fc.asyncProperty(
      fc.oneof(fc.uint8Array(), fc.json().map(Buffer.from)),
      async bytes => {
        expect(await accepted(bytes)).toBe(false);
      },
    );
    await fc.assert(property, { numRuns: RUNS });
  });
});

describe('cosign signatures', () => {
  const text = fc.option(fc.oneof(fc.string(), fc.json(), fc.base64String()), { nil: undefined });
  test('anything at all', async () => {
    const property = fc.asyncProperty(
      fc.record({
        payload: fc.oneof(fc.uint8Array(), fc.constant<Uint8Array>(simpleSigning(subject))),
        signature: fc.oneof(fc.string(), fc.base64String()),
        certificate: text,
        chain: text,
        bundle: text,
        timestamp: text,
      }),
      async fields => {
        const found = { kind: 'cosign', origin: '', ...fields } as const;
        expect(verifyCosignKey(found, subject, pem(keys.publicKey)).ok).toBe(false);
        expect((await verifyCosignKeyless(found, subject, want, root)).ok).toBe(false);
      },
    );
    await fc.assert(property, { numRuns: RUNS });
  });
});

test('strict JSON takes what JSON.parse takes, but for keys that stand twice', () => {
  const kind = { what: 'test', code: 'protocol' } as const;
  fc.assert(
    fc.property(fc.json({ maxDepth: 8 }), json => {
      expect(parseStrictJson(Buffer.from(json), 1 << 20, kind)).toEqual(JSON.parse(json));
    }),
    { numRuns: RUNS },
  );
  fc.assert(
    fc.property(fc.string(), fc.json({ maxDepth: 4 }), (key, value) => {
      const twice = `[{${JSON.stringify(key)}:${value},"x y":[{}],${JSON.stringify(key)}:1}]`;
      expect(() => parseStrictJson(Buffer.from(twice), 1 << 20, kind)).toThrow(/stands twice/);
    }),
    { numRuns: RUNS },
  );
});

test('base64 of any size, and no other text', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1 }), fc.string(), (bytes, text) => {
      expect(decodeBase64(Buffer.from(bytes).toString('base64'), 1000)).toEqual(Buffer.from(bytes));
      const read = decodeBase64(text, 1000);
      expect(read === undefined || read.toString('base64') === text).toBe(true);
    }),
    { numRuns: RUNS },
  );
  const large = Buffer.alloc(8 * 1024 * 1024, 7);
  expect(decodeBase64(large.toString('base64'), large.length)?.equals(large)).toBe(true);
  expect(decodeBase64(large.toString('base64'), large.length - 1)).toBeUndefined();
  for (const text of ['', 'A', 'AA', 'AA=', 'AB==', 'AAAA ', 'AA==AAAA', 'A-_A']) {
    expect([text, decodeBase64(text, 100)]).toEqual([text, undefined]);
  }
});

test('PEM of any text', () => {
  fc.assert(
    fc.property(fc.string(), fc.string(), (label, body) => {
      const block = decodePem(`-----BEGIN ${label}-----\n${body}\n-----END ${label}-----\n`);
      expect(block === undefined || block.label === label).toBe(true);
    }),
    { numRuns: RUNS },
  );
});

function parsed(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return undefined;
  }
}

/** null and absent are the same in protobuf's JSON, an int64 may be a number, and hints mean nothing. */
function sameMeaning(a: unknown, b: unknown): boolean {
  return a !== undefined && canonical(meaning(a)) === canonical(meaning(b));
}

function meaning(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(meaning);
  if (typeof value !== 'object' || value === null) {
    return typeof value === 'number' ? String(value) : value;
  }
  return Object.fromEntries(
    Object.entries(value)
      .filter(([key, item]) => key !== 'hint' && key !== 'keyid' && !isNothing(item))
      .map(([key, item]) => [key, meaning(item)]),
  );
}

function isNothing(value: unknown): boolean {
  return (value ?? null) === null || (Array.isArray(value) && value.length === 0);
}

function holdsBase64(value: unknown): boolean {
  return typeof value === 'string' && value.length >= 40 && /^[A-Za-z0-9+/]+=*$/.test(value);
}
