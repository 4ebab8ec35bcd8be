/**
 * An image of the store into a registry (OCI distribution specification 1.1, "Push"): blobs that the registry
 * lacks, several at a time, then the manifest byte for byte, so that the digest stays what it is.
 */
import { TspodError } from '../../src/errors.ts';
import type { Digest } from '../../src/image/digest.ts';
import type { Descriptor } from '../../src/image/oci.ts';
import {
  canonicalReference,
  parseReference,
  type RegistryReference,
  shortDigest,
} from '../../src/image/reference.ts';
import type { ImageRecord } from '../../src/store/types.ts';
import type { PortableImage } from '../export/portable.ts';
import type { Endpoint } from '../fetch/registry-endpoint.ts';
import { type Timing, withRetries } from '../fetch/retry.ts';
import type { Progress } from '../progress.ts';
import { uploadBlob } from './upload.ts';

const AT_ONCE = 4;

export interface PushContext {
  readonly endpoint: Endpoint;
  /** Ends what the endpoint does. */
  readonly stop: AbortController;
  readonly target: RegistryReference;
  /** Another repository of the same registry that may have the blobs. */
  readonly from: string | undefined;
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
export async function pushImage(push: PushContext, image: PortableImage): Promise<Digest> {
  const { target, stop } = push;
  const queue = [...image.blobs];
  const worker = async () => {
    for (let blob = queue.shift(); blob !== undefined; blob = queue.shift()) {
      await pushBlob(push, image, blob);
    }
  };
  // The first failure is the one that counts, and ends the others.
  const failing = (error: unknown) => {
    queue.length = 0;
    stop.abort();
    throw error;
  };
  const ended = await Promise.allSettled(
    Array.from({ length: AT_ONCE }, () => worker().catch(failing)),
  );
  const failures = ended.flatMap(one => (one.status === 'rejected' ? [one.reason] : []));
  const first = failures.find(error => error instanceof TspodError) ?? failures[0];
  if (first !== undefined) throw first;
  const { manifest } = image;
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
  if (told !== null && told !== manifest.digest) {
    throw new TspodError(
      'digest',
      `${what}: the registry has it under ${told.slice(0, 100)}, not ${manifest.digest}`,
    );
  }
  return manifest.digest;
}

async function pushBlob(push: PushContext, image: PortableImage, blob: Descriptor): Promise<void> {
  const { endpoint, timing, stop } = push;
  const item = push.progress.add(shortDigest(blob.digest), blob.size);
  if (await withRetries(timing, () => hasBlob(push, blob), stop.signal)) {
    item.done('is there');
    return;
  }
  let shown = 0;
  const word = await uploadBlob({
    endpoint,
    blob,
    from: push.from,
    timing,
    signal: stop.signal,
    read: (start, end) => image.read(blob, start, end),
    sent: bytes => {
      item.advance(bytes - shown);
      shown = bytes;
    },
  });
  item.done(word);
}

async function hasBlob({ endpoint }: PushContext, { digest }: Descriptor): Promise<boolean> {
  const exchange = await endpoint.send(`blobs/${digest}`, { method: 'HEAD' }, [200, 404]);
  exchange.end();
  return exchange.response.status === 200;
}

/** Where on the same registry this image came from; it is asked only for what the names say. */
export function otherRepository(target: RegistryReference, image: ImageRecord): string | undefined {
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
