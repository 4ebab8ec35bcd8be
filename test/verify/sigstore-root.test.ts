/** Trusted roots: the one that ships with tspod, the closed periods, and files with something wrong. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { loadTrustedRoot, verifyBundle } from '../../stage0/verify/sigstore/index.ts';
import { IDENTITY, ISSUER, makeInstance, type TrustedRootJson } from './sigstore/authority.ts';
import { sha256 } from './sigstore/certificates.ts';
import { type Signing, signBundle } from './sigstore/signing.ts';
import { loadRoot, MANIFEST, subjectOf } from './sigstore/subject.ts';

const instance = makeInstance();

function changed(change: (root: TrustedRootJson) => void): TrustedRootJson {
  const root = instance.trustedRoot();
  change(root);
  return root;
}

function first<T>(list: readonly T[]): T {
  const [item] = list;
  if (item === undefined) throw new Error('empty');
  return item;
}

test('the one that ships: its authorities and logs', () => {
  const { material, path } = loadTrustedRoot(undefined);
  expect(path).toBeUndefined();
  expect(material.certificateAuthorities).toHaveLength(2);
  expect(material.tlogs.map(log => log.baseURL)).toEqual([
    'https://rekor.sigstore.dev',
    'https://log2025-1.rekor.sigstore.dev',
  ]);
  expect(material.ctlogs).toHaveLength(2);
  expect(material.timestampAuthorities).toHaveLength(1);
});

test('the one that ships is the one that sigstore.dev published, to the byte', () => {
  const file = new URL('../../stage0/verify/sigstore/public-good.json', import.meta.url);
  const digest = sha256(readFileSync(file)).toString('hex');
  const documented = readFileSync(new URL('../../docs/trust.md', import.meta.url), 'utf8');
  expect(digest).toBe('6494e21ea73fa7ee769f85f57d5a3e6a08725eae1e38c755fc3517c9e6bc0b66');
  expect(documented).toContain(digest);
});

describe('refused', () => {
  test.each<[string, unknown, RegExp]>([
    ['no JSON', '{', /it is not JSON/],
    ['twice a key', '{"mediaType":1,"mediaType":2}', /"mediaType" stands twice/],
    [
      'another version',
      changed(root => (root.mediaType = 'application/vnd.dev.sigstore.trustedroot.v0.9+json')),
      /mediaType is not that of a trusted root/,
    ],
    [
      'a bundle',
      { mediaType: 'application/vnd.dev.sigstore.bundle.v0.3+json' },
      /mediaType is not that of a trusted root/,
    ],
    [
      'a log without a start',
      changed(root => delete first(root.tlogs).publicKey.validFor.start),
      /tlogs\[0\].publicKey.validFor.start is not a string/,
    ],
    [
      'an authority without a start',
      changed(root => delete first(root.timestampAuthorities).validFor.start),
      /timestampAuthorities\[0\].validFor.start is not a string/,
    ],
    [
      'a start that is no time',
      changed(root => (first(root.ctlogs).publicKey.validFor.start = 'yesterday')),
      /ctlogs\[0\].publicKey.validFor.start is not a time/,
    ],
    [
      'an end before the start',
      changed(root => (first(root.tlogs).publicKey.validFor.end = '1999-01-01T00:00:00Z')),
      /validFor ends before it starts/,
    ],
    [
      'a key that is none',
      changed(root => (first(root.tlogs).publicKey.rawBytes = 'AAAA')),
      /^trusted root .*trusted_root.json: /,
    ],
    [
      'a key that is no base64',
      changed(root => (first(root.tlogs).publicKey.rawBytes += '*')),
      /tlogs\[0\].publicKey.rawBytes is not base64/,
    ],
    [
      'an authority without certificates',
      changed(root => (first(root.certificateAuthorities).certChain.certificates = [])),
      /certificates is empty/,
    ],
    [
      'a certificate that is none',
      changed(
        root =>
          (first(first(root.certificateAuthorities).certChain.certificates).rawBytes = '/w=='),
      ),
      /^trusted root .*trusted_root.json: /,
    ],
    [
      'another hash',
      changed(root => (first(root.tlogs).hashAlgorithm = 'SHA2_512')),
      /hashAlgorithm is not SHA2_256/,
    ],
    [
      'too many logs',
      changed(root => (root.tlogs = Array.from({ length: 257 }, () => first(root.tlogs)))),
      /tlogs has 257 items, over the limit of 256/,
    ],
  ])('%s', (_, json, expected) => expect(() => loadRoot(json)).toThrow(expected));

  test('a file that is not there, or too large', () => {
    expect(() => loadTrustedRoot('/nowhere/root.json')).toThrow(
      /^trusted root \/nowhere\/root.json: /,
    );
    const folder = mkdtempSync(join(tmpdir(), 'tspod-root-'));
    try {
      const path = join(folder, 'root.json');
      writeFileSync(path, Buffer.alloc(4 * 1024 * 1024 + 1, ' '));
      expect(() => loadTrustedRoot(path)).toThrow(/over the limit of 4194304/);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

describe('periods', () => {
  const at = (seconds: number) => new Date(instance.now.getTime() + seconds * 1000).toISOString();
  const form = { instance, message: MANIFEST };
  async function verdict(signing: Omit<Signing, 'signer'>, root: unknown): Promise<string> {
    const bundle = signBundle({ ...signing, signer: instance.issue() });
    const outcome = await verifyBundle(
      { kind: 'bundle', origin: '', json: Buffer.from(JSON.stringify(bundle)) },
      subjectOf(),
      { identities: [{ identity: IDENTITY, issuer: ISSUER }], keys: [] },
      loadRoot(root),
    );
    return outcome.ok ? 'ACCEPTED' : outcome.reason;
  }

  const logPeriod = (index: number, start: string, end?: string) =>
    changed(root => {
      const log = root.tlogs[index];
      if (log !== undefined)
        log.publicKey.validFor = { start, ...(end === undefined ? {} : { end }) };
    });
  const tiles = { ...form, entry: 'hashedrekord 0.0.2' } as const;

  test.each<[string, Omit<Signing, 'signer'>, TrustedRootJson, RegExp]>([
    ["a log's end, to the second", form, logPeriod(0, at(-1), at(0)), /ACCEPTED/],
    ["a log's start, to the second", form, logPeriod(0, at(0)), /ACCEPTED/],
    ['a log that had ended', form, logPeriod(0, at(-9), at(-1)), /promise does not hold/],
    ['a log that had not started', form, logPeriod(0, at(1)), /promise does not hold/],
    ["Rekor v2's end, to the second", tiles, logPeriod(1, at(-1), at(0)), /ACCEPTED/],
    ['Rekor v2 that had ended', tiles, logPeriod(1, at(-9), at(-1)), /log was not in use/],
    ['Rekor v2 that had not started', tiles, logPeriod(1, at(1)), /log was not in use/],
    [
      "a timestamp authority's end, to the second",
      tiles,
      changed(root => (first(root.timestampAuthorities).validFor.end = at(0))),
      /ACCEPTED/,
    ],
    [
      'a timestamp authority that had ended',
      tiles,
      changed(root => (first(root.timestampAuthorities).validFor.end = at(-1))),
      /timestamp could not be verified/,
    ],
    [
      'a certificate authority that had ended',
      form,
      changed(root => (first(root.certificateAuthorities).validFor.end = at(-1))),
      /certificate does not hold/,
    ],
    [
      'a certificate log that had ended',
      form,
      changed(root => (first(root.ctlogs).publicKey.validFor.end = at(-1))),
      /SCT verification failed/,
    ],
    [
      'nothing trusted',
      form,
      changed(root => (root.certificateAuthorities = [])),
      /certificate does not hold/,
    ],
    ['no logs', form, changed(root => (root.tlogs = [])), /promise does not hold/],
    [
      "version 0.2's other log id",
      form,
      changed(root =>
        Object.assign(first(root.tlogs), {
          checkpointKeyId: { keyId: instance.rekor1.id.subarray(0, 4).toString('base64') },
        }),
      ),
      /ACCEPTED/,
    ],
  ])('%s', async (_, signing, root, expected) => {
    expect(await verdict(signing, root)).toMatch(expected);
  });
});
