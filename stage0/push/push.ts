/**
 * An image of the store into a registry (OCI distribution specification 1.1, "Push"): blobs that the registry
 * lacks, several at a time, then the manifest byte for byte, so that the digest stays what it is.
 */
import { createReadStream } from 'node:fs';
import type { Context } from '../../src/context.ts';
import { TspodError } from '../../src/errors.ts';
import type { Digest } from '../../src/image/digest.ts';
import type { Descriptor } from '../../src/image/oci.ts';
import {
  canonicalReference,
  parseReference,
  type RegistryReference,
  shortDigest,
} from '../../src/image/reference.ts';
import type { ImageRecord, Store } from '../../src/store/types.ts';
import type { Endpoint } from '../fetch/registry-endpoint.ts';
import { type Timing, withRetries } from '../fetch/retry.ts';
import type { Progress } from '../progress.ts';

const AT_ONCE = 4;
const CHUNK = 1024 * 1024;

export interface PushContext {
  readonly context: Context;
  readonly store: Store;
  readonly endpoint: Endpoint;
  readonly target: RegistryReference;
  readonly progress: Progress;
  readonly timing: Timing;
}

/** What `push` was told to push to. @throws TspodError 'reference', 'usage' */
export function parseTarget(text: string): RegistryReference {
  const reference = parseReference(text);
  if (reference.kind === 'registry' && reference.digest === undefined) return reference;
  throw new TspodError('usage', `push: ${JSON.stringify(text)} is no place to push to`, {
    hint: 'give docker://HOST/NAME:TAG',
  });
}

/** @returns the manifest's digest, which the registry has confirmed */
export async function pushImage(push: PushContext, image: ImageRecord): Promise<Digest> {
  const { store, target } = push;
  if (image.appc !== undefined) {
    throw new TspodError(
      'unsupported',
      `image "${image.names[0] ?? image.id}": an ACI's layers are not what a registry's clients can unpack`,
      { hint: 'push an OCI or Docker image' },
    );
  }
  const manifest = store.manifest(image);
  const { config, layers } = manifest.value;
  const queue = distinct([...layers, config]);
  const worker = async () => {
    for (let blob = queue.shift(); blob !== undefined; blob = queue.shift()) {
      await pushBlob(push, image, blob);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  const what = `image "${canonicalReference(target)}"`;
  const told = await withRetries(push.timing, async () => {
    const exchange = await push.endpoint.send(
      `manifests/${target.tag ?? 'latest'}`,
      {
        method: 'PUT',
        headers: {
          'Content-Type': manifest.value.mediaType,
          'Content-Length': String(manifest.bytes.length),
        },
        upload: () => Buffer.from(manifest.bytes),
      },
      [200, 201, 202],
    );
    exchange.end();
    return exchange.response.headers.get('docker-content-digest');
  });
  if (told !== null && told !== image.manifestDigest) {
    throw new TspodError(
      'digest',
      `${what}: the registry has it under ${told.slice(0, 100)}, not ${image.manifestDigest}`,
    );
  }
  return image.manifestDigest;
}

function distinct(blobs: readonly Descriptor[]): Descriptor[] {
  return [...new Map(blobs.map(blob => [blob.digest, blob])).values()];
}

async function pushBlob(push: PushContext, image: ImageRecord, blob: Descriptor): Promise<void> {
  const item = push.progress.add(shortDigest(blob.digest), blob.size);
  if (!push.store.blobs.has(blob.digest)) {
    throw new TspodError('store', `blob ${blob.digest}: it is not in the store`, {
      hint: 'fetch the image again',
    });
  }
  const there = await withRetries(push.timing, () => hasBlob(push, blob));
  if (there) {
    item.done('is there');
    return;
  }
  const word = await withRetries(push.timing, () => uploadBlob(push, image, blob, item));
  item.done(word);
}

async function hasBlob({ endpoint }: PushContext, { digest }: Descriptor): Promise<boolean> {
  const exchange = await endpoint.send(`blobs/${digest}`, { method: 'HEAD' }, [200, 404]);
  exchange.end();
  return exchange.response.status === 200;
}

/** By a mount from another repository of the same registry where there may be one, else whole. */
async function uploadBlob(
  push: PushContext,
  image: ImageRecord,
  blob: Descriptor,
  item: { advance(bytes: number): void },
): Promise<string> {
  const { endpoint, store } = push;
  const from = otherRepository(push.target, image);
  const query =
    from === undefined
      ? ''
      : `?mount=${encodeURIComponent(blob.digest)}&from=${encodeURIComponent(from)}`;
  const begun = await endpoint.send(
    `blobs/uploads/${query}`,
    { method: 'POST', headers: { 'Content-Length': '0' } },
    [201, 202],
  );
  begun.end();
  if (begun.response.status === 201) return 'mounted';
  const location = uploadPlace(begun.url, begun.response.headers.get('location'));
  location.searchParams.set('digest', blob.digest);
  const done = await endpoint.send(
    location,
    {
      method: 'PUT',
      headers: {
        'Content-Type': 'application/octet-stream',
        'Content-Length': String(blob.size),
      },
      upload: () => {
        const stream = createReadStream(store.blobs.path(blob.digest), { highWaterMark: CHUNK });
        stream.on('data', chunk => item.advance(chunk.length));
        return stream;
      },
    },
    [201, 204],
  );
  done.end();
  return 'pushed';
}

/** Where on the same registry this image came from; it is asked only for what the names say. */
function otherRepository(target: RegistryReference, image: ImageRecord): string | undefined {
  for (const name of image.names) {
    if (!name.startsWith('docker://')) continue;
    const reference = parseReference(name);
    if (
      reference.kind === 'registry' &&
      reference.registry === target.registry &&
      reference.repository !== target.repository
    ) {
      return reference.repository;
    }
  }
  return undefined;
}

function uploadPlace(from: URL, location: string | null): URL {
  const broken = (why: string) =>
    new TspodError('protocol', `${from.host}: it began an upload ${why}`);
  if (location === null) throw broken('without saying where it goes on');
  let url: URL;
  try {
    url = new URL(location, from);
  } catch {
    throw broken('and said something that is no URL');
  }
  if (url.protocol !== 'https:' && !(url.protocol === 'http:' && from.protocol === 'http:')) {
    throw broken('that goes on by another protocol');
  }
  // They would be sent as credentials of the other host.
  url.username = '';
  url.password = '';
  return url;
}
