/**
 * Detached OpenPGP signatures, by openpgp.js. The content is hashed as a stream and its digest handed to the
 * library, which by itself would want it whole in memory. A signature counts when it is over this content, by
 * a signing key or subkey that a trusted key binds, and key, binding and signature are valid now: neither
 * expired nor revoked. gpgv accepts what is accepted here (docs/trust.md names where this is stricter).
 */
import '../../hot.ts';
import type { PublicKey, SignaturePacket, Subkey } from 'openpgp';
import { reasonOf } from '../../../src/errors.ts';
import { digestAlgorithm, digestHex } from '../../../src/image/digest.ts';
import type { FoundSignature, Outcome, Subject } from '../types.ts';
import { hashContent, plainHash, type SignedHash } from './digests.ts';
import type { TrustedKey } from './keystore.ts';
import { loadKeys } from './load-keys.ts';
import { printable } from './packets.ts';
import { type ReadSignature, readSignatureFile } from './signature-file.ts';
import { checkCurves, configOf } from './strictness.ts';

type Library = typeof import('./library.ts');
type Outer = FoundSignature & { readonly kind: 'openpgp' };

export const UNKNOWN_ENTITY = 'openpgp: signature made by unknown entity';

/** Clocks of the signer and of this machine may differ by as much. ms */
const CLOCK_SKEW = 60_000;

/** A signature that may count, with the trusted key that its issuer says it is by. */
interface Candidate {
  readonly packet: SignaturePacket;
  readonly signed: SignedHash;
  readonly key: PublicKey;
}

/**
 * Whether one of the signatures in a file is good. Never throws for what is wrong with the signature or a key;
 * throws what reading the content throws.
 * @param keys as trustedKeys() hands them out for the subject's name
 */
export async function verifyOpenPgp(
  found: Outer,
  subject: Subject,
  keys: readonly TrustedKey[],
): Promise<Outcome> {
  const { origin } = found;
  const refused = (reason: string): Outcome => ({ ok: false, kind: 'openpgp', reason, origin });
  let signatures: readonly ReadSignature[];
  try {
    signatures = readSignatureFile(found.bytes, 'the signature');
  } catch (error) {
    return refused(printable(reasonOf(error)));
  }
  const library = await import('./library.ts');
  const { keys: trusted, faults } = await loadKeys(library, keys);
  const candidates: Candidate[] = [];
  const reasons: string[] = [];
  for (const { bytes, signed } of signatures) {
    if ('refused' in signed) reasons.push(signed.refused);
    else {
      const read = await readPacket(library, bytes);
      if (typeof read === 'string') reasons.push(read);
      else {
        const known = trusted.filter(key => holds(key, read));
        candidates.push(...known.map(key => ({ packet: read, signed, key })));
        if (known.length === 0) reasons.push(unknownEntity(read, faults));
      }
    }
  }
  if (candidates.length === 0) return refused(chooseReason(reasons));
  const [own, ...digests] = await hashContent(subject.content(), [
    plainHash(digestAlgorithm(subject.digest)),
    ...candidates.map(({ signed }) => signed),
  ]);
  // What is signed and what the verdict is kept for are to be the same bytes.
  if (own === undefined || Buffer.from(own).toString('hex') !== digestHex(subject.digest)) {
    return refused(`the content that was read is not ${subject.digest}`);
  }
  for (const [index, candidate] of candidates.entries()) {
    try {
      const digest = digests[index] ?? new Uint8Array(0);
      await verifyPacket(library, candidate, digest);
      const signer = candidate.key.getFingerprint();
      const detail = await userIdOf(candidate.key);
      return { ok: true, kind: 'openpgp', signer, detail, origin };
    } catch (error) {
      reasons.unshift(explain(candidate, reasonOf(error)));
    }
  }
  return refused(chooseReason(reasons));
}

async function readPacket(library: Library, bytes: Uint8Array): Promise<SignaturePacket | string> {
  try {
    const { packets } = await library.readSignature({
      binarySignature: bytes,
      config: configOf(library),
    });
    return packets[0] instanceof library.SignaturePacket
      ? packets[0]
      : 'the signature has an algorithm or a form that is not supported';
  } catch (error) {
    return `the signature is malformed: ${printable(reasonOf(error))}`;
  }
}

/** Whether the issuer that the signature names is this key or one of its subkeys. */
function holds(key: PublicKey, packet: SignaturePacket): boolean {
  if (/^0*$/.test(packet.issuerKeyID.toHex())) return false; // hidden
  return key.getKeys(packet.issuerKeyID).some(each => isIssuer(each, packet));
}

function isIssuer(key: PublicKey | Subkey, { issuerFingerprint }: SignaturePacket): boolean {
  return (
    issuerFingerprint === null ||
    Buffer.from(issuerFingerprint).toString('hex') === key.getFingerprint()
  );
}

/** @throws Error, with the library's reason, unless the signature is good now. */
async function verifyPacket(
  library: Library,
  { packet, key }: Candidate,
  digest: Uint8Array,
): Promise<void> {
  const config = configOf(library);
  const { created, signatureType } = packet;
  if (created === null || signatureType === null) throw new Error('it has no creation time');
  const now = Date.now();
  if (created.getTime() > now + CLOCK_SKEW) throw new Error('it was made in the future');
  checkCurves([key, ...key.getSubkeys(packet.issuerKeyID)]);
  const date = new Date(Math.max(now, created.getTime()));
  const signer = await key.getSigningKey(packet.issuerKeyID, date, undefined, config);
  if (!isIssuer(signer, packet)) throw new Error('its issuer is another key');
  if (created < signer.getCreationTime()) throw new Error('it is older than its key');
  Object.assign(packet, { hashed: digest });
  await packet.verify(signer.keyPacket, signatureType, new Uint8Array(0), date, true, config);
}

async function userIdOf(key: PublicKey): Promise<string | undefined> {
  try {
    const { user } = await key.getPrimaryUser();
    return user.userID === null ? undefined : printable(user.userID.userID);
  } catch {
    return undefined; // a version 6 key need not have one
  }
}

function unknownEntity(packet: SignaturePacket, faults: ReadonlyMap<string, string>): string {
  const id = packet.issuerKeyID.toHex();
  const fingerprint = Buffer.from(packet.issuerFingerprint ?? []).toString('hex');
  for (const [key, fault] of faults) {
    const named = fingerprint === key || (fingerprint === '' && key.endsWith(id));
    if (named) return `the trusted key ${key} can't be used: ${fault}`;
  }
  // It may be by a subkey of one that can't be read.
  const [fault] = faults.values();
  const unread = fault === undefined ? '' : `; can't be used: ${fault}`;
  return `${UNKNOWN_ENTITY} (key ${fingerprint || id}${unread})`;
}

function explain({ key }: Candidate, why: string): string {
  const fault = FAULTS.get(why) ?? lowerFirst(printable(why));
  return `the signature by the trusted key ${key.getFingerprint()} is not accepted: ${fault}`;
}

/** What the library says, as people would. */
const FAULTS: ReadonlyMap<string, string> = new Map([
  ['Signed digest did not match', 'the content is not what was signed'],
  ['Signature verification failed', 'it was not made by this key over this content'],
  ['Primary key is expired', 'the key is expired'],
  ['Primary key is revoked', 'the key is revoked'],
  ['Signature is expired', 'the signature is expired'],
]);

function lowerFirst(text: string): string {
  return /^[A-Z][a-z]/.test(text) ? text.charAt(0).toLowerCase() + text.slice(1) : text;
}

/** A trusted key's fault tells more than that other signatures are by strangers. */
function chooseReason(reasons: readonly string[]): string {
  return reasons.find(reason => !reason.startsWith(UNKNOWN_ENTITY)) ?? reasons[0] ?? UNKNOWN_ENTITY;
}
