/**
 * Sigstore bundles, offline: who signed these bytes, and does a log show it?
 *
 * Two readers have to agree. @sigstore/verify checks the certificate's chain and SCTs, the log's promise,
 * inclusion proof and checkpoint, and timestamps, against the trusted root. What it leaves open is checked
 * here: the document itself (bundle-json.ts), what the certificate is for and whom it names (certificate.ts),
 * that the log's entry is about this certificate or key (log-entry.ts), what frames a timestamp (timestamp.ts), that
 * logs were in use at the time of signing, and the signature, over content of any size.
 */
import { createHash, type KeyObject } from 'node:crypto';
import type { Bundle } from '@sigstore/bundle';
import { dsse } from '@sigstore/core';
import {
  type SignedEntity,
  type TrustMaterial,
  toSignedEntity,
  VerificationError,
  Verifier,
} from '@sigstore/verify';
import { reasonOf, TspodError } from '../../../src/errors.ts';
import { digestAlgorithm, digestHex } from '../../../src/image/digest.ts';
import type { FoundSignature, Outcome, Subject } from '../types.ts';
import { type ParsedBundle, parseBundle } from './bundle-json.ts';
import { isSelfIssued, type Leaf, readLeaf } from './certificate.ts';
import { checkCheckpoint } from './checkpoint.ts';
import { matchesIdentity, type SigstoreIdentity } from './identity.ts';
import { checkLogEntry } from './log-entry.ts';
import { identify, readPublicKey, startVerification } from './public-key.ts';
import { refuse } from './refusal.ts';
import { checkStatement } from './statement.ts';
import { checkTimestampFrame } from './timestamp.ts';
import type { TrustedRoot } from './trusted-root.ts';

export type { SigstoreIdentity } from './identity.ts';

/** Who counts: any one of the identities, or of the keys (PEM, as `parseCosignPublicKey` takes them). */
export interface WantedSigners {
  readonly identities: readonly SigstoreIdentity[];
  readonly keys: readonly string[];
}

/** What is signed: the content of a message signature, and how a statement is checked. */
export interface Artifact {
  content(): AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
  checkStatement(payloadType: string, payload: Uint8Array): void;
}

export interface Signer {
  readonly kind: 'cosign' | 'sigstore';
  readonly signer: string;
  readonly detail: string | undefined;
}

const MAX_KEYS = 64;

/**
 * Checks one bundle. Kind of the outcome: `sigstore` by a certificate (signer: its identity, detail: the
 * issuer), `cosign` by a key (signer: the key's id). A bundle by certificate needs a log entry, an SCT and
 * a signed time; one by key needs none of them, but those that it has must hold. Never throws.
 */
export async function verifyBundle(
  found: Extract<FoundSignature, { kind: 'bundle' }>,
  subject: Subject,
  want: WantedSigners,
  root: TrustedRoot,
): Promise<Outcome> {
  const { origin } = found;
  try {
    const signer = await verifyParsed(parseBundle(found.json), artifactOf(subject), want, root);
    return { ok: true, ...signer, origin };
  } catch (error) {
    return { ok: false, kind: 'sigstore', reason: reasonFor(error), origin };
  }
}

function artifactOf(subject: Subject): Artifact {
  return {
    content: () => checkedContent(subject),
    checkStatement: (type, payload) => checkStatement(type, payload, subject),
  };
}

/** The content proves to be the subject's: what is signed and what has the digest are the same bytes. */
async function* checkedContent(subject: Subject): AsyncGenerator<Uint8Array> {
  const hash = createHash(digestAlgorithm(subject.digest));
  for await (const chunk of subject.content()) {
    hash.update(chunk);
    yield chunk;
  }
  if (hash.digest('hex') !== digestHex(subject.digest)) {
    throw new TspodError('digest', `${subject.reference}: its content is not ${subject.digest}`);
  }
}

/** @throws Refusal, TspodError or the library's errors: `reasonFor` makes a reason of each. */
export async function verifyParsed(
  { message }: ParsedBundle,
  artifact: Artifact,
  want: WantedSigners,
  root: TrustedRoot,
): Promise<Signer> {
  const leaf = leafOf(message);
  const keys = leaf === undefined ? wantedKeys(want) : [leaf.key];
  if (leaf !== undefined && want.identities.length === 0) {
    refuse(`it was made with a certificate (${leaf.identity}), not with a key`);
  }
  const signed = await verifyContent(message, artifact, keys);
  const verifier =
    leaf === undefined
      ? ({ kind: 'key', der: spki(signed.key) } as const)
      : ({ kind: 'certificate', der: leaf.der } as const);
  const content = message.content.$case === 'dsseEnvelope' ? 'dsse' : 'message';
  for (const entry of message.verificationMaterial.tlogEntries) {
    checkLogEntry(entry, { kind: content, verifier });
  }
  if (leaf !== undefined) checkPromisedTimes(message, leaf);
  verifyMaterial(message, signed, leaf, root.material);
  if (message.content.$case === 'dsseEnvelope') {
    const { payloadType, payload } = message.content.dsseEnvelope;
    artifact.checkStatement(payloadType, payload);
  }
  return leaf === undefined ? keySigner(signed.key) : identitySigner(leaf, want);
}

function leafOf(message: Bundle): Leaf | undefined {
  const { content } = message.verificationMaterial;
  switch (content.$case) {
    case 'publicKey':
      return undefined;
    case 'certificate':
      return readLeaf(content.certificate.rawBytes);
    default: {
      const [leaf, ...others] = content.x509CertificateChain.certificates;
      if (leaf === undefined) return refuse('it has no certificate');
      if (others.some(certificate => isSelfIssued(certificate.rawBytes))) {
        refuse('its certificate chain has a root certificate in it');
      }
      return readLeaf(leaf.rawBytes);
    }
  }
}

function wantedKeys(want: WantedSigners): readonly KeyObject[] {
  if (want.keys.length === 0) refuse('it was made with a key, not with a certificate');
  if (want.keys.length > MAX_KEYS)
    refuse(`${want.keys.length} keys are over the limit of ${MAX_KEYS}`);
  return want.keys.map(readPublicKey);
}

interface SignedBytes {
  /** The one that made the signature. */
  readonly key: KeyObject;
  readonly signature: Buffer;
  /** sha256 of what the signature is over: the content, or an envelope's pre-authentication encoding. */
  readonly digest: Buffer;
  /** sha256 of the content, or of an envelope's payload. */
  readonly payloadDigest: Buffer;
}

async function verifyContent(
  message: Bundle,
  artifact: Artifact,
  keys: readonly KeyObject[],
): Promise<SignedBytes> {
  if (message.content.$case === 'dsseEnvelope') {
    const { payload, payloadType, signatures } = message.content.dsseEnvelope;
    const signature = Buffer.from(signatures[0]?.sig ?? []);
    const bytes = dsse.preAuthEncoding(payloadType, Buffer.from(payload));
    const { key, digest } = await verifyBytes([bytes], signature, keys);
    return { key, signature, digest, payloadDigest: sha256(payload) };
  }
  const { messageDigest, signature: raw } = message.content.messageSignature;
  const signature = Buffer.from(raw);
  const { key, digest } = await verifyBytes(
    artifact.content(),
    signature,
    keys,
    messageDigest.digest,
  );
  return { key, signature, digest, payloadDigest: digest };
}

async function verifyBytes(
  content: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  signature: Buffer,
  keys: readonly KeyObject[],
  expected?: Uint8Array,
): Promise<{ key: KeyObject; digest: Buffer }> {
  const hash = createHash('sha256');
  const checks = keys.map(key => ({ key, check: startVerification(key, signature) }));
  for await (const chunk of content) {
    hash.update(chunk);
    for (const { check } of checks) check.update(chunk);
  }
  const digest = hash.digest();
  if (expected !== undefined && !digest.equals(expected)) {
    refuse('its message digest is that of other content');
  }
  const good = checks.filter(({ check }) => check.ends())[0];
  if (good === undefined) {
    return refuse(
      'its signature does not fit: made with another key, for other content, or altered',
    );
  }
  return { key: good.key, digest };
}

/** The library says the same with fewer words: "Failed to verify certificate chain". */
function checkPromisedTimes(message: Bundle, leaf: Leaf): void {
  const { notBefore, notAfter } = leaf.certificate;
  for (const entry of message.verificationMaterial.tlogEntries) {
    if (entry.inclusionPromise === undefined) continue;
    const time = new Date(Number(entry.integratedTime) * 1000);
    if (Number.isNaN(time.getTime()) || time < notBefore || time > notAfter) {
      const period = `${notBefore.toISOString()} to ${notAfter.toISOString()}`;
      const when = Number.isNaN(time.getTime()) ? 'at no time' : time.toISOString();
      refuse(`it was logged ${when}, outside of its certificate's validity (${period})`);
    }
  }
}

function verifyMaterial(
  message: Bundle,
  signed: SignedBytes,
  leaf: Leaf | undefined,
  material: TrustMaterial,
): void {
  for (const stamp of message.verificationMaterial.timestampVerificationData?.rfc3161Timestamps ??
    []) {
    checkTimestampFrame(stamp.signedTimestamp);
  }
  const entity = decoded(() => toEntity(message, signed));
  const needed = leaf === undefined ? 0 : 1;
  const verifier = new Verifier(
    { ...material, publicKey: () => ({ publicKey: signed.key, validFor: () => true }) },
    { tlogThreshold: needed, ctlogThreshold: needed, timestampThreshold: needed },
  );
  decoded(() => verifier.verify(entity));
  checkLogsInUse(entity, material);
  for (const { inclusionProof, inclusionPromise, logIndex } of entity.tlogEntries) {
    if (inclusionProof === undefined) continue;
    checkCheckpoint(inclusionProof);
    // The promise covers the index over all trees of Rekor v1; v2 has one tree and no promises.
    if (inclusionPromise === undefined && logIndex !== inclusionProof.logIndex) {
      refuse("its log entry's index and its inclusion proof disagree");
    }
  }
}

/** What is not well-formed inside makes the library throw anything. */
function decoded<T>(act: () => T): T {
  try {
    return act();
  } catch (error) {
    if (error instanceof VerificationError) throw error;
    return refuse('its timestamp or log entry does not decode');
  }
}

function toEntity(message: Bundle, signed: SignedBytes): SignedEntity {
  const entity = toSignedEntity(message);
  return {
    ...entity,
    signature: {
      signature: signed.signature,
      compareSignature: other => signed.signature.equals(other),
      compareDigest: other => signed.payloadDigest.equals(other),
      compareSignedDigest: other => signed.digest.equals(other),
      // verifyContent has checked it with this key, or there would be no `signed`.
      verifySignature: key => key.equals(signed.key),
    },
    // A proof of inclusion does not cover the time; only the log's promise does. checkLogsInUse counts on it.
    timestamps: entity.timestamps.filter(
      time => time.$case === 'timestamp-authority' || time.tlogEntry.inclusionPromise !== undefined,
    ),
  };
}

/** Every log that is shown was in use at every time that is proven. */
function checkLogsInUse(entity: SignedEntity, material: TrustMaterial): void {
  const times = entity.timestamps.map(time =>
    time.$case === 'timestamp-authority'
      ? time.timestamp.signingTime
      : new Date(Number(time.tlogEntry.integratedTime) * 1000),
  );
  for (const { logId } of entity.tlogEntries) {
    const inUse = material.tlogs.some(
      log =>
        log.logID.equals(logId.keyId) &&
        times.every(time => log.validFor.start <= time && time <= log.validFor.end),
    );
    if (!inUse) refuse('its transparency log was not in use at the time of signing');
  }
}

function identitySigner(leaf: Leaf, want: WantedSigners): Signer {
  const { identity, issuer } = leaf;
  if (!want.identities.some(wanted => matchesIdentity(leaf, wanted))) {
    refuse(`it was made by ${JSON.stringify(identity)} (issuer ${issuer}), who is not accepted`);
  }
  return { kind: 'sigstore', signer: identity, detail: issuer };
}

function keySigner(key: KeyObject): Signer {
  return { kind: 'cosign', signer: identify(key).id, detail: undefined };
}

function spki(key: KeyObject): Buffer {
  return key.export({ type: 'spki', format: 'der' });
}

function sha256(bytes: Uint8Array): Buffer {
  return createHash('sha256').update(bytes).digest();
}

/** What does not hold, by the library's codes; its messages say in what way. */
const LIBRARY_CODES: Readonly<Record<string, string>> = {
  CERTIFICATE_ERROR: 'its certificate does not hold',
  TIMESTAMP_ERROR: 'its time of signing is not proven',
  TLOG_BODY_ERROR: 'its log entry is for another signature',
  TLOG_ERROR: 'its log entries do not suffice',
  TLOG_INCLUSION_PROMISE_ERROR: "its log's promise does not hold",
  TLOG_INCLUSION_PROOF_ERROR: "its log's inclusion proof does not hold",
  TLOG_MISSING_INCLUSION_ERROR: 'its log entry is not proven',
};

const MAX_REASON = 400;

/** An error of a check as one clause, of one line and at most 400 characters: a bundle's own words may be in it. */
export function reasonFor(error: unknown): string {
  const reason = (error instanceof VerificationError ? libraryReason(error) : reasonOf(error))
    .replace(/\p{Cc}+/gu, ' ')
    .trim();
  return reason.length > MAX_REASON ? `${reason.slice(0, MAX_REASON)}…` : reason;
}

function libraryReason(error: VerificationError): string {
  const what = LIBRARY_CODES[error.code] ?? 'it does not verify';
  const { cause } = error;
  return `${what}: ${cause instanceof Error ? cause.message : error.message}`;
}
