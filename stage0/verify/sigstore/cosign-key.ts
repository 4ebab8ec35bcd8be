/**
 * Cosign signatures by a key that the user named. They need node:crypto alone, and no transparency log: who
 * names a key trusts its holder. (`dev.sigstore.cosign/bundle`, Rekor's promise, is not looked at.)
 */
import '../../hot.ts';
import { reasonOf } from '../../../src/errors.ts';
import type { FoundSignature, Outcome, Subject } from '../types.ts';
import { decodeBase64 } from './base64.ts';
import { identify, MAX_SIGNATURE, readPublicKey, verifySignature } from './public-key.ts';
import { checkSimpleSigning } from './simple-signing.ts';

export { type CosignPublicKey, parseCosignPublicKey } from './public-key.ts';

/**
 * Checks one cosign signature with one public key (PEM). Never throws: what is wrong, with the key too, is
 * the outcome's reason.
 */
export function verifyCosignKey(
  found: Extract<FoundSignature, { kind: 'cosign' }>,
  subject: Subject,
  publicKeyPem: string,
): Outcome {
  const refused = (reason: string): Outcome => ({
    ok: false,
    kind: 'cosign',
    reason,
    origin: found.origin,
  });
  try {
    const key = readPublicKey(publicKeyPem);
    const { id } = identify(key);
    const signature = decodeBase64(found.signature, MAX_SIGNATURE);
    if (signature === undefined) return refused('its signature is not base64');
    // First of all, so that nothing unsigned is ever parsed.
    if (!verifySignature(key, found.payload, signature)) {
      return refused(`it was not made with the key ${id}, or was altered`);
    }
    checkSimpleSigning(found.payload, subject);
    return { ok: true, kind: 'cosign', signer: id, detail: undefined, origin: found.origin };
  } catch (error) {
    return refused(reasonOf(error));
  }
}
