/** Cosign signatures: by key, and keyless ones of before bundles. */
import { constants, generateKeyPairSync, sign } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { parseCosignPublicKey, verifyCosignKey } from '../../stage0/verify/sigstore/cosign-key.ts';
import { verifyCosignKeyless } from '../../stage0/verify/sigstore/index.ts';
import type { FoundSignature, Subject } from '../../stage0/verify/types.ts';
import { IDENTITY, ISSUER, type Issued, makeInstance } from './sigstore/authority.ts';
import { ecKey, HOUR, type KeyPair, pem, sha256, spki } from './sigstore/certificates.ts';
import { entryBody, pemOf } from './sigstore/signing.ts';
import { loadRoot, MANIFEST, simpleSigning, subjectOf } from './sigstore/subject.ts';

type CosignSignature = Extract<FoundSignature, { kind: 'cosign' }>;

const subject = subjectOf();
const keys = ecKey();

function signed(
  payload: Uint8Array,
  by: KeyPair = keys,
  hash: string | null = 'sha256',
  padding?: number,
): CosignSignature {
  const key = padding === undefined ? by.privateKey : { key: by.privateKey, padding };
  return {
    kind: 'cosign',
    origin: 'here',
    payload,
    signature: sign(hash, payload, key).toString('base64'),
    certificate: undefined,
    chain: undefined,
    bundle: undefined,
    timestamp: undefined,
  };
}

function reason(
  found: CosignSignature,
  about: Subject = subject,
  key = pem(keys.publicKey),
): string {
  const outcome = verifyCosignKey(found, about, key);
  expect(outcome).toMatchObject({ kind: 'cosign', origin: 'here' });
  return outcome.ok ? 'ACCEPTED' : outcome.reason;
}

describe('by key', () => {
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
  test.each<[string, KeyPair, string | null, number | undefined]>([
    ['P-256', keys, 'sha256', undefined],
    ['P-384, as cosign signs', ecKey('P-384'), 'sha256', undefined],
    ['P-384 with its own hash', ecKey('P-384'), 'sha384', undefined],
    ['P-521, as cosign signs', ecKey('P-521'), 'sha256', undefined],
    ['P-521 with its own hash', ecKey('P-521'), 'sha512', undefined],
    ['RSA, PKCS #1 v1.5', rsa, 'sha256', constants.RSA_PKCS1_PADDING],
    ['RSA, PSS', rsa, 'sha256', constants.RSA_PKCS1_PSS_PADDING],
    ['Ed25519', generateKeyPairSync('ed25519'), null, undefined],
  ])('%s', (_, by, hash, padding) => {
    const found = signed(simpleSigning(subject), by, hash, padding);
    const key = pem(by.publicKey);
    expect(verifyCosignKey(found, subject, key)).toEqual({
      ok: true,
      kind: 'cosign',
      signer: `sha256:${sha256(spki(by.publicKey)).toString('hex')}`,
      detail: undefined,
      origin: 'here',
    });
    const altered = Buffer.from(found.payload);
    altered[40] = (altered[40] ?? 0) ^ 1;
    expect(reason({ ...found, payload: altered }, subject, key)).toMatch(/or was altered$/);
    expect(reason(found)).toMatch(by === keys ? /ACCEPTED/ : /was not made with the key sha256:/);
  });

  test('a hash that does not go with the key', () => {
    expect(reason(signed(simpleSigning(subject), keys, 'sha512'))).toMatch(/was not made with/);
    expect(
      reason(signed(simpleSigning(subject), rsa, 'sha1'), subject, pem(rsa.publicKey)),
    ).toMatch(/was not made with/);
  });

  test.each<[string, string, RegExp]>([
    ['empty', '', /not base64/],
    ['no base64', '*', /not base64/],
    ['line breaks', `${signed(MANIFEST).signature}\n`, /not base64/],
    ['too long', 'A'.repeat(1372), /not base64/],
    ['no DER', 'AAAA', /was not made with/],
    [
      'zeros (r = s = 0)',
      Buffer.from('3006020100020100', 'hex').toString('base64'),
      /was not made with/,
    ],
  ])('a signature: %s', (_, signature, expected) => {
    expect(reason({ ...signed(simpleSigning(subject)), signature })).toMatch(expected);
  });

  const text = simpleSigning(subject).toString();
  test.each<[string, string | Uint8Array, RegExp]>([
    ['no JSON', 'x', /^its payload: it is not JSON$/],
    ['not UTF-8', Buffer.from([0x22, 0xff, 0x22]), /not UTF-8/],
    ['a list', '[]', /its payload: it is not an object/],
    ['empty', '{}', /its payload: critical is not an object/],
    ['too large', `${text}${' '.repeat(128 * 1024)}`, /over the limit of 131072/],
    [
      'a key twice',
      text.replace('"critical"', '"critical":{},"critical"'),
      /"critical" stands twice/,
    ],
    [
      'a digest twice',
      text.replace(
        '"docker-manifest-digest"',
        '"docker-manifest-digest":"x","docker-manifest-digest"',
      ),
      /stands twice/,
    ],
    ['without identity', text.replace('"identity"', '"id"'), /critical.identity is not an object/],
    ['a number for a digest', text.replace(/"sha256:[0-9a-f]+"/, '5'), /is not a string/],
    [
      'another type',
      simpleSigning(subject, undefined, 'atomic container signature'),
      /type is "atomic container signature", not "cosign container image signature"/,
    ],
    [
      'another image',
      simpleSigning(subjectOf(Buffer.from('x'))),
      /it is for another image: "sha256:/,
    ],
    [
      'the digest in capitals',
      text.replace(/sha256:[0-9a-f]+/, hex => hex.toUpperCase()),
      /another image/,
    ],
  ])('a payload: %s', (_, payload, expected) => {
    expect(reason(signed(Buffer.from(payload)))).toMatch(expected);
  });

  const hub = subjectOf(MANIFEST, 'docker.io/library/busybox');
  test.each<[string, Subject, string, RegExp]>([
    ['its name', subject, 'quay.io/example/app', /ACCEPTED/],
    ['its name with a tag', subject, 'quay.io/example/app:2', /ACCEPTED/],
    ['its name with its digest', subject, `quay.io/example/app@${subject.digest}`, /ACCEPTED/],
    [
      'its name with another digest',
      subject,
      `quay.io/example/app@sha256:${'0'.repeat(64)}`,
      /it was made for/,
    ],
    [
      'another name',
      subject,
      'quay.io/example/other',
      /^it was made for "quay.io\/example\/other", not for quay/,
    ],
    ['a longer name', subject, 'quay.io/example/app/x', /it was made for/],
    ['another registry', subject, 'evil.example/example/app', /it was made for/],
    ['no name', subject, '', /it was made for ""/],
    ['a wild name', subject, '../../etc', /it was made for/],
    ["cosign's name of Docker Hub", hub, 'index.docker.io/library/busybox', /ACCEPTED/],
    ['a short name', hub, 'busybox', /ACCEPTED/],
    [
      'any name, for an image on disk',
      subjectOf(MANIFEST, '/srv/layout'),
      'quay.io/a/b',
      /ACCEPTED/,
    ],
  ])('a docker-reference: %s', (_, about, name, expected) => {
    expect(reason(signed(simpleSigning(about, name)), about)).toMatch(expected);
  });
});

describe('public keys', () => {
  const key = pem(keys.publicKey);
  test('id and PEM', () => {
    const parsed = parseCosignPublicKey(`\n${key.replaceAll('\n', '\r\n')}\n`);
    expect(parsed).toEqual({
      pem: key,
      id: `sha256:${sha256(spki(keys.publicKey)).toString('hex')}`,
    });
  });

  const privateKey = keys.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
  const certificate = pemOf(makeInstance().issue());
  test.each<[string, string, RegExp]>([
    ['a private key', privateKey, /^cosign public key: this is a private key/],
    [
      "cosign's private key",
      privateKey.replaceAll('PRIVATE', 'ENCRYPTED SIGSTORE PRIVATE'),
      /private key/,
    ],
    ['both', key + privateKey, /private key/],
    ['a certificate', certificate, /this is a certificate/],
    ['two keys', key + key, /2 PEM blocks/],
    ['nothing', '', /not a PEM file/],
    ['another thing', key.replaceAll('PUBLIC KEY', 'PGP MESSAGE'), /this is a "PGP MESSAGE"/],
    ['garbage inside', key.replace(/MFk/, 'AAA'), /does not decode/],
    ['too long', key + ' '.repeat(70_000), /over|limit of 65536/],
    ['secp256k1', pem(ecKey('secp256k1').publicKey), /secp256k1 are not taken/],
    [
      'RSA of 1024 bits',
      pem(generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey),
      /RSA keys of 1024 bits/,
    ],
    ['X25519', pem(generateKeyPairSync('x25519').publicKey), /x25519 keys are not taken/],
    ['DSA-like: Ed448', pem(generateKeyPairSync('ed448').publicKey), /ed448 keys are not taken/],
  ])('%s', (_, text, expected) => {
    expect(() => parseCosignPublicKey(text)).toThrow(expected);
    expect(reason(signed(simpleSigning(subject)), subject, text)).toMatch(expected);
  });
});

describe('keyless', () => {
  const instance = makeInstance();
  const root = loadRoot(instance.trustedRoot());
  const want = { identities: [{ identity: IDENTITY, issuer: ISSUER }], keys: [] };

  interface Options {
    readonly signer?: Issued;
    readonly at?: Date;
    readonly payload?: Uint8Array;
    readonly logged?: Uint8Array;
  }
  function keyless(options: Options = {}): CosignSignature {
    const signer = options.signer ?? instance.issue();
    const payload = options.payload ?? simpleSigning(subject);
    const found = signed(payload, signer.keys);
    const signature = Buffer.from(found.signature, 'base64');
    const body = entryBody('hashedrekord 0.0.1', {
      signer,
      signed: options.logged ?? payload,
      signature,
      payload,
    });
    const entry = instance.rekor1.add(body, options.at ?? instance.now);
    const bundle = {
      SignedEntryTimestamp: entry.inclusionPromise?.signedEntryTimestamp,
      Payload: {
        body: entry.canonicalizedBody,
        integratedTime: Number(entry.integratedTime),
        logIndex: Number(entry.logIndex),
        logID: instance.rekor1.id.toString('hex'),
      },
    };
    const stamp = instance.timestamps.stamp(signature, options.at ?? instance.now);
    return {
      ...found,
      certificate: pemOf(signer),
      chain: '',
      bundle: JSON.stringify(bundle),
      timestamp: JSON.stringify({ SignedRFC3161Timestamp: stamp.toString('base64') }),
    };
  }
  async function why(found: CosignSignature, about = subject, wanted = want): Promise<string> {
    const outcome = await verifyCosignKeyless(found, about, wanted, root);
    expect(outcome).toMatchObject({ kind: 'sigstore', origin: 'here' });
    return outcome.ok ? 'ACCEPTED' : outcome.reason;
  }

  test('with and without a timestamp', async () => {
    expect(await verifyCosignKeyless(keyless(), subject, want, root)).toEqual({
      ok: true,
      kind: 'sigstore',
      signer: IDENTITY,
      detail: ISSUER,
      origin: 'here',
    });
    expect(await why({ ...keyless(), timestamp: undefined })).toBe('ACCEPTED');
  });

  const good = keyless();
  const change = (from: string | RegExp, to: string): string =>
    (good.bundle ?? '').replace(from, to);
  test.each<[string, CosignSignature, RegExp]>([
    ['no certificate', { ...good, certificate: undefined }, /it has no certificate/],
    [
      'a key as certificate',
      { ...good, certificate: pem(keys.publicKey) },
      /not one PEM certificate/,
    ],
    ['text as certificate', { ...good, certificate: 'x' }, /not one PEM certificate/],
    [
      'another certificate',
      { ...good, certificate: pemOf(instance.issue()) },
      /signature does not fit/,
    ],
    ['no log entry', { ...good, bundle: undefined }, /no transparency log entry/],
    ['a log entry that is no JSON', { ...good, bundle: '{' }, /its Rekor bundle: it is not JSON/],
    [
      'a log id of other letters',
      { ...good, bundle: change(/"logID":"./, '"logID":"x') },
      /logID is not/,
    ],
    [
      'another time',
      { ...good, bundle: change(/"integratedTime":\d/, '"integratedTime":2') },
      /outside of its/,
    ],
    [
      'another index',
      { ...good, bundle: change(/"logIndex":\d/, '"logIndex":9') },
      /promise does not hold/,
    ],
    ['the entry of another', { ...good, bundle: keyless().bundle }, /made for another certificate/],
    ['an entry of other content', keyless({ logged: MANIFEST }), /digest mismatch/],
    [
      'another payload',
      { ...good, payload: simpleSigning(subject, 'quay.io/evil/app') },
      /signature does not fit/,
    ],
    [
      'a payload for another name',
      keyless({ payload: simpleSigning(subject, 'a.b/c') }),
      /it was made for "a.b\/c"/,
    ],
    [
      'a payload for another image',
      keyless({ payload: simpleSigning(subjectOf(Buffer.from('x'))) }),
      /for another image/,
    ],
    [
      'expired',
      keyless({ at: new Date(instance.now.getTime() + HOUR) }),
      /was logged .* outside of its certificate's validity/,
    ],
    [
      'a timestamp of other bytes',
      { ...good, timestamp: keyless().timestamp },
      /timestamp could not be verified/,
    ],
    ['a timestamp that is none', { ...good, timestamp: '{}' }, /signedTimestamp is not a string/],
    ['a signature altered', { ...good, signature: keyless().signature }, /signature does not fit/],
  ])('%s', async (_, found, expected) => expect(await why(found)).toMatch(expected));

  test('somebody else', async () => {
    const identities = [{ identity: 'me@example.org', issuer: ISSUER }];
    expect(await why(good, subject, { identities, keys: [] })).toMatch(/who is not accepted/);
  });
});
