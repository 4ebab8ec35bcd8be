/**
 * Public keys that vouch for images: which ones are taken, their id, and one signature checked with one of
 * them. Cosign's own keys are ECDSA P-256; it signs with imported ones, too.
 */
import {
  createHash,
  createPublicKey,
  createVerify,
  type KeyObject,
  type Verify,
  verify,
} from 'node:crypto';
import { TspodError } from '../../../src/errors.ts';

export interface CosignPublicKey {
  /** SubjectPublicKeyInfo, as this module writes it. */
  readonly pem: string;
  /** `sha256:…` of the DER of its SubjectPublicKeyInfo (RFC 5280, 4.1.2.7). */
  readonly id: string;
}

const MAX_PEM = 64 * 1024;
const RSA_BITS = { min: 2048, max: 8192 };

/** The hash that goes with a curve where the signer did not keep to cosign's SHA-256. */
const CURVES: Readonly<Record<string, 'sha256' | 'sha384' | 'sha512'>> = {
  prime256v1: 'sha256',
  secp384r1: 'sha384',
  secp521r1: 'sha512',
};

/** Longer than the signature of the largest key (RSA 8192). */
export const MAX_SIGNATURE = 1024;

/**
 * Reads one PEM public key (`PUBLIC KEY`, RFC 7468, 13, or `RSA PUBLIC KEY`, RFC 8017, A.1.1).
 * @throws TspodError 'trust' that says what the text is instead, or which kind of key is not taken.
 */
export function parseCosignPublicKey(pem: string): CosignPublicKey {
  return identify(readPublicKey(pem));
}

/** @throws TspodError 'trust' */
export function readPublicKey(pem: string): KeyObject {
  if (pem.length > MAX_PEM) throw bad(`it is longer than the limit of ${MAX_PEM} characters`);
  const labels = [...pem.matchAll(/-----BEGIN ([^-\r\n]{0,80})-----/g)].map(
    match => match[1] ?? '',
  );
  if (labels.some(label => label.includes('PRIVATE KEY'))) {
    throw bad(
      'this is a private key',
      'keep it secret, and give the public key that belongs to it',
    );
  }
  if (labels.length !== 1) {
    throw bad(
      labels.length === 0 ? 'it is not a PEM file' : `${labels.length} PEM blocks, not one`,
    );
  }
  const [label] = labels;
  if (label === 'CERTIFICATE') {
    throw bad('this is a certificate', 'give its public key: openssl x509 -in FILE -noout -pubkey');
  }
  if (label !== 'PUBLIC KEY' && label !== 'RSA PUBLIC KEY') {
    throw bad(`this is a ${JSON.stringify(label)}, not a PUBLIC KEY`);
  }
  let key: KeyObject;
  try {
    key = createPublicKey(pem);
  } catch {
    throw bad('it does not decode');
  }
  const why = refusal(key);
  if (why !== undefined) throw bad(why);
  return key;
}

/** What is wrong with a key for this use; undefined: nothing. */
export function refusal(key: KeyObject): string | undefined {
  const details = key.asymmetricKeyDetails;
  switch (key.asymmetricKeyType) {
    case 'ed25519':
      return undefined;
    case 'ec': {
      const curve = details?.namedCurve ?? 'an unnamed curve';
      return Object.hasOwn(CURVES, curve)
        ? undefined
        : `ECDSA keys on ${curve} are not taken, only P-256, P-384 and P-521`;
    }
    case 'rsa': {
      const bits = details?.modulusLength ?? 0;
      return bits < RSA_BITS.min || bits > RSA_BITS.max
        ? `RSA keys of ${bits} bits are not taken, only of ${RSA_BITS.min} to ${RSA_BITS.max}`
        : undefined;
    }
    default:
      return `${key.asymmetricKeyType ?? 'such'} keys are not taken, only ECDSA, RSA and Ed25519`;
  }
}

export function identify(key: KeyObject): CosignPublicKey {
  const der = key.export({ type: 'spki', format: 'der' });
  return {
    pem: key.export({ type: 'spki', format: 'pem' }).toString(),
    id: `sha256:${createHash('sha256').update(der).digest('hex')}`,
  };
}

/**
 * Whether `signature` is the key's over `data`. ECDSA (ASN.1 form): SHA-256, as cosign signs with every
 * curve, or the hash of the curve's size. RSA: SHA-256 with PKCS #1 v1.5 or PSS. Ed25519: RFC 8032, pure.
 */
export function verifySignature(key: KeyObject, data: Uint8Array, signature: Uint8Array): boolean {
  const check = startVerification(key, signature);
  check.update(data);
  return check.ends();
}

export interface RunningVerification {
  update(chunk: Uint8Array): void;
  ends(): boolean;
}

/** As `verifySignature`, for content that comes in pieces. Ed25519 needs it whole: at most 64 MiB. */
export function startVerification(key: KeyObject, signature: Uint8Array): RunningVerification {
  if (key.asymmetricKeyType === 'ed25519') return wholeVerification(key, signature);
  const checks = waysToSign(key).map(({ hash, padding }) => ({
    verifier: createVerify(hash),
    key: padding === undefined ? { key } : { key, padding },
  }));
  return {
    update: chunk => {
      for (const { verifier } of checks) verifier.update(chunk);
    },
    // Each one's result is taken, so that none stays open.
    ends: () => checks.map(check => holds(check.verifier, check.key, signature)).includes(true),
  };
}

function holds(
  verifier: Verify,
  key: { readonly key: KeyObject; readonly padding?: number },
  signature: Uint8Array,
): boolean {
  try {
    return verifier.verify(key, signature);
  } catch {
    // OpenSSL throws for some signatures that can't be any, instead of denying them.
    return false;
  }
}

const MAX_WHOLE = 64 * 1024 * 1024;

function wholeVerification(key: KeyObject, signature: Uint8Array): RunningVerification {
  const chunks: Uint8Array[] = [];
  let size = 0;
  return {
    update: chunk => {
      size += chunk.length;
      if (size > MAX_WHOLE) {
        throw new TspodError(
          'limit',
          `signature: content over the limit of ${MAX_WHOLE} bytes can't be checked with Ed25519`,
        );
      }
      chunks.push(chunk);
    },
    ends: () => verify(null, Buffer.concat(chunks), key, signature),
  };
}

/** node:crypto's `constants`, by value: the build's stand-in for that module has functions only. */
const RSA_PKCS1_PADDING = 1;
const RSA_PKCS1_PSS_PADDING = 6;

function waysToSign(key: KeyObject): readonly { hash: string; padding: number | undefined }[] {
  if (key.asymmetricKeyType === 'rsa') {
    return [RSA_PKCS1_PADDING, RSA_PKCS1_PSS_PADDING].map(padding => ({
      hash: 'sha256',
      padding,
    }));
  }
  const own = CURVES[key.asymmetricKeyDetails?.namedCurve ?? ''] ?? 'sha256';
  return [...new Set(['sha256', own])].map(hash => ({ hash, padding: undefined }));
}

function bad(why: string, hint?: string): TspodError {
  return new TspodError('trust', `cosign public key: ${why}`, hint === undefined ? {} : { hint });
}
