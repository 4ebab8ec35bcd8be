/** Verdicts as they are read back from records, the database and pods' folders. */
import { isDigest } from '../image/digest.ts';
import type { Verdict, VerdictSigner } from './types.ts';

/** Whether a value has the form of a verdict; keys beyond it do not count. */
export function isVerdict(value: unknown): value is Verdict {
  return (
    isRecord(value) &&
    typeof value.admitted === 'boolean' &&
    typeof value.by === 'string' &&
    (value.rule === undefined || typeof value.rule === 'string') &&
    (value.signers === undefined || (Array.isArray(value.signers) && value.signers.every(isSigner)))
  );
}

function isSigner(value: unknown): value is VerdictSigner {
  return (
    isRecord(value) &&
    typeof value.name === 'string' &&
    (value.kind === 'openpgp' || value.kind === 'cosign' || value.kind === 'sigstore') &&
    typeof value.signer === 'string' &&
    (value.detail === undefined || typeof value.detail === 'string') &&
    isDigest(value.digest)
  );
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
