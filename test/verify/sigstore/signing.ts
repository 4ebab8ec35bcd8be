/** Signs as cosign does, in every form of a bundle that there is. */
import { sign } from 'node:crypto';
import type { Instance, Issued } from './authority.ts';
import { type KeyPair, pem, sha256, spki } from './certificates.ts';
import type { EntryBody, Log, LogEntry } from './logs.ts';

export interface BundleJson {
  mediaType: string;
  verificationMaterial: {
    certificate?: { rawBytes: string };
    x509CertificateChain?: { certificates: { rawBytes: string }[] };
    publicKey?: { hint: string };
    tlogEntries: LogEntry[];
    timestampVerificationData?: { rfc3161Timestamps: { signedTimestamp: string }[] };
  };
  messageSignature?: {
    messageDigest: { algorithm: string; digest: string };
    signature: string;
  };
  dsseEnvelope?: {
    payload: string;
    payloadType: string;
    signatures: { sig: string; keyid: string }[];
  };
}

const MEDIA_TYPES = {
  '0.1': 'application/vnd.dev.sigstore.bundle+json;version=0.1',
  '0.2': 'application/vnd.dev.sigstore.bundle+json;version=0.2',
  '0.3': 'application/vnd.dev.sigstore.bundle.v0.3+json',
};

export type Entry =
  | 'hashedrekord 0.0.1'
  | 'hashedrekord 0.0.2'
  | 'dsse 0.0.1'
  | 'dsse 0.0.2'
  | 'intoto 0.0.2'
  | 'none';

export interface Signing {
  readonly instance: Instance;
  /** A message's bytes, or a DSSE payload. */
  readonly message?: Uint8Array;
  readonly payload?: string;
  readonly payloadType?: string;
  /** By certificate, or by key. */
  readonly signer: Issued | { readonly keys: KeyPair };
  readonly version?: keyof typeof MEDIA_TYPES;
  readonly entry?: Entry;
  /** undefined: Rekor v1 for the types of v1, Rekor v2 for those of v2. */
  readonly log?: Log;
  readonly stamped?: boolean;
  readonly at?: Date;
  readonly hash?: 'sha256' | 'sha384' | null;
}

const base64 = (bytes: Uint8Array | string): string => Buffer.from(bytes).toString('base64');

export function signBundle(options: Signing): BundleJson {
  const { instance, signer, version = '0.3', at = instance.now } = options;
  const payload = Buffer.from(options.payload ?? '');
  const payloadType = options.payloadType ?? 'application/vnd.in-toto+json';
  const signed = options.message ?? preAuth(payloadType, payload);
  const hash = options.hash === undefined ? 'sha256' : options.hash;
  const signature = sign(hash, signed, signer.keys.privateKey);
  const bundle: BundleJson = {
    mediaType: MEDIA_TYPES[version],
    verificationMaterial: { ...verifierOf(signer, version), tlogEntries: [] },
  };
  if (options.message === undefined) {
    bundle.dsseEnvelope = {
      payload: base64(payload),
      payloadType,
      signatures: [{ sig: base64(signature), keyid: '' }],
    };
  } else {
    bundle.messageSignature = {
      messageDigest: { algorithm: 'SHA2_256', digest: base64(sha256(signed)) },
      signature: base64(signature),
    };
  }
  const entry = options.entry ?? 'hashedrekord 0.0.1';
  if (entry !== 'none') {
    const log = options.log ?? (/ 0.0.1$|^intoto/.test(entry) ? instance.rekor1 : instance.rekor2);
    const made = log.add(entryBody(entry, { signer, signed, signature, payload }), at);
    if (version === '0.1') delete made.inclusionProof;
    bundle.verificationMaterial.tlogEntries.push(made);
  }
  if (options.stamped ?? / 0.0.2$/.test(entry)) {
    const stamp = instance.timestamps.stamp(signature, at);
    bundle.verificationMaterial.timestampVerificationData = {
      rfc3161Timestamps: [{ signedTimestamp: base64(stamp) }],
    };
  }
  return bundle;
}

export function preAuth(payloadType: string, payload: Uint8Array): Buffer {
  const type = Buffer.from(payloadType);
  const head = `DSSEv1 ${type.length} ${payloadType} ${payload.length} `;
  return Buffer.concat([Buffer.from(head), payload]);
}

function verifierOf(
  signer: Signing['signer'],
  version: string,
): Omit<BundleJson['verificationMaterial'], 'tlogEntries'> {
  if (!('certificate' in signer)) {
    return { publicKey: { hint: base64(sha256(spki(signer.keys.publicKey))) } };
  }
  const certificate = { rawBytes: base64(signer.certificate) };
  return version === '0.3'
    ? { certificate }
    : { x509CertificateChain: { certificates: [certificate] } };
}

export interface EntryContent {
  readonly signer: Signing['signer'];
  readonly signed: Uint8Array;
  readonly signature: Uint8Array;
  readonly payload: Uint8Array;
}

export function entryBody(entry: Exclude<Entry, 'none'>, content: EntryContent): EntryBody {
  const { signer, signed, signature, payload } = content;
  const [kind = '', apiVersion = ''] = entry.split(' ');
  const hash = { algorithm: 'sha256', value: sha256(signed).toString('hex') };
  const payloadHash = { algorithm: 'sha256', value: sha256(payload).toString('hex') };
  const output = (bytes: Uint8Array) => ({
    algorithm: 'SHA2_256',
    digest: base64(sha256(bytes)),
  });
  const inPem = base64(pemOf(signer));
  const specs: Readonly<Record<Exclude<Entry, 'none'>, object>> = {
    'hashedrekord 0.0.1': {
      data: { hash },
      signature: { content: base64(signature), publicKey: { content: inPem } },
    },
    'hashedrekord 0.0.2': {
      hashedRekordV002: {
        data: output(signed),
        signature: { content: base64(signature), verifier: verifier2(signer) },
      },
    },
    'dsse 0.0.1': {
      envelopeHash: hash,
      payloadHash,
      signatures: [{ signature: base64(signature), verifier: inPem }],
    },
    'dsse 0.0.2': {
      dsseV002: {
        payloadHash: output(payload),
        signatures: [{ content: base64(signature), verifier: verifier2(signer) }],
      },
    },
    'intoto 0.0.2': {
      content: {
        envelope: {
          payloadType: 'application/vnd.in-toto+json',
          signatures: [{ publicKey: inPem, sig: base64(base64(signature)) }],
        },
        hash,
        payloadHash,
      },
    },
  };
  return { kind, apiVersion, spec: specs[entry] };
}

export function pemOf(signer: Signing['signer']): string {
  if (!('certificate' in signer)) return pem(signer.keys.publicKey);
  const lines = base64(signer.certificate).match(/.{1,64}/g) ?? [];
  return ['-----BEGIN CERTIFICATE-----', ...lines, '-----END CERTIFICATE-----', ''].join('\n');
}

function verifier2(signer: Signing['signer']): object {
  const keyDetails = 'PKIX_ECDSA_P256_SHA_256';
  return 'certificate' in signer
    ? { keyDetails, x509Certificate: { rawBytes: base64(signer.certificate) } }
    : { keyDetails, publicKey: { rawBytes: base64(spki(signer.keys.publicKey)) } };
}
