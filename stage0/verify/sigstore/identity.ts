/**
 * Whom a keyless certificate was issued to: the one subject alternative name (an e-mail address, a URI, or
 * Fulcio's user name) and the OpenID issuer that vouched for it (Fulcio's oid-info.md: 1.3.6.1.4.1.57264.1.8,
 * and in old certificates .1.1).
 */
import { TspodError } from '../../../src/errors.ts';

export interface SigstoreIdentity {
  /** A text is compared whole; a regular expression (JavaScript's, `v` flag) has to match the whole, too. */
  readonly identity: string | { readonly regexp: string };
  readonly issuer: string | { readonly regexp: string };
}

export interface CertificateIdentity {
  readonly identity: string;
  readonly issuer: string;
}

const MAX_PATTERN = 1024;

/**
 * Whether a certificate is one that the user asked for.
 * @throws TspodError 'trust' for a regular expression that is none, 'limit' for one over 1024 characters.
 */
export function matchesIdentity(of: CertificateIdentity, want: SigstoreIdentity): boolean {
  return matches(of.identity, want.identity) && matches(of.issuer, want.issuer);
}

function matches(text: string, want: string | { readonly regexp: string }): boolean {
  return typeof want === 'string' ? want === text : wholeMatch(want.regexp).test(text);
}

/** Unanchored, `https://github.com/me/` would also fit `https://evil.example/?https://github.com/me/`. */
function wholeMatch(regexp: string): RegExp {
  if (regexp.length > MAX_PATTERN) {
    throw new TspodError(
      'limit',
      `identity: a regular expression of ${regexp.length} characters is over the limit of ${MAX_PATTERN}`,
    );
  }
  try {
    // Alone first: `a)|(b` is none, but would be one inside the group.
    new RegExp(regexp, 'v');
    return new RegExp(`^(?:${regexp})$`, 'v');
  } catch (error) {
    throw new TspodError(
      'trust',
      `identity: ${JSON.stringify(regexp)} is not a regular expression`,
      { cause: error },
    );
  }
}
