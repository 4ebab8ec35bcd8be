/** An image as a tar of an OCI layout (image-layout.md): the stored blobs and the manifest byte for byte. */
import { type Digest, digestAlgorithm, digestHex } from '../../src/image/digest.ts';
import type { Descriptor, ImageManifest, Raw } from '../../src/image/oci.ts';
import { parseReference } from '../../src/image/reference.ts';
import type { ImageRecord } from '../../src/store/types.ts';
import { Archive } from './archive.ts';
import type { PortableImage } from './portable.ts';

export async function writeOciArchive(
  image: PortableImage,
  tag: string | undefined,
  fd: number,
): Promise<void> {
  const { manifest, blobs } = image;
  const archive = new Archive(fd);
  await archive.bytes('oci-layout', OCI_LAYOUT);
  const index = { schemaVersion: 2, manifests: [indexEntry(manifest, tag)] };
  await archive.bytes('index.json', JSON.stringify(index));
  await archive.bytes(blobPath(manifest.digest), manifest.bytes);
  for (const blob of blobs) {
    await archive.file(blobPath(blob.digest), blob.size, image.read(blob));
  }
  await archive.end();
}

export const OCI_LAYOUT = '{"imageLayoutVersion":"1.0.0"}';

/** What an index says of the image. */
export function indexEntry(manifest: Raw<ImageManifest>, tag: string | undefined): Descriptor {
  return {
    mediaType: manifest.value.mediaType,
    digest: manifest.digest,
    size: manifest.bytes.length,
    ...(tag === undefined ? {} : { annotations: { [REF_NAME]: tag } }),
  };
}

export const REF_NAME = 'org.opencontainers.image.ref.name';

export function blobPath(digest: Digest): string {
  return `blobs/${digestAlgorithm(digest)}/${digestHex(digest)}`;
}

/** Of the newest name that has one. */
export function tagOf(image: ImageRecord): string | undefined {
  for (const name of image.names) {
    const reference = parseReference(name);
    if ('tag' in reference && reference.tag !== undefined) return reference.tag;
  }
  return undefined;
}
