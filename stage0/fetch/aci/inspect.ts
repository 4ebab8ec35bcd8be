/**
 * Reads an ACI's file through, once: the digest of its bytes here; decompression, the image id and the
 * manifest in the confined child, as everything that parses what an image holds (CVE-2014-9357).
 */
import { createHash } from 'node:crypto';
import { closeSync, constants, fstatSync, mkdtempSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { errnoOf, systemError, TspodError } from '../../../src/errors.ts';
import {
  type AppcImageManifest,
  parseAppcImageManifest,
} from '../../../src/image/appc-manifest.ts';
import { type Digest, parseDigest } from '../../../src/image/digest.ts';
import type { AciTransform, Compression, Raw } from '../../../src/image/oci.ts';
import { Layout } from '../../../src/store/layout.ts';
import { discard } from '../../../src/store/trash.ts';
import type { Store } from '../../../src/store/types.ts';
import { DEFAULT_BOUNDS } from '../../unpack/bounds.ts';
import { UnpackChild } from '../../unpack/child-process.ts';
import { compressionOfBytes, SNIFF_BYTES } from '../compression.ts';
import { digestOf } from '../source.ts';

export interface InspectedAci {
  /** Of the file as it is: what a signature is over, and the layer's blob. */
  readonly blob: { readonly digest: Digest; readonly size: number };
  readonly compression: Compression;
  /** sha512 of the uncompressed archive */
  readonly id: Digest;
  readonly manifest: Raw<AppcImageManifest>;
  /** Of the layer that the transform makes of it. */
  readonly diffId: Digest;
}

export const NO_FILTER: AciTransform = { kind: 'aci', own: [], above: [] };

const CHUNK = 1024 * 1024;
const IDLE_MS = 5 * 60_000;

/**
 * @param what for messages, e.g. `image ./x.aci`
 * @throws TspodError 'not-found', 'unpack' and 'protocol' for what is no ACI, 'limit' for a bound
 */
export async function inspectAci(
  store: Store,
  path: string,
  what: string,
  transform: AciTransform = NO_FILTER,
): Promise<InspectedAci> {
  const fd = openAci(path, what);
  const layout = new Layout(store.dir);
  layout.make();
  // Nothing is in it, and nothing will be: the child is shut in there.
  const folder = mkdtempSync(join(layout.tmp, 'inspect.'));
  try {
    const head = Buffer.alloc(SNIFF_BYTES);
    const compression = compressionOfBytes(head.subarray(0, readSync(fd, head, 0, SNIFF_BYTES, 0)));
    const child = new UnpackChild(
      { job: 'inspect-aci', folder, compression, bounds: DEFAULT_BOUNDS, idleMs: IDLE_MS },
      IDLE_MS,
      transform,
    );
    const hash = createHash('sha256');
    let size = 0;
    try {
      for (const chunk of chunksOf(fd)) {
        hash.update(chunk);
        size += chunk.length;
        await child.write(chunk);
      }
      const found = await child.finish();
      if (found?.aci === undefined) throw new TspodError('unpack', 'the reader gave no manifest');
      const manifest = Buffer.from(found.aci.manifest, 'base64');
      return {
        blob: { digest: parseDigest(`sha256:${hash.digest('hex')}`, what), size },
        compression,
        id: parseDigest(found.aci.id, what),
        manifest: {
          bytes: manifest,
          digest: digestOf(manifest),
          value: parseAppcImageManifest(manifest, what),
        },
        diffId: parseDigest(found.diffId, what),
      };
    } catch (error) {
      await child.kill();
      throw named(error, what);
    }
  } finally {
    closeSync(fd);
    discard(layout, folder);
  }
}

/** The child knows no names. */
function named(error: unknown, what: string): unknown {
  if (!(error instanceof TspodError) || error.message.startsWith(what)) return error;
  const message = `${what}: ${error.message.replace(/^(?:image|layer)(?::)? /, '')}`;
  return new TspodError(error.code, message, {
    ...(error.hint === undefined ? {} : { hint: error.hint }),
    cause: error,
  });
}

/** @throws TspodError 'not-found' for what is no regular file */
export function openAci(path: string, what: string): number {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') throw new TspodError('not-found', `${what}: no such file`);
    throw systemError(`${what}: can't open it`, error);
  }
  if (fstatSync(fd).isFile()) return fd;
  closeSync(fd);
  throw new TspodError('not-found', `${what}: not a regular file`);
}

/** Fresh buffers: who gets them may keep them for a while. */
export function* chunksOf(fd: number, start = 0): Generator<Buffer> {
  for (let at = start; ; ) {
    const chunk = Buffer.allocUnsafe(CHUNK);
    const got = readSync(fd, chunk, 0, CHUNK, at);
    if (got === 0) return;
    at += got;
    yield chunk.subarray(0, got);
  }
}
