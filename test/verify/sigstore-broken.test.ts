/** Sigstore bundles with one thing wrong: each is refused, by a reason that names it. */
import { describe, expect, test } from 'vitest';
import { verifyBundle, type WantedSigners } from '../../stage0/verify/sigstore/index.ts';
import type { TrustedRoot } from '../../stage0/verify/sigstore/trusted-root.ts';
import type { Subject } from '../../stage0/verify/types.ts';
import {
  IDENTITY,
  ISSUER,
  type Issued,
  makeInstance,
  usualExtensions,
} from './sigstore/authority.ts';
import {
  authority,
  CODE_SIGNING,
  distinguishedName,
  ecKey,
  extension,
  HOUR,
  isAuthority,
  issuerV1,
  issuerV2,
  keyUsage,
  pem,
  purpose,
  sha256,
  spki,
  subjectAltName,
  TIME_STAMPING,
  userName,
} from './sigstore/certificates.ts';
import { ctxPlain, octets, oid, seq, set } from './sigstore/der.ts';
import { canonical, type LogEntry, rekor1 } from './sigstore/logs.ts';
import { type BundleJson, entryBody, type Signing, signBundle } from './sigstore/signing.ts';
import { loadRoot, MANIFEST, statementOf, subjectOf } from './sigstore/subject.ts';
import type { WrongStamp } from './sigstore/timestamps.ts';

const instance = makeInstance();
const root = loadRoot(instance.trustedRoot());
const subject = subjectOf();
const WANT: WantedSigners = { identities: [{ identity: IDENTITY, issuer: ISSUER }], keys: [] };

type Form = Omit<Signing, 'instance' | 'signer'> & { readonly signer?: Issued };
const message: Form = { message: MANIFEST };
const tiles: Form = { message: MANIFEST, entry: 'hashedrekord 0.0.2' };
const statement: Form = { payload: statementOf(subject), entry: 'dsse 0.0.1' };

const make = (form: Form): BundleJson =>
  signBundle({ instance, ...form, signer: form.signer ?? instance.issue() });

interface Given {
  readonly want?: WantedSigners;
  readonly root?: TrustedRoot;
  readonly subject?: Subject;
}

async function reason(
  bundle: BundleJson | string | Uint8Array,
  given: Given = {},
): Promise<string> {
  const json =
    bundle instanceof Uint8Array
      ? bundle
      : Buffer.from(typeof bundle === 'string' ? bundle : JSON.stringify(bundle));
  const outcome = await verifyBundle(
    { kind: 'bundle', origin: 'here', json },
    given.subject ?? subject,
    given.want ?? WANT,
    given.root ?? root,
  );
  expect(outcome.origin).toBe('here');
  return outcome.ok ? 'ACCEPTED' : outcome.reason;
}

/** A bit of the last byte but two, where base64 has no padding to hit. */
function flip(text: string, at = -3): string {
  const bytes = Buffer.from(text, 'base64');
  const index = at < 0 ? bytes.length + at : at;
  bytes[index] = (bytes[index] ?? 0) ^ 1;
  return bytes.toString('base64');
}

function there<T>(value: T | undefined): T {
  if (value === undefined) throw new Error('the fixture has no such part');
  return value;
}

const entryOf = (bundle: BundleJson): LogEntry => there(bundle.verificationMaterial.tlogEntries[0]);
const proofOf = (bundle: BundleJson) => there(entryOf(bundle).inclusionProof);
const signatureOf = (bundle: BundleJson) => there(bundle.messageSignature);
const envelopeOf = (bundle: BundleJson) => there(bundle.dsseEnvelope);
const stampsOf = (bundle: BundleJson) =>
  there(bundle.verificationMaterial.timestampVerificationData).rfc3161Timestamps;

type Row = readonly [string, Form, (bundle: BundleJson) => void, RegExp];

function refused(rows: readonly Row[]): void {
  test.each(rows)('%s', async (_, form, change, expected) => {
    const bundle = make(form);
    change(bundle);
    expect(await reason(bundle)).toMatch(expected);
  });
}

test('witnesses of a checkpoint are passed over', async () => {
  const bundle = make(message);
  const { checkpoint } = proofOf(bundle);
  const line = '— witness.test AAAAAAAA\n';
  checkpoint.envelope = checkpoint.envelope.replace('\n\n', `\n\n${line}`) + line;
  expect(await reason(bundle)).toBe('ACCEPTED');
});

test('the forms that are broken below are accepted whole', async () => {
  for (const form of [message, tiles, statement]) expect(await reason(make(form))).toBe('ACCEPTED');
});

describe('the document', () => {
  const text = JSON.stringify(make(message));
  test.each<[string, string | Uint8Array, RegExp]>([
    ['empty', '', /^bundle: it is not JSON$/],
    ['cut off', text.slice(0, -9), /^bundle: it is not JSON$/],
    ['not UTF-8', Buffer.concat([Buffer.from(text), Buffer.from([0xff])]), /not UTF-8/],
    ['a list', '[]', /it is not an object/],
    ['deep', `${'['.repeat(70)}${']'.repeat(70)}`, /deeper than 64 levels/],
    ['huge', `${text}${' '.repeat(8 * 1024 * 1024)}`, /over the limit of 8388608/],
    ['two media types', text.replace('{', '{"mediaType":"x",'), /"mediaType" stands twice/],
    [
      'two media types, one escaped',
      text.replace('{', String.raw`{"\u006dediaType":"x",`),
      /"mediaType" stands twice/,
    ],
    ['an unknown member', text.replace('{', '{"more":1,'), /unknown: "more"/],
  ])('%s', async (_, json, expected) => expect(await reason(json)).toMatch(expected));

  refused([
    [
      'a version to come',
      message,
      bundle =>
        Object.assign(bundle, { mediaType: 'application/vnd.dev.sigstore.bundle.v0.4+json' }),
      /mediaType is not that of a bundle/,
    ],
    [
      'more than a media type',
      message,
      bundle => Object.assign(bundle, { mediaType: `${bundle.mediaType};x=1` }),
      /mediaType is not that of a bundle/,
    ],
    ['no content', message, bundle => delete bundle.messageSignature, /none of messageSignature/],
    [
      'both contents',
      message,
      bundle => Object.assign(bundle, { dsseEnvelope: make(statement).dsseEnvelope }),
      /more than one of messageSignature/,
    ],
    [
      'a certificate in 0.2',
      message,
      bundle =>
        Object.assign(bundle, {
          mediaType: 'application/vnd.dev.sigstore.bundle+json;version=0.2',
        }),
      /certificate is not of version 0.2/,
    ],
    [
      'a chain in 0.3',
      { ...message, version: '0.2' },
      bundle => Object.assign(bundle, { mediaType: make(message).mediaType }),
      /x509CertificateChain is not of version 0.3/,
    ],
    [
      'an empty chain',
      { ...message, version: '0.2' },
      bundle => there(bundle.verificationMaterial.x509CertificateChain).certificates.pop(),
      /certificates is empty/,
    ],
    [
      'a root in the chain',
      { ...message, version: '0.2' },
      bundle =>
        there(bundle.verificationMaterial.x509CertificateChain).certificates.push({
          rawBytes: instance.root.certificate.toString('base64'),
        }),
      /chain has a root certificate/,
    ],
    [
      'base64 with a space',
      message,
      bundle => (signatureOf(bundle).signature += ' '),
      /signature is not base64/,
    ],
    [
      'base64 for URLs',
      message,
      bundle => (signatureOf(bundle).signature = `-_${signatureOf(bundle).signature.slice(2)}`),
      /signature is not base64/,
    ],
    [
      'a negative index',
      message,
      bundle => (entryOf(bundle).logIndex = '-1'),
      /logIndex is not a whole/,
    ],
    [
      'an index in hex',
      message,
      bundle => (proofOf(bundle).logIndex = '0x5'),
      /logIndex is not a whole/,
    ],
    [
      'too many entries',
      message,
      bundle =>
        (bundle.verificationMaterial.tlogEntries = Array.from({ length: 17 }, () =>
          entryOf(bundle),
        )),
      /tlogEntries has 17 items, over the limit of 16/,
    ],
    [
      'two signatures in an envelope',
      statement,
      bundle => envelopeOf(bundle).signatures.push(there(envelopeOf(bundle).signatures[0])),
      /signatures has to be exactly one/,
    ],
    [
      'a digest of another algorithm',
      message,
      bundle => (signatureOf(bundle).messageDigest.algorithm = 'SHA2_512'),
      /algorithm is not SHA2_256/,
    ],
    [
      '0.1 without a promise',
      { ...message, version: '0.1' },
      bundle => delete entryOf(bundle).inclusionPromise,
      /inclusionPromise is missing/,
    ],
    [
      '0.2 without a proof',
      { ...message, version: '0.2' },
      bundle => delete entryOf(bundle).inclusionProof,
      /inclusionProof is missing/,
    ],
    [
      '0.3 without a proof',
      message,
      bundle => delete entryOf(bundle).inclusionProof,
      /inclusionProof is missing/,
    ],
    [
      'a proof without a checkpoint',
      message,
      bundle => Object.assign(proofOf(bundle), { checkpoint: undefined }),
      /checkpoint is not an object/,
    ],
  ]);
});

describe('what is signed', () => {
  refused([
    [
      'the signature altered',
      message,
      bundle => (signatureOf(bundle).signature = flip(signatureOf(bundle).signature)),
      /signature does not fit/,
    ],
    [
      'the message digest altered',
      message,
      bundle =>
        (signatureOf(bundle).messageDigest.digest = flip(signatureOf(bundle).messageDigest.digest)),
      /message digest is that of other content/,
    ],
    [
      'the signature of a statement altered',
      statement,
      bundle => {
        const signature = there(envelopeOf(bundle).signatures[0]);
        signature.sig = flip(signature.sig);
      },
      /signature does not fit/,
    ],
    [
      'the statement altered',
      statement,
      bundle => (envelopeOf(bundle).payload = flip(envelopeOf(bundle).payload, 20)),
      /signature does not fit/,
    ],
    [
      "the payload's type altered",
      statement,
      bundle => (envelopeOf(bundle).payloadType = 'text/plain'),
      /signature does not fit/,
    ],
    [
      'another type of payload',
      { ...statement, payloadType: 'text/plain' },
      () => undefined,
      /payload's type is "text\/plain"/,
    ],
    [
      'a statement about another image',
      { ...statement, payload: statementOf(subjectOf(Buffer.from('other'))) },
      () => undefined,
      /statement is about another image/,
    ],
    [
      'a statement about nothing',
      { ...statement, payload: statementOf(subject, { subject: [] }) },
      () => undefined,
      /statement is about another image/,
    ],
    [
      'a statement of no type',
      { ...statement, payload: statementOf(subject, { _type: undefined }) },
      () => undefined,
      /_type is not a string/,
    ],
    [
      'a statement of an unknown type',
      { ...statement, payload: statementOf(subject, { _type: 'https://in-toto.io/Statement/v9' }) },
      () => undefined,
      /statement's type is unknown/,
    ],
    [
      'an attestation',
      {
        ...statement,
        payload: statementOf(subject, { predicateType: 'https://slsa.dev/provenance/v1' }),
      },
      () => undefined,
      /it is an attestation \("https:\/\/slsa.dev\/provenance\/v1"\), not a signature/,
    ],
  ]);

  test('of another image', async () => {
    const other = subjectOf(Buffer.from('{}'));
    expect(await reason(make(message), { subject: other })).toMatch(
      /digest is that of other content/,
    );
  });

  test('content that is not what the digest says', async () => {
    const lying = { ...subjectOf(Buffer.from('{}')), content: () => [MANIFEST] };
    expect(await reason(make(message), { subject: lying })).toMatch(/its content is not sha256:/);
  });
});

describe('the certificate', () => {
  const elsewhere = makeInstance(instance.now);
  const soon = new Date(instance.now.getTime() + 1000);
  const before = new Date(instance.now.getTime() - HOUR);
  const [usage, forCode, name, issuer] = [
    keyUsage(0x80, 7),
    purpose(CODE_SIGNING),
    subjectAltName(IDENTITY),
    issuerV2(ISSUER),
  ];
  const notCa = authority('test intermediate', before, new Date(instance.now.getTime() + HOUR));
  /** 'h' with its highest bit set; a reader of ASCII would drop that bit. */
  const disguised = Buffer.from(IDENTITY);
  disguised[0] = 0xe8;

  test.each<[string, Parameters<typeof instance.issue>[0], RegExp]>([
    [
      'of another authority',
      { issuer: elsewhere.intermediate },
      /certificate does not hold: no valid/,
    ],
    ['of an authority of the same name', { issuer: notCa }, /certificate does not hold/],
    ['issued later', { from: soon }, /was logged .* outside of its certificate's validity/],
    [
      'expired',
      { from: before, to: new Date(before.getTime() + 600_000) },
      /was logged .* outside of/,
    ],
    ['without SCT', { ctLog: 'none' }, /certificate does not hold: expected 1 SCTs, got 0/],
    ['with the SCT of an unknown log', { ctLog: ecKey() }, /SCT verification failed/],
    ['without use', { extensions: [forCode, name, issuer] }, /not for digital signatures/],
    [
      'for other use',
      { extensions: [keyUsage(0x08, 3), forCode, name, issuer] },
      /not for digital signatures/,
    ],
    ['without purpose', { extensions: [usage, name, issuer] }, /not for signing code/],
    [
      'for another purpose',
      { extensions: [usage, purpose(TIME_STAMPING), name, issuer] },
      /not for signing code/,
    ],
    [
      "an authority's",
      { extensions: [usage, forCode, name, issuer, isAuthority()] },
      /certificate authority's/,
    ],
    [
      'with an unknown critical extension',
      { extensions: [...usualExtensions(), extension('1.2.3.4', seq(), true)] },
      /critical extension 1.2.3.4/,
    ],
    [
      'with two names',
      { extensions: [usage, forCode, subjectAltName(IDENTITY, 'https://evil.example/'), issuer] },
      /names 2 identities/,
    ],
    [
      'with its names twice',
      { extensions: [...usualExtensions(), subjectAltName('https://evil.example/')] },
      /extension 2.5.29.17 twice/,
    ],
    ['without a name', { extensions: [usage, forCode, issuer] }, /names 0 identities/],
    ['without an issuer', { extensions: [usage, forCode, name] }, /names no identity's issuer/],
    [
      'with a host name',
      {
        extensions: [usage, forCode, subjectAltName(ctxPlain(2, Buffer.from('a.example'))), issuer],
      },
      /neither an e-mail address nor a URI/,
    ],
    [
      'with a name that ends a line',
      { extensions: [usage, forCode, subjectAltName('https://a/\n'), issuer] },
      /identity is not a name/,
    ],
    [
      'with an endless name',
      { extensions: [usage, forCode, subjectAltName(`https://${'a'.repeat(2048)}`), issuer] },
      /identity is not a name/,
    ],
    [
      'with a disguised name',
      { extensions: [usage, forCode, subjectAltName(ctxPlain(6, disguised)), issuer] },
      /certificate does not decode/,
    ],
    [
      'with an unknown key type',
      { keys: ecKey('secp256k1') },
      /certificate's key: ECDSA keys on secp256k1 are not taken/,
    ],
  ])('%s', async (_, options, expected) => {
    expect(await reason(make({ ...message, signer: instance.issue(options) }))).toMatch(expected);
  });

  test('of the same identity, but another', async () => {
    const bundle = make(message);
    bundle.verificationMaterial.certificate = {
      rawBytes: instance.issue().certificate.toString('base64'),
    };
    expect(await reason(bundle)).toMatch(/signature does not fit/);
  });

  test('altered', async () => {
    const bundle = make(message);
    const certificate = there(bundle.verificationMaterial.certificate);
    certificate.rawBytes = flip(certificate.rawBytes);
    expect(await reason(bundle)).toMatch(/log entry was made for another certificate/);
  });

  test('not a certificate', async () => {
    const bundle = make(message);
    there(bundle.verificationMaterial.certificate).rawBytes = 'MAA=';
    expect(await reason(bundle)).toMatch(/certificate does not decode/);
  });

  test('signed by a certificate that is no authority', async () => {
    const leaf = instance.issue();
    const issuing = { name: distinguishedName(''), ...leaf };
    const signer = instance.issue({ issuer: issuing });
    expect(await reason(make({ ...message, signer }))).toMatch(/certificate does not hold/);
  });
});

describe('the log', () => {
  const now = instance.now;
  /** A bundle whose entry is another's, or was changed before it was logged. */
  function relogged(
    form: Form,
    change: (content: Parameters<typeof entryBody>[1]) => object,
  ): BundleJson {
    const signer = instance.issue();
    const bundle = make({ ...form, signer });
    const signature = Buffer.from(signatureOf(bundle).signature, 'base64');
    const content = { signer, signed: MANIFEST, signature, payload: Buffer.alloc(0) };
    const body = entryBody('hashedrekord 0.0.1', { ...content, ...change(content) });
    bundle.verificationMaterial.tlogEntries = [instance.rekor1.add(body, now)];
    return bundle;
  }

  refused([
    [
      'no entry',
      message,
      bundle => (bundle.verificationMaterial.tlogEntries = []),
      /time of signing is not proven: expected 1 timestamps/,
    ],
    [
      'no entry, but a timestamp',
      { ...message, entry: 'none', stamped: true },
      () => undefined,
      /log entries do not suffice: expected 1 tlog entries/,
    ],
    [
      'the same entry twice',
      tiles,
      bundle => bundle.verificationMaterial.tlogEntries.push(entryOf(bundle)),
      /log entries do not suffice: duplicate/,
    ],
    [
      'the promise altered',
      message,
      bundle => {
        const promise = there(entryOf(bundle).inclusionPromise);
        promise.signedEntryTimestamp = flip(promise.signedEntryTimestamp);
      },
      /log's promise does not hold/,
    ],
    [
      'the time altered',
      message,
      bundle => (entryOf(bundle).integratedTime = String(Math.floor(now.getTime() / 1000) + 5)),
      /log's promise does not hold/,
    ],
    [
      'the index altered',
      message,
      bundle => (entryOf(bundle).logIndex = '7'),
      /log's promise does not hold/,
    ],
    [
      'a time that nobody promised',
      message,
      bundle => delete entryOf(bundle).inclusionPromise,
      /time of signing is not proven: expected 1 timestamps, got 0/,
    ],
    [
      'a hash of the proof altered',
      message,
      bundle => (proofOf(bundle).hashes[0] = flip(there(proofOf(bundle).hashes[0]))),
      /inclusion proof does not hold: calculated root hash/,
    ],
    [
      'a hash too many',
      message,
      bundle => proofOf(bundle).hashes.push(there(proofOf(bundle).hashes[0])),
      /inclusion proof does not hold: invalid hash count/,
    ],
    ['a hash too few', message, bundle => proofOf(bundle).hashes.pop(), /invalid hash count/],
    [
      'another place in the tree',
      message,
      bundle => (proofOf(bundle).logIndex = '4'),
      /inclusion proof does not hold/,
    ],
    ['outside of the tree', message, bundle => (proofOf(bundle).logIndex = '8'), /invalid index/],
    [
      'the root hash altered',
      message,
      bundle => (proofOf(bundle).rootHash = flip(proofOf(bundle).rootHash)),
      /proof and its log's checkpoint disagree/,
    ],
    [
      'the tree size altered',
      message,
      bundle => (proofOf(bundle).treeSize = '9'),
      /proof and its log's checkpoint disagree/,
    ],
    [
      'the checkpoint of another tree',
      message,
      bundle =>
        (proofOf(bundle).checkpoint.envelope = instance.rekor1.checkpoint(8, sha256(MANIFEST))),
      /calculated root hash does not match/,
    ],
    [
      'the checkpoint altered',
      message,
      bundle => {
        const { checkpoint } = proofOf(bundle);
        checkpoint.envelope = checkpoint.envelope.replace('rekor.test - 42', 'rekor.test - 43');
      },
      /invalid checkpoint signature/,
    ],
    [
      'the checkpoint unsigned',
      message,
      bundle => {
        const { checkpoint } = proofOf(bundle);
        checkpoint.envelope = checkpoint.envelope.replace(/—.*/, '');
      },
      /no signatures found in checkpoint/,
    ],
    [
      'something before a signature of the checkpoint',
      message,
      bundle => {
        const { checkpoint } = proofOf(bundle);
        checkpoint.envelope = checkpoint.envelope.replace('—', 'x—');
      },
      /checkpoint is not a signed note/,
    ],
    [
      'something behind the checkpoint',
      message,
      bundle => (proofOf(bundle).checkpoint.envelope += 'x'),
      /checkpoint is not a signed note/,
    ],
    [
      'a second note behind the checkpoint',
      message,
      bundle => (proofOf(bundle).checkpoint.envelope += '\nx\n'),
      /checkpoint is not a signed note/,
    ],
    [
      'too many witnesses',
      message,
      bundle => (proofOf(bundle).checkpoint.envelope += '— witness.test AAAAAAAA\n'.repeat(64)),
      /more than 64 signatures/,
    ],
    [
      'the checkpoint signed in another name',
      message,
      bundle => {
        const { checkpoint } = proofOf(bundle);
        checkpoint.envelope = checkpoint.envelope.replace('— rekor.test', '— other.test');
      },
      /invalid checkpoint signature/,
    ],
    [
      'a checkpoint of the other log that is trusted',
      message,
      bundle => {
        const proof = proofOf(bundle);
        const hash = Buffer.from(proof.rootHash, 'base64');
        proof.checkpoint.envelope = instance.rekor2.checkpoint(8, hash);
      },
      /invalid checkpoint signature/,
    ],
    [
      'an index that nobody promised',
      tiles,
      bundle => (entryOf(bundle).logIndex = '7'),
      /index and its inclusion proof disagree/,
    ],
    [
      'a log that is not known',
      { ...message, log: rekor1('rekor.test') },
      () => undefined,
      /log's promise does not hold/,
    ],
    [
      'a body that is no JSON',
      message,
      bundle => (entryOf(bundle).canonicalizedBody = Buffer.from('{').toString('base64')),
      /its log entry: it is not JSON/,
    ],
    [
      'another kind than the body',
      message,
      bundle => (entryOf(bundle).kindVersion.version = '0.0.9'),
      /kind\/version mismatch/,
    ],
    [
      'a kind that is a screenful',
      message,
      bundle => (entryOf(bundle).kindVersion.kind = '\u001b[2J\n'.repeat(10_000)),
      /^.{100,401}$/,
    ],
    [
      'the body altered',
      tiles,
      bundle => {
        const entry = entryOf(bundle);
        const body: unknown = JSON.parse(Buffer.from(entry.canonicalizedBody, 'base64').toString());
        entry.canonicalizedBody = Buffer.from(JSON.stringify(body, undefined, 1)).toString(
          'base64',
        );
      },
      /calculated root hash does not match/,
    ],
    [
      'an entry of a kind that does not fit',
      { ...message, entry: 'dsse 0.0.1' },
      () => undefined,
      /log entry is of the kind "dsse", not hashedrekord/,
    ],
    [
      'Rekor v2 without a timestamp',
      { ...tiles, stamped: false },
      () => undefined,
      /time of signing is not proven: expected 1 timestamps, got 0/,
    ],
  ]);

  test('CVE-2022-36056: the entry of another signature of the same certificate', async () => {
    const signer = instance.issue();
    const bundle = make({ ...message, signer });
    const other = make({ ...message, signer });
    bundle.verificationMaterial.tlogEntries = other.verificationMaterial.tlogEntries;
    expect(await reason(bundle)).toMatch(/log entry is for another signature: signature mismatch/);
  });

  test.each<[string, (content: Parameters<typeof entryBody>[1]) => object, RegExp]>([
    [
      'of another certificate',
      () => ({ signer: instance.issue() }),
      /made for another certificate/,
    ],
    [
      'of the bare key',
      ({ signer }) => ({ signer: { keys: signer.keys } }),
      /made for another key/,
    ],
    ['of other content', () => ({ signed: Buffer.from('other') }), /digest mismatch/],
    ['of another signature', () => ({ signature: Buffer.from('other') }), /signature mismatch/],
  ])('an entry %s', async (_, change, expected) => {
    expect(await reason(relogged(message, change))).toMatch(expected);
  });

  test.each<[string, (body: string) => string, RegExp]>([
    [
      'a hash of another algorithm',
      body => body.replace('"sha256"', '"sha512"'),
      /algorithm is not sha256/,
    ],
    [
      'a kind that is not known',
      body => body.replace('hashedrekord', 'rekord'),
      /of the kind "rekord"/,
    ],
    [
      'a version that is not known',
      body => body.replace('0.0.1', '0.0.7'),
      /unknown kind: hashedrekord 0.0.7/,
    ],
    ['no spec', body => body.replace('"spec"', '"spek"'), /spec is not an object/],
    ['a member twice', body => body.replace('{', '{"kind":"x",'), /"kind" stands twice/],
  ])('an entry with %s', async (_, change, expected) => {
    const bundle = make(message);
    const entry = entryOf(bundle);
    const body = Buffer.from(entry.canonicalizedBody, 'base64').toString();
    entry.canonicalizedBody = Buffer.from(change(body)).toString('base64');
    expect(await reason(bundle)).toMatch(expected);
  });

  test.each<[string, Form, (body: string) => string, RegExp]>([
    [
      'a hash of another algorithm',
      tiles,
      body => body.replace('SHA2_256', 'SHA2_512'),
      /spec.hashedRekordV002.data.algorithm is not SHA2_256/,
    ],
    [
      'a hash that is too short',
      tiles,
      body => body.replace(/"digest":"[^"]*"/, '"digest":"AAAA"'),
      /spec.hashedRekordV002.data.digest is not a sha256/,
    ],
    [
      'a certificate and a key',
      tiles,
      body =>
        body.replace('"x509Certificate"', '"publicKey":{"rawBytes":"AAAA"},"x509Certificate"'),
      /verifier is not one certificate or key/,
    ],
    [
      'neither',
      tiles,
      body => body.replace('"x509Certificate"', '"x"'),
      /verifier is not one certificate or key/,
    ],
    [
      'two signatures',
      statement,
      body => body.replace('"signatures":[', '"signatures":[{},'),
      /spec.signatures has to be exactly one/,
    ],
  ])("an envelope's or Rekor v2's entry with %s", async (_, form, change, expected) => {
    const bundle = make(form);
    const entry = entryOf(bundle);
    const body = Buffer.from(entry.canonicalizedBody, 'base64').toString();
    entry.canonicalizedBody = Buffer.from(change(body)).toString('base64');
    expect(await reason(bundle)).toMatch(expected);
  });

  test('entries are canonical JSON', () => {
    expect(canonical({ b: [1, { d: 1, c: 'x' }], a: 2 })).toBe('{"a":2,"b":[1,{"c":"x","d":1}]}');
  });
});

describe('timestamps', () => {
  const { now } = instance;
  const restamp = (bundle: BundleJson, stamp: Buffer): void => {
    bundle.verificationMaterial.timestampVerificationData = {
      rfc3161Timestamps: [{ signedTimestamp: stamp.toString('base64') }],
    };
  };
  const rawSignature = (bundle: BundleJson) => Buffer.from(signatureOf(bundle).signature, 'base64');
  refused([
    [
      'of other bytes',
      tiles,
      bundle => restamp(bundle, instance.timestamps.stamp(MANIFEST, now)),
      /time of signing is not proven: timestamp could not be verified/,
    ],
    [
      'of an authority that is not known',
      tiles,
      bundle => restamp(bundle, makeInstance(now).timestamps.stamp(rawSignature(bundle), now)),
      /timestamp could not be verified/,
    ],
    [
      'after the certificate expired',
      tiles,
      bundle => {
        const late = new Date(now.getTime() + HOUR);
        restamp(bundle, instance.timestamps.stamp(rawSignature(bundle), late));
      },
      /certificate does not hold: certificate is not valid or expired/,
    ],
    [
      'out of the time of its authority',
      tiles,
      bundle => {
        const late = new Date(now.getTime() + 5000 * HOUR);
        restamp(bundle, instance.timestamps.stamp(rawSignature(bundle), late));
      },
      /timestamp could not be verified/,
    ],
    [
      'altered',
      tiles,
      bundle => {
        const stamp = there(stampsOf(bundle)[0]);
        stamp.signedTimestamp = flip(stamp.signedTimestamp);
      },
      /timestamp could not be verified/,
    ],
    [
      'twice',
      tiles,
      bundle => stampsOf(bundle).push(there(stampsOf(bundle)[0])),
      /duplicate timestamp/,
    ],
    [
      'one good, one bad',
      tiles,
      bundle =>
        stampsOf(bundle).push({
          signedTimestamp: instance.timestamps.stamp(MANIFEST, now).toString('base64'),
        }),
      /timestamp could not be verified/,
    ],
    ['not a timestamp', tiles, bundle => restamp(bundle, Buffer.from('3000', 'hex')), /./],
  ]);
});

describe('the frame of a timestamp', () => {
  const OTHER = oid('1.2.840.113549.1.7.1');
  test.each<[string, WrongStamp, RegExp]>([
    ['granted', { status: 0 }, /ACCEPTED/],
    ['granted with changes', { status: 1 }, /ACCEPTED/],
    ['rejected', { status: 2 }, /timestamp's request was rejected/],
    ['of no signed data', { contentType: OTHER }, /timestamp is not signed data/],
    ['of other content', { innerType: OTHER }, /timestamp is of another type/],
    ['signed as something else', { signedType: OTHER }, /timestamp is of another type/],
    ['with two signers', { signers: 2 }, /timestamp has 2 signers/],
    ['with no signer', { signers: 0 }, /timestamp does not decode/],
    [
      'with two digests',
      {
        attributes: [seq(oid('1.2.840.113549.1.9.4'), set(octets(sha256(MANIFEST))))],
      },
      /timestamp does not decode/,
    ],
  ])('%s', async (_, wrong, expected) => {
    const bundle = make(tiles);
    const signature = Buffer.from(signatureOf(bundle).signature, 'base64');
    const stamp = instance.timestamps.stamp(signature, instance.now, wrong);
    there(stampsOf(bundle)[0]).signedTimestamp = stamp.toString('base64');
    expect(await reason(bundle)).toMatch(expected);
  });
});

describe('who signed', () => {
  const exact = (identity: string, issuer = ISSUER): WantedSigners => ({
    identities: [{ identity, issuer }],
    keys: [],
  });
  const pattern = (identity: string, issuer = '.*'): WantedSigners => ({
    identities: [{ identity: { regexp: identity }, issuer: { regexp: issuer } }],
    keys: [],
  });
  const NOT_ACCEPTED = /^it was made by "https:\/\/github.com\/example\/.*, who is not accepted$/;
  test.each<[string, WantedSigners, RegExp]>([
    ['another identity', exact(`${IDENTITY}x`), NOT_ACCEPTED],
    ['a beginning', exact(IDENTITY.slice(0, -1)), NOT_ACCEPTED],
    ['another case', exact(IDENTITY.toUpperCase()), NOT_ACCEPTED],
    ['another issuer', exact(IDENTITY, 'https://accounts.example'), NOT_ACCEPTED],
    ['a dot is a dot', exact(IDENTITY.replace('.', '-')), NOT_ACCEPTED],
    ['a pattern of a part', pattern('github.com/example'), NOT_ACCEPTED],
    ['a pattern of either', pattern('https://a|.*release'), NOT_ACCEPTED],
    ['a pattern of the whole', pattern('https://github\\.com/example/.*'), /^ACCEPTED$/],
    ['a pattern with anchors', pattern('^https://github\\.com/example/.*$'), /^ACCEPTED$/],
    ['a pattern of another issuer', pattern('.*', 'https://x'), NOT_ACCEPTED],
    ['no pattern', pattern('a)|(.*'), /"a\)\|\(\.\*" is not a regular expression/],
    ['a long pattern', pattern('a'.repeat(1025)), /over the limit of 1024/],
    [
      'a key',
      { identities: [], keys: [pem(ecKey().publicKey)] },
      /made with a certificate .*, not with a key/,
    ],
    ['nobody', { identities: [], keys: [] }, /made with a certificate .*, not with a key/],
  ])('%s', async (_, want, expected) => {
    expect(await reason(make(message), { want })).toMatch(expected);
  });

  test.each<[string, readonly Buffer[], string, string]>([
    [
      'an e-mail address',
      [subjectAltName('me@example.org'), issuerV2('https://i')],
      'me@example.org',
      'https://i',
    ],
    [
      "Fulcio's user name",
      [subjectAltName(userName('me!i')), issuerV2('https://i')],
      'me!i',
      'https://i',
    ],
    [
      "the issuer's old extension",
      [subjectAltName('a@b.c'), issuerV1('https://old')],
      'a@b.c',
      'https://old',
    ],
    [
      'the new extension before the old one',
      [subjectAltName('a@b.c'), issuerV1('https://old'), issuerV2('https://new')],
      'a@b.c',
      'https://new',
    ],
  ])('%s', async (_, extensions, identity, issuer) => {
    const usual = [keyUsage(0x80, 7), purpose(CODE_SIGNING), ...extensions];
    const bundle = make({ ...message, signer: instance.issue({ extensions: usual }) });
    expect(await reason(bundle, { want: exact(identity, issuer) })).toBe('ACCEPTED');
    expect(await reason(bundle)).toMatch(/who is not accepted/);
  });

  describe('by key', () => {
    const keys = ecKey();
    const bundle = signBundle({ instance, message: MANIFEST, signer: { keys } });
    const key = pem(keys.publicKey);
    test.each<[string, WantedSigners, RegExp]>([
      ['that key', { identities: [], keys: [key] }, /^ACCEPTED$/],
      ['another key', { identities: [], keys: [pem(ecKey().publicKey)] }, /signature does not fit/],
      ['an identity', WANT, /made with a key, not with a certificate/],
      [
        'a private key',
        { identities: [], keys: ['-----BEGIN PRIVATE KEY-----'] },
        /this is a private key/,
      ],
      ['too many keys', { identities: [], keys: Array.from({ length: 65 }, () => key) }, /65 keys/],
    ])('%s', async (_, want, expected) => {
      expect(await reason(bundle, { want })).toMatch(expected);
    });

    test('with an entry that does not hold', async () => {
      const changed = structuredClone(bundle);
      proofOf(changed).hashes[0] = flip(there(proofOf(changed).hashes[0]));
      expect(await reason(changed, { want: { identities: [], keys: [key] } })).toMatch(
        /inclusion proof/,
      );
    });

    test('with the entry of another key', async () => {
      const changed = structuredClone(bundle);
      const signature = Buffer.from(signatureOf(changed).signature, 'base64');
      const body = entryBody('hashedrekord 0.0.1', {
        signer: { keys: ecKey() },
        signed: MANIFEST,
        signature,
        payload: Buffer.alloc(0),
      });
      changed.verificationMaterial.tlogEntries = [instance.rekor1.add(body, instance.now)];
      expect(await reason(changed, { want: { identities: [], keys: [key] } })).toMatch(
        /for another key/,
      );
      expect(spki(keys.publicKey)).toBeInstanceOf(Buffer);
    });
  });
});
