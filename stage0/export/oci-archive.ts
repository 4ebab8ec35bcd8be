/** An image as a tar of an OCI layout (image-layout.md): the stored blobs and the manifest byte for byte. */
import { createReadStream } from 'node:fs';
import { TspodError } from '../../src/errors.ts';
import { digestAlgorithm, digestHex } from '../../src/image/digest.ts';
import { parseReference } from '../../src/image/reference.ts';
import type { ImageRecord, Store } from '../../src/store/types.ts';
import { Archive } from './archive.ts';

const CHUNK = 1024 * 1024;

export async function writeOciArchive(store: Store, image: ImageRecord, fd: number): Promise<void> {
  if (image.appc !== undefined) {
    throw new TspodError('unsupported', "an ACI's layers are of no type that OCI knows", {
      hint: 'export it with --format=aci or --format=docker',
    });
  }
  const manifest = store.manifest(image);
  const archive = new Archive(fd);
  await archive.bytes('oci-layout', '{"imageLayoutVersion":"1.0.0"}');
  const tag = tagOf(image);
  const descriptor = {
    mediaType: manifest.value.mediaType,
    digest: manifest.digest,
    size: manifest.bytes.length,
    ...(tag === undefined ? {} : { annotations: { 'org.opencontainers.image.ref.name': tag } }),
  };
  await archive.bytes('index.json', JSON.stringify({ schemaVersion: 2, manifests: [descriptor] }));
  await archive.bytes(blobPath(manifest.digest), manifest.bytes);
  const { config, layers } = manifest.value;
  const blobs = new Map([config, ...layers].map(blob => [blob.digest, blob]));
  for (const { digest, size } of blobs.values()) {
    const content = createReadStream(store.blobs.path(digest), { highWaterMark: CHUNK });
    await archive.file(blobPath(digest), size, content);
  }
  await archive.end();
}

function blobPath(digest: ImageRecord['id']): string {
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
