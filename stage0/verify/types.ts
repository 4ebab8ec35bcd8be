/**
 * The vocabulary of trust. A source hands over what it found (`FoundSignature`), unbelieved; a verifier of
 * one kind says of each what it proves (`Outcome`); the policy (policy.ts) decides whether that is enough
 * for the image's name.
 */
import type { Digest } from '../../src/image/digest.ts';

export type SignatureKind = 'openpgp' | 'cosign' | 'sigstore';

/** What somebody vouches for: an OCI manifest or index, an ACI, an archive. */
export interface Subject {
  /**
   * The name that rules and key stores are asked for: without scheme, tag and digest, e.g.
   * `quay.io/coreos/etcd`, `docker.io/library/busybox`, an ACI's `example.com/app`; an absolute path
   * for a layout or an archive.
   */
  readonly name: string;
  /** As the user knows it, for messages. */
  readonly reference: string;
  /** Of the signed bytes. */
  readonly digest: Digest;
  /** The signed bytes, as often as asked; a file is streamed, never held whole. */
  content(): AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}

/** One signature as it was found. */
export type FoundSignature =
  /** Detached, armored or binary (RFC 9580, 10.4). */
  | { readonly kind: 'openpgp'; readonly origin: string; readonly bytes: Uint8Array }
  /** A layer of a cosign signature manifest: the simple-signing payload and what its annotations say. */
  | {
      readonly kind: 'cosign';
      readonly origin: string;
      readonly payload: Uint8Array;
      /** base64, annotation `dev.cosignproject.cosign/signature` */
      readonly signature: string;
      /** PEM, annotations `dev.sigstore.cosign/certificate` and `…/chain` */
      readonly certificate: string | undefined;
      readonly chain: string | undefined;
      /** JSON, annotation `dev.sigstore.cosign/bundle` (Rekor's promise) */
      readonly bundle: string | undefined;
      /** base64, annotation `dev.sigstore.cosign/rfc3161timestamp` (JSON) */
      readonly timestamp: string | undefined;
    }
  /** A sigstore bundle, JSON (application/vnd.dev.sigstore.bundle…). */
  | { readonly kind: 'bundle'; readonly origin: string; readonly json: Uint8Array };

/** What one signature proves about a subject. */
export type Outcome =
  | {
      readonly ok: true;
      readonly kind: SignatureKind;
      /** Lower-case OpenPGP fingerprint, `sha256:…` of a cosign key's DER, or a certificate's identity. */
      readonly signer: string;
      /** For people: the key's user id, or the identity's issuer. */
      readonly detail: string | undefined;
      readonly origin: string;
    }
  | {
      readonly ok: false;
      readonly kind: SignatureKind;
      /** One clause without a full stop: `the key A1B2… is not trusted for example.com/app`. */
      readonly reason: string;
      readonly origin: string;
    };
