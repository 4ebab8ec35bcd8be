/**
 * An OCI image layout (image-layout.md) as an image source, over anything that can open its files: a folder
 * or a tar archive.
 */
import { TspodError } from '../../src/errors.ts';
import { type Digest, digestAlgorithm, digestHex } from '../../src/image/digest.ts';
import { JsonReader, parseBoundedJson } from '../../src/image/json.ts';
import { type Descriptor, type ImageIndex, MEDIA } from '../../src/image/oci.ts';
import { MANIFEST_MAX_BYTES, parseImageIndex } from '../../src/image/oci-validate.ts';
import { canonicalReference, type LayoutReference } from '../../src/image/reference.ts';
import type { FoundSignature, SignatureKind } from '../verify/types.ts';
import { findSignatures, isSignatureTag } from './find-signatures.ts';
import {
  type ArchiveFile,
  checkContent,
  collect,
  digestOf,
  type ImageSource,
  type TopDocument,
} from './source.ts';

export interface LayoutFiles {
  /** The size of a regular file; undefined when there is none of this name. */
  size(path: string): number | undefined;
  /** Its bytes from `offset` on. */
  read(path: string, offset: number): AsyncIterable<Uint8Array>;
  close(): void;
}

const MAX_SHOWN = 20;
const REF_NAME = 'org.opencontainers.image.ref.name';
/** How `cosign save` tells the manifests of a layout apart. */
const COSIGN_KIND = 'kind';
const COSIGN_SIGS = 'dev.cosignproject.cosign/sigs';
const COSIGN_OTHERS: ReadonlySet<string> = new Set([
  COSIGN_SIGS,
  'dev.cosignproject.cosign/atts',
  'dev.cosignproject.cosign/sboms',
]);
const MAX_TAGGED = 64;

export class LayoutSource implements ImageSource {
  readonly name: string;
  readonly archive?: ArchiveFile;
  readonly #files: LayoutFiles;
  readonly #tag: string | undefined;

  constructor(reference: LayoutReference, files: LayoutFiles, archive?: ArchiveFile) {
    this.name = canonicalReference(reference);
    this.#files = files;
    this.#tag = reference.tag;
    if (archive !== undefined) this.archive = archive;
  }

  async top(): Promise<TopDocument> {
    await this.#checkVersion();
    const bytes = await this.#small('index.json', MANIFEST_MAX_BYTES);
    const digest = digestOf(bytes);
    const index = parseImageIndex(bytes, digest).value;
    const chosen = this.#choose(index);
    if (chosen === undefined) return { bytes, digest, mediaType: undefined };
    return {
      bytes: await this.manifest(chosen),
      digest: chosen.digest,
      mediaType: chosen.mediaType,
    };
  }

  async manifest(descriptor: Descriptor): Promise<Uint8Array> {
    return this.document(descriptor, MANIFEST_MAX_BYTES);
  }

  async document(descriptor: Descriptor, maxBytes: number): Promise<Uint8Array> {
    const bytes = await this.#small(blobPath(descriptor), maxBytes);
    checkContent(bytes, descriptor, `${this.name}: blob ${descriptor.digest}`);
    return bytes;
  }

  async *blob(descriptor: Descriptor, offset: number): AsyncGenerator<Uint8Array> {
    const path = blobPath(descriptor);
    const size = this.#sizeOf(path);
    if (size !== descriptor.size) {
      throw new TspodError(
        'digest',
        `${this.name}: ${path} has ${size} bytes, and its descriptor says ${descriptor.size}`,
      );
    }
    let left = size - offset;
    if (left <= 0) return;
    for await (const chunk of this.#files.read(path, offset)) {
      yield chunk.length > left ? chunk.subarray(0, left) : chunk;
      left -= chunk.length;
      if (left <= 0) return;
    }
  }

  async *signatures(
    subject: Digest,
    kinds: ReadonlySet<SignatureKind>,
  ): AsyncGenerator<FoundSignature> {
    const bytes = await this.#small('index.json', MANIFEST_MAX_BYTES);
    const { manifests } = parseImageIndex(bytes, digestOf(bytes)).value;
    const tagOf = ({ annotations }: Descriptor) => annotations?.[REF_NAME];
    yield* findSignatures(
      {
        shown: this.name,
        referrers: async () => manifests.filter(each => isArtifact(each, subject)),
        tagged: async tag =>
          Promise.all(
            manifests
              .filter(
                each => tagOf(each) === tag || each.annotations?.[COSIGN_KIND] === COSIGN_SIGS,
              )
              .slice(0, MAX_TAGGED)
              .map(each => this.manifest(each)),
          ),
        manifest: descriptor => this.manifest(descriptor),
        document: (descriptor, maxBytes) => this.document(descriptor, maxBytes),
      },
      subject,
      kinds,
    );
  }

  close(): void {
    this.#files.close();
  }

  /** By tag; without one the only image, or (undefined) the index as a whole, by platform. */
  #choose(index: ImageIndex): Descriptor | undefined {
    if (this.#tag === undefined) {
      const images = index.manifests.filter(each => !isSignature(each));
      if (images.length === 1) return images[0];
      const names = refNames({ ...index, manifests: images });
      if (new Set(names).size < 2) return undefined;
      throw new TspodError('ambiguous', `${this.name}: there are several images in it`, {
        hint: `choose one by its name; there is ${listed(names)}`,
      });
    }
    const named = index.manifests.filter(
      ({ annotations }) => annotations?.[REF_NAME] === this.#tag,
    );
    const [only] = named;
    if (only === undefined) {
      throw new TspodError('not-found', `${this.name}: no image of this name in it`, {
        hint: `there is ${listed(refNames(index))}`,
      });
    }
    if (named.length > 1) {
      throw new TspodError('ambiguous', `${this.name}: ${named.length} images have this name`);
    }
    return only;
  }

  async #checkVersion(): Promise<void> {
    const bytes = await this.#small('oci-layout', 4096);
    const reader: JsonReader = new JsonReader({
      what: `${this.name}: oci-layout`,
      code: 'protocol',
    });
    const object = reader.object(parseBoundedJson(bytes, 4096, reader.kind), '');
    const version = reader.string(object.imageLayoutVersion, 'imageLayoutVersion');
    if (!/^1\.[0-9]+\.[0-9]+$/.test(version)) {
      reader.fail('imageLayoutVersion', `${JSON.stringify(version.slice(0, 40))} is not 1.0.0`);
    }
  }

  async #small(path: string, maxBytes: number): Promise<Uint8Array> {
    const size = this.#sizeOf(path);
    const what = `${this.name}: ${path}`;
    if (size > maxBytes) {
      throw new TspodError('limit', `${what}: ${size} bytes is over the limit of ${maxBytes}`);
    }
    return size === 0 ? Buffer.alloc(0) : collect(this.#files.read(path, 0), maxBytes, what);
  }

  #sizeOf(path: string): number {
    const size = this.#files.size(path);
    if (size !== undefined) return size;
    throw new TspodError('not-found', `${this.name}: there is no file ${path} in it`, {
      hint: path === 'oci-layout' ? 'it is not an OCI image layout' : 'the layout is not complete',
    });
  }
}

function refNames({ manifests }: ImageIndex): string[] {
  return manifests.flatMap(({ annotations }) => annotations?.[REF_NAME] ?? []);
}

/** Quoted: they come from outside, and go to a terminal. */
function listed(names: readonly string[]): string {
  const shown = names.slice(0, MAX_SHOWN).map(name => JSON.stringify(name.slice(0, 200)));
  const more = names.length > MAX_SHOWN ? ` and ${names.length - MAX_SHOWN} more` : '';
  return shown.length === 0 ? 'none with a name' : `${shown.join(', ')}${more}`;
}

/** May refer to the subject: it says what artifact it is, or nothing at all about itself. */
function isArtifact(descriptor: Descriptor, subject: Digest): boolean {
  const { digest, mediaType, platform, artifactType, annotations } = descriptor;
  if (digest === subject || mediaType !== MEDIA.ociManifest) return false;
  return artifactType !== undefined || (platform === undefined && annotations === undefined);
}

/** No image that somebody could mean by the layout's path alone. */
function isSignature({ annotations, artifactType }: Descriptor): boolean {
  return (
    artifactType !== undefined ||
    isSignatureTag(annotations?.[REF_NAME] ?? '') ||
    COSIGN_OTHERS.has(annotations?.[COSIGN_KIND] ?? '')
  );
}

/** The digest was parsed by its grammar, so this is a path of three plain components. */
function blobPath({ digest }: Descriptor): string {
  return `blobs/${digestAlgorithm(digest)}/${digestHex(digest)}`;
}

export function isIndexType(mediaType: string): boolean {
  return mediaType === MEDIA.ociIndex || mediaType === MEDIA.dockerIndex;
}
