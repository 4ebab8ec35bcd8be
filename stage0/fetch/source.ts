/**
 * Where an image comes from, as fetch sees it: documents, then blobs as streams. A source hands on what it
 * was given; whoever takes the bytes checks them (documents against their digest here, blobs in the store).
 */
import { createHash } from 'node:crypto';
import { TspodError } from '../../src/errors.ts';
import { type Digest, digestAlgorithm, digestHex, parseDigest } from '../../src/image/digest.ts';
import type { Descriptor } from '../../src/image/oci.ts';
import type { FoundSignature, SignatureKind } from '../verify/types.ts';

export interface TopDocument {
  readonly bytes: Uint8Array;
  readonly digest: Digest;
  /** What it was served as; undefined where nobody says. */
  readonly mediaType: string | undefined;
}

/** The file that an image comes in, which may be signed as a whole. */
export interface ArchiveFile {
  /** absolute */
  readonly path: string;
  /** Its bytes, as often as asked, of the very file that the image is read from. */
  content(): Iterable<Uint8Array>;
}

export interface ImageSource {
  readonly archive?: ArchiveFile;
  /** The canonical reference that the store files the image under. */
  readonly name: string;
  /** The manifest or index that the reference leads to. */
  top(): Promise<TopDocument>;
  /** A manifest that an index names, whole and verified. */
  manifest(descriptor: Descriptor): Promise<Uint8Array>;
  /** A small blob, whole and verified. */
  document(descriptor: Descriptor, maxBytes: number): Promise<Uint8Array>;
  /**
   * A blob's bytes from `offset` on, at most up to the size in its descriptor; not verified.
   * @throws TspodError; 'network' leaves what came before usable for a later resume
   */
  blob(descriptor: Descriptor, offset: number): AsyncIterable<Uint8Array>;
  /**
   * Signatures over a manifest or index, unbelieved, each when it is asked for; none where it has none. A
   * source without this method knows no signatures of its own.
   * @throws TspodError when it can't be known whether there are some
   */
  signatures?(subject: Digest, kinds: ReadonlySet<SignatureKind>): AsyncIterable<FoundSignature>;
  close(): void;
}

export function digestOf(bytes: Uint8Array, algorithm: 'sha256' | 'sha512' = 'sha256'): Digest {
  const hex = createHash(algorithm).update(bytes).digest('hex');
  return parseDigest(`${algorithm}:${hex}`, 'digest');
}

/** @throws TspodError 'digest' when the bytes do not have it. */
export function checkDigest(bytes: Uint8Array, digest: Digest, what: string): void {
  const actual = digestOf(bytes, digestAlgorithm(digest));
  if (digestHex(actual) === digestHex(digest)) return;
  throw new TspodError('digest', `${what}: its content has the digest ${actual}, not ${digest}`);
}

/** As checkDigest, and the size of the descriptor. */
export function checkContent(bytes: Uint8Array, { digest, size }: Descriptor, what: string): void {
  if (bytes.length !== size) {
    throw new TspodError('digest', `${what}: it has ${bytes.length} bytes, not ${size}`);
  }
  checkDigest(bytes, digest, what);
}

/** Collects a stream; one byte over the bound ends it. */
export async function collect(
  chunks: AsyncIterable<Uint8Array>,
  maxBytes: number,
  what: string,
): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let total = 0;
  for await (const chunk of chunks) {
    total += chunk.length;
    if (total > maxBytes) {
      throw new TspodError('limit', `${what}: longer than the limit of ${maxBytes} bytes`);
    }
    parts.push(chunk);
  }
  return Buffer.concat(parts);
}
