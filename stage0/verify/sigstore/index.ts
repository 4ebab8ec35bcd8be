/**
 * Sigstore's verification, in one chunk of the bundle: its library takes 0.1 s to load, so load this by
 * `await import()` where there is a signature to check. Keys alone need cosign-key.ts only.
 */
import '../../hot.ts';

export { type SigstoreIdentity, verifyBundle, type WantedSigners } from './bundle.ts';
export { verifyCosignKeyless } from './cosign-keyless.ts';
export { loadTrustedRoot, type TrustedRoot } from './trusted-root.ts';
