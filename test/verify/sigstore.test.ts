/** Sigstore bundles: each good form is accepted, each thing broken is refused by its name. */
import { execFileSync } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { parseCosignPublicKey } from '../../stage0/verify/sigstore/cosign-key.ts';
import { verifyBundle, type WantedSigners } from '../../stage0/verify/sigstore/index.ts';
import type { TrustedRoot } from '../../stage0/verify/sigstore/trusted-root.ts';
import type { Outcome, Subject } from '../../stage0/verify/types.ts';
import { IDENTITY, ISSUER, makeInstance } from './sigstore/authority.ts';
import { ecKey, pem } from './sigstore/certificates.ts';
import { type BundleJson, type Signing, signBundle } from './sigstore/signing.ts';
import { loadRoot, MANIFEST, statementOf, subjectOf } from './sigstore/subject.ts';

const instance = makeInstance();
const root = loadRoot(instance.trustedRoot());
const subject = subjectOf();
const WANT: WantedSigners = { identities: [{ identity: IDENTITY, issuer: ISSUER }], keys: [] };

type Form = Omit<Signing, 'instance' | 'signer'>;
const message: Form = { message: MANIFEST };
const dsse: Form = { payload: statementOf(subject) };

function check(
  bundle: BundleJson | string,
  options: { want?: WantedSigners; root?: TrustedRoot; subject?: Subject } = {},
): Promise<Outcome> {
  const text = typeof bundle === 'string' ? bundle : JSON.stringify(bundle);
  return verifyBundle(
    { kind: 'bundle', origin: 'here', json: Buffer.from(text) },
    options.subject ?? subject,
    options.want ?? WANT,
    options.root ?? root,
  );
}

const ACCEPTED = { ok: true, kind: 'sigstore', signer: IDENTITY, detail: ISSUER, origin: 'here' };

describe('forms by certificate', () => {
  test.each<[string, Form]>([
    ['message, 0.1', { ...message, version: '0.1' }],
    ['message, 0.2', { ...message, version: '0.2' }],
    ['message, 0.3', message],
    ['message, with a timestamp besides', { ...message, stamped: true }],
    ['message, Rekor v2', { ...message, entry: 'hashedrekord 0.0.2' }],
    [
      'statement, intoto entry, 0.1',
      { ...dsse, entry: 'intoto 0.0.2', version: '0.1', stamped: false },
    ],
    [
      'statement, intoto entry, 0.2',
      { ...dsse, entry: 'intoto 0.0.2', version: '0.2', stamped: false },
    ],
    ['statement, dsse entry', { ...dsse, entry: 'dsse 0.0.1' }],
    ['statement, dsse entry of Rekor v2', { ...dsse, entry: 'dsse 0.0.2' }],
    ['statement, hashedrekord of Rekor v2', { ...dsse, entry: 'hashedrekord 0.0.2' }],
    ['statement, hashedrekord', { ...dsse, entry: 'hashedrekord 0.0.1' }],
  ])('%s', async (_, form) => {
    const bundle = signBundle({ ...form, instance, signer: instance.issue() });
    expect(await check(bundle)).toEqual(ACCEPTED);
  });

  test('the media type of early 0.3', async () => {
    const bundle = signBundle({ ...message, instance, signer: instance.issue() });
    bundle.mediaType = 'application/vnd.dev.sigstore.bundle+json;version=0.3';
    expect(await check(bundle)).toEqual(ACCEPTED);
  });
});

describe('forms by key', () => {
  test.each([
    ['P-256', ecKey('P-256'), 'sha256'],
    ['P-384 with SHA-256', ecKey('P-384'), 'sha256'],
    ['P-384 with SHA-384', ecKey('P-384'), 'sha384'],
    ['RSA', generateKeyPairSync('rsa', { modulusLength: 2048 }), 'sha256'],
    ['Ed25519', generateKeyPairSync('ed25519'), null],
  ] as const)('%s', async (_, keys, hash) => {
    const want = { identities: [], keys: [pem(ecKey().publicKey), pem(keys.publicKey)] };
    for (const form of [message, dsse]) {
      for (const entry of ['none', 'hashedrekord 0.0.1'] as const) {
        const bundle = signBundle({ ...form, instance, signer: { keys }, entry, hash });
        const { id } = parseCosignPublicKey(pem(keys.publicKey));
        expect(await check(bundle, { want })).toMatchObject({
          ok: true,
          kind: 'cosign',
          signer: id,
        });
      }
    }
  });
});

describe('the authority of the tests is one for openssl, too', () => {
  const folder = mkdtempSync(join(tmpdir(), 'tspod-openssl-'));
  afterAll(() => rmSync(folder, { recursive: true }));
  const write = (name: string, content: string | Uint8Array): string => {
    writeFileSync(join(folder, name), content);
    return join(folder, name);
  };
  const inPem = (der: Uint8Array): string =>
    `-----BEGIN CERTIFICATE-----\n${Buffer.from(der).toString('base64').replace(/.{64}/g, '$&\n')}\n-----END CERTIFICATE-----\n`;
  const openssl = (...args: string[]): string =>
    execFileSync('openssl', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  const at = String(instance.now.getTime() / 1000);

  test('certificates', () => {
    const leaf = write('leaf', inPem(instance.issue().certificate));
    const above = write('intermediate', inPem(instance.intermediate.certificate));
    const top = write('root', inPem(instance.root.certificate));
    const chain = ['-attime', at, '-ignore_critical', '-CAfile', top, '-untrusted', above, leaf];
    expect(openssl('verify', ...chain)).toMatch(/leaf: OK/);
  });

  test('timestamps', () => {
    const [signer = Buffer.alloc(0), top = Buffer.alloc(0)] = instance.timestamps.chain;
    const stamp = write('stamp', instance.timestamps.stamp(MANIFEST, instance.now));
    const files = ['-in', stamp, '-data', write('data', MANIFEST)];
    const trusted = [
      '-CAfile',
      write('tsa-root', inPem(top)),
      '-untrusted',
      write('tsa', inPem(signer)),
    ];
    expect(openssl('ts', '-verify', '-attime', at, ...files, ...trusted)).toMatch(/OK/);
  });
});
