/**
 * Keyless cosign signatures of before bundles: the certificate, Rekor's promise and a timestamp stand in
 * annotations of the signature's layer (cosign's specs/SIGNATURE_SPEC.md). Put together they are a bundle of
 * version 0.1 over the simple-signing payload, and are verified as one.
 */
import { createHash } from 'node:crypto';
import { JsonReader } from '../../../src/image/json.ts';
import type { FoundSignature, Outcome, Subject } from '../types.ts';
import { decodeBase64 } from './base64.ts';
import { reasonFor, verifyParsed, type WantedSigners } from './bundle.ts';
import { type ParsedBundle, readBundle } from './bundle-json.ts';
import { decodePem } from './pem.ts';
import { refuse } from './refusal.ts';
import { checkSimpleSigning } from './simple-signing.ts';
import { parseStrictJson } from './strict-json.ts';
import type { TrustedRoot } from './trusted-root.ts';

type CosignSignature = Extract<FoundSignature, { kind: 'cosign' }>;

const MAX_ANNOTATION = 1024 * 1024;

/** As `verifyBundle`, for certificate, Rekor entry and timestamp in annotations. Never throws. */
export async function verifyCosignKeyless(
  found: CosignSignature,
  subject: Subject,
  want: WantedSigners,
  root: TrustedRoot,
): Promise<Outcome> {
  const { origin } = found;
  try {
    const artifact = {
      content: () => [found.payload],
      checkStatement: () => refuse('it is no message signature'),
    };
    const signer = await verifyParsed(toBundle(found), artifact, want, root);
    checkSimpleSigning(found.payload, subject);
    return { ok: true, ...signer, origin };
  } catch (error) {
    return { ok: false, kind: 'sigstore', reason: reasonFor(error), origin };
  }
}

function toBundle(found: CosignSignature): ParsedBundle {
  if (found.certificate === undefined) refuse('it has no certificate');
  const certificate = decodePem(found.certificate);
  if (certificate?.label !== 'CERTIFICATE') refuse('its certificate is not one PEM certificate');
  if (found.bundle === undefined) refuse('it has no transparency log entry');
  return readBundle({
    mediaType: 'application/vnd.dev.sigstore.bundle+json;version=0.1',
    verificationMaterial: {
      x509CertificateChain: {
        certificates: [{ rawBytes: certificate?.der.toString('base64') }],
      },
      tlogEntries: [toLogEntry(found.bundle)],
      timestampVerificationData: { rfc3161Timestamps: toTimestamps(found.timestamp) },
    },
    messageSignature: {
      messageDigest: {
        algorithm: 'SHA2_256',
        digest: createHash('sha256').update(found.payload).digest('base64'),
      },
      signature: found.signature,
    },
  });
}

/** cosign's RekorBundle: `{SignedEntryTimestamp, Payload: {body, integratedTime, logIndex, logID}}`. */
function toLogEntry(json: string): unknown {
  const kind = { what: 'its Rekor bundle', code: 'protocol' } as const;
  const read: JsonReader = new JsonReader(kind);
  const bundle = read.object(parseStrictJson(Buffer.from(json), MAX_ANNOTATION, kind), '');
  const payload = read.object(bundle['Payload'], 'Payload');
  const body = read.string(payload['body'], 'Payload.body');
  const logId = read.string(payload['logID'], 'Payload.logID');
  if (!/^[0-9a-f]{64}$/.test(logId)) read.fail('Payload.logID', 'is not a sha256');
  return {
    logIndex: payload['logIndex'],
    logId: { keyId: Buffer.from(logId, 'hex').toString('base64') },
    kindVersion: kindVersion(body),
    integratedTime: payload['integratedTime'],
    inclusionPromise: { signedEntryTimestamp: bundle['SignedEntryTimestamp'] },
    canonicalizedBody: body,
  };
}

function kindVersion(body: string): unknown {
  const kind = { what: 'its log entry', code: 'protocol' } as const;
  const read: JsonReader = new JsonReader(kind);
  const bytes = decodeBase64(body, MAX_ANNOTATION);
  if (bytes === undefined) return read.fail('', 'is not base64');
  const entry = read.object(parseStrictJson(bytes, MAX_ANNOTATION, kind), '');
  return { kind: entry['kind'], version: entry['apiVersion'] };
}

/** `{SignedRFC3161Timestamp}`: a timestamp of the raw signature. */
function toTimestamps(json: string | undefined): readonly unknown[] {
  if (json === undefined) return [];
  const kind = { what: 'its timestamp', code: 'protocol' } as const;
  const read: JsonReader = new JsonReader(kind);
  const timestamp = read.object(parseStrictJson(Buffer.from(json), MAX_ANNOTATION, kind), '');
  return [{ signedTimestamp: timestamp['SignedRFC3161Timestamp'] }];
}
