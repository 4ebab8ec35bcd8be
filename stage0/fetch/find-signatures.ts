/**
 * The signatures of an OCI manifest or index, wherever tools leave them (docs/trust.md):
 *
 *   - referrers of the subject (image-spec 1.1): sigstore bundles (cosign 3), cosign's signature manifests, OpenPGP
 *     signatures (artifactType application/pgp-signature)
 *   - the manifest under the tag `sha256-HEX.sig` (cosign up to 2)
 *
 * Nothing is believed here but what bounds memory and time. What refers to the subject and is no signature is
 * passed over; what says that it is one and does not follow its form is an error, since an image whose
 * signatures can't be read is not to be run on the strength of another guess.
 */
import { TspodError } from '../../src/errors.ts';
import { type Digest, digestAlgorithm, digestHex } from '../../src/image/digest.ts';
import type { Descriptor } from '../../src/image/oci.ts';
import { type ArtifactManifest, parseArtifactManifest } from '../../src/image/oci-artifact.ts';
import type { FoundSignature, SignatureKind } from '../verify/types.ts';

/** What can be asked of a registry's repository, or of a layout. */
export interface SignaturePlace {
  /** For messages: `127.0.0.1:5000/busybox`. */
  readonly shown: string;
  /** Descriptors of manifests that may refer to the subject. */
  referrers(subject: Digest): Promise<readonly Descriptor[]>;
  /** Manifests of this tag; none, as a rule, or one. */
  tagged(tag: string): Promise<readonly Uint8Array[]>;
  /** Whole and verified. */
  manifest(descriptor: Descriptor): Promise<Uint8Array>;
  /** A blob, whole and verified. */
  document(descriptor: Descriptor, maxBytes: number): Promise<Uint8Array>;
}

/** The media type of RFC 3156 for a detached signature, as artifactType and as the layer's type. */
export const PGP_TYPE = 'application/pgp-signature';
const BUNDLE_TYPE = /^application\/vnd\.dev\.sigstore\.bundle(?:\.v|\+json|$)/;
const COSIGN_ARTIFACT = 'application/vnd.dev.cosign.artifact.sig.v1+json';
const SIMPLE_SIGNING = 'application/vnd.dev.cosign.simplesigning.v1+json';

/** Of manifests that have to be looked into to know what they are. */
const MAX_MANIFESTS = 64;
const MAX_BYTES: Readonly<Record<SignatureKind, number>> = {
  openpgp: 1024 * 1024,
  cosign: 128 * 1024,
  sigstore: 4 * 1024 * 1024,
};

export async function* findSignatures(
  place: SignaturePlace,
  subject: Digest,
  kinds: ReadonlySet<SignatureKind>,
): AsyncGenerator<FoundSignature> {
  let looked = 0;
  for (const descriptor of await place.referrers(subject)) {
    if (!mayBe(descriptor.artifactType, kinds)) continue;
    looked += 1;
    if (looked > MAX_MANIFESTS) {
      throw new TspodError(
        'limit',
        `${place.shown}: over the limit of ${MAX_MANIFESTS} manifests that refer to ${subject}`,
      );
    }
    const what = `${place.shown}: signature manifest ${descriptor.digest}`;
    const manifest = parseArtifactManifest(await place.manifest(descriptor), what);
    if (manifest.subject !== subject || !mayBe(manifest.artifactType, kinds)) continue;
    yield* signaturesIn(place, manifest, kinds, `${place.shown}@${descriptor.digest}`);
  }
  if (!kinds.has('cosign')) return;
  const tag = `${digestAlgorithm(subject)}-${digestHex(subject)}.sig`;
  for (const bytes of await place.tagged(tag)) {
    const manifest = parseArtifactManifest(bytes, `${place.shown}: signature manifest ${tag}`);
    yield* signaturesIn(place, manifest, COSIGN_ONLY, `${place.shown}:${tag}`);
  }
}

const COSIGN_ONLY: ReadonlySet<SignatureKind> = new Set(['cosign']);

/** Whether it is worth a look; who does not say what it is may be anything. */
function mayBe(artifactType: string | undefined, kinds: ReadonlySet<SignatureKind>): boolean {
  if (artifactType === undefined) return true;
  const kind = kindOfType(artifactType);
  return kind !== undefined && kinds.has(kind);
}

function kindOfType(type: string): SignatureKind | undefined {
  if (type === PGP_TYPE) return 'openpgp';
  if (type === COSIGN_ARTIFACT || type === SIMPLE_SIGNING) return 'cosign';
  return BUNDLE_TYPE.test(type) ? 'sigstore' : undefined;
}

async function* signaturesIn(
  place: SignaturePlace,
  { layers }: ArtifactManifest,
  kinds: ReadonlySet<SignatureKind>,
  origin: string,
): AsyncGenerator<FoundSignature> {
  for (const layer of layers) {
    const kind = kindOfType(layer.mediaType);
    if (kind === undefined || !kinds.has(kind)) continue;
    const bytes = await place.document(layer, MAX_BYTES[kind]);
    yield toFound(kind, layer, bytes, origin);
  }
}

function toFound(
  kind: SignatureKind,
  { annotations = {} }: Descriptor,
  bytes: Uint8Array,
  origin: string,
): FoundSignature {
  switch (kind) {
    case 'openpgp':
      return { kind, origin, bytes };
    case 'sigstore':
      return { kind: 'bundle', origin, json: bytes };
    case 'cosign':
      return {
        kind,
        origin,
        payload: bytes,
        // Without one it is no signature, which is for the verifier to say.
        signature: annotations['dev.cosignproject.cosign/signature'] ?? '',
        certificate: annotations['dev.sigstore.cosign/certificate'],
        chain: annotations['dev.sigstore.cosign/chain'],
        bundle: annotations['dev.sigstore.cosign/bundle'],
        timestamp: annotations['dev.sigstore.cosign/rfc3161timestamp'],
      };
  }
}

/** Whether a manifest in an index is a signature or an attestation by its tag, and no image. */
export function isSignatureTag(tag: string): boolean {
  return /^sha(?:256-[0-9a-f]{64}|512-[0-9a-f]{128})(?:\.(?:sig|att|sbom))?$/.test(tag);
}
