/**
 * Digests as the OCI image specification spells them (descriptor.md, "Digests"): `sha256:<64 hex>`
 * or `sha512:<128 hex>`. A digest that came from outside is parsed by this grammar before it is used
 * in any path or URL.
 */
import { TspodError } from '../errors.ts';

/** `algorithm:lowercase-hex`, checked. The brand keeps unchecked strings out of paths. */
export type Digest = string & { readonly __digest: unique symbol };

const GRAMMAR = /^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/;

export function isDigest(text: unknown): text is Digest {
  return typeof text === 'string' && GRAMMAR.test(text);
}

/** @throws TspodError 'protocol' naming `what` when the text is not a digest. */
export function parseDigest(text: unknown, what: string): Digest {
  if (isDigest(text)) return text;
  const shown = typeof text === 'string' ? JSON.stringify(text.slice(0, 100)) : typeof text;
  throw new TspodError('protocol', `${what}: ${shown} is not a sha256 or sha512 digest`);
}

export type DigestAlgorithm = 'sha256' | 'sha512';

export function digestAlgorithm(digest: Digest): DigestAlgorithm {
  return digest.startsWith('sha256:') ? 'sha256' : 'sha512';
}

export function digestHex(digest: Digest): string {
  return digest.slice(digest.indexOf(':') + 1);
}

/**
 * The appc spelling of an image id (`sha256-<hex>`), for pod manifests, whose grammar has no colon
 * (appc spec 0.8.11, "Image ID").
 */
export function toAppcHash(digest: Digest): string {
  return digest.replace(':', '-');
}

/** Reads either spelling; undefined when it is neither. */
export function fromAppcHash(text: string): Digest | undefined {
  const spelled = text.replace(/^(sha256|sha512)-/, '$1:');
  return isDigest(spelled) ? spelled : undefined;
}
