/**
 * Images with signatures, put where tools put them: tags and referrers of a registry, an OCI layout. A
 * `Store` here is a bag of manifests and blobs that is then served, pushed or written.
 */
import { sign } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Blob, json, type MadeImage, sha256, writeLayout } from '../fetch/support.ts';
import type { KeyPair } from './sigstore/certificates.ts';

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const INDEX = 'application/vnd.oci.image.index.v1+json';
export const BUNDLE = 'application/vnd.dev.sigstore.bundle.v0.3+json';
export const PGP = 'application/pgp-signature';
const EMPTY = Buffer.from('{}');

/** A manifest with its blobs. */
export interface Signature {
  readonly manifest: Blob & { readonly artifactType?: string };
  readonly blobs: ReadonlyMap<string, Uint8Array>;
  /** Undefined: a referrer. */
  readonly tag?: string;
}

function pack(
  layers: readonly { bytes: Uint8Array; mediaType: string; annotations?: object }[],
  more: object,
): Signature {
  const blobs = new Map<string, Uint8Array>();
  const add = (bytes: Uint8Array, mediaType: string) => {
    const digest = sha256(bytes);
    blobs.set(digest, bytes);
    return { mediaType, digest, size: bytes.length };
  };
  const config = add(EMPTY, 'application/vnd.oci.empty.v1+json');
  const manifest = add(
    json({
      schemaVersion: 2,
      mediaType: MANIFEST,
      config,
      layers: layers.map(({ bytes, mediaType, annotations }) => ({
        ...add(bytes, mediaType),
        ...(annotations === undefined ? {} : { annotations }),
      })),
      ...more,
    }),
    MANIFEST,
  );
  return { manifest, blobs };
}

/** An artifact that refers to the subject. */
export function referrer(subject: Blob, type: string, ...payloads: Uint8Array[]): Signature {
  const made = pack(
    payloads.map(bytes => ({ bytes, mediaType: type })),
    {
      artifactType: type,
      subject,
    },
  );
  return { ...made, manifest: { ...made.manifest, artifactType: type } };
}

export interface CosignChanges {
  readonly payload?: (bytes: Buffer) => Uint8Array;
  readonly signature?: (text: string) => string;
}

/** What `cosign sign --key` of version 2 pushes. @param name as in the payload's docker-reference */
export function cosignTag(
  subject: Blob,
  name: string,
  by: KeyPair,
  changes: CosignChanges = {},
): Signature {
  const payload = json({
    critical: {
      identity: { 'docker-reference': name },
      image: { 'docker-manifest-digest': subject.digest },
      type: 'cosign container image signature',
    },
    optional: null,
  });
  const signature = sign('sha256', payload, by.privateKey).toString('base64');
  const made = pack(
    [
      {
        bytes: changes.payload?.(Buffer.from(payload)) ?? payload,
        mediaType: 'application/vnd.dev.cosign.simplesigning.v1+json',
        annotations: {
          'dev.cosignproject.cosign/signature': changes.signature?.(signature) ?? signature,
        },
      },
    ],
    {},
  );
  return { ...made, tag: `${subject.digest.replace(':', '-')}.sig` };
}

/** Pushes an image and its signatures as a client of before the referrers API: an index under a tag. */
export async function pushSigned(
  host: string,
  repository: string,
  image: MadeImage,
  signatures: readonly Signature[],
): Promise<void> {
  const all = [image, ...signatures].flatMap(({ blobs }) => [...blobs]);
  const manifests = new Set([image.manifest.digest, ...signatures.map(s => s.manifest.digest)]);
  for (const [digest, bytes] of all) {
    if (!manifests.has(digest as never)) await pushBlob(host, repository, digest, bytes);
  }
  const put = (reference: string, mediaType: string, bytes: Uint8Array) =>
    ok(
      fetch(`http://${host}/v2/${repository}/manifests/${reference}`, {
        method: 'PUT',
        headers: { 'content-type': mediaType },
        body: Buffer.from(bytes),
      }),
    );
  await put('latest', MANIFEST, bytesOf(image, image.manifest));
  for (const each of signatures) {
    await put(each.tag ?? each.manifest.digest, MANIFEST, bytesOf(each, each.manifest));
  }
  const referrers = signatures.filter(({ tag }) => tag === undefined);
  if (referrers.length === 0) return;
  const tag = image.manifest.digest.replace(':', '-');
  await put(tag, INDEX, referrersIndex(referrers));
}

export function referrersIndex(referrers: readonly Signature[]): Uint8Array {
  return json({
    schemaVersion: 2,
    mediaType: INDEX,
    manifests: referrers.map(({ manifest }) => manifest),
  });
}

function bytesOf({ blobs }: Pick<Signature, 'blobs'>, { digest }: Blob): Uint8Array {
  const bytes = blobs.get(digest);
  if (bytes === undefined) throw new Error(`no blob ${digest}`);
  return bytes;
}

async function pushBlob(
  host: string,
  repository: string,
  digest: string,
  bytes: Uint8Array,
): Promise<void> {
  const begun = await ok(
    fetch(`http://${host}/v2/${repository}/blobs/uploads/`, { method: 'POST' }),
  );
  const url = new URL(begun.headers.get('location') ?? '', `http://${host}`);
  url.searchParams.set('digest', digest);
  const headers = { 'content-type': 'application/octet-stream' };
  await ok(fetch(url, { method: 'PUT', headers, body: Buffer.from(bytes) }));
}

async function ok(answer: Promise<Response>): Promise<Response> {
  const response = await answer;
  if (!response.ok) throw new Error(`${response.url}: ${response.status} ${await response.text()}`);
  return response;
}

/** A layout with the image as `latest` and its signatures beside it. */
export function writeSignedLayout(
  path: string,
  image: MadeImage,
  signatures: readonly Signature[],
): void {
  writeLayout(path, { latest: image });
  mkdirSync(join(path, 'blobs/sha256'), { recursive: true });
  const file = join(path, 'index.json');
  const index = JSON.parse(readFileSync(file, 'utf8'));
  for (const { manifest, blobs, tag } of signatures) {
    for (const [digest, bytes] of blobs) {
      writeFileSync(join(path, 'blobs', digest.replace(':', '/')), bytes);
    }
    const annotations = { 'org.opencontainers.image.ref.name': tag };
    index.manifests.push({ ...manifest, ...(tag === undefined ? {} : { annotations }) });
  }
  writeFileSync(file, JSON.stringify(index));
}
