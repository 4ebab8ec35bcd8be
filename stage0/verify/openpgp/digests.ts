/**
 * What a signature over a document signs (RFC 9580, 5.2.4): its salt (version 6), the content, its own hashed
 * part, a trailer. One pass over the content feeds the hash of every signature, so that an image of any size
 * is read once and never held in memory.
 */
import { createHash, type Hash } from 'node:crypto';

export interface SignedHash {
  /** A name of node:crypto. */
  readonly algorithm: string;
  /** Empty for version 4. */
  readonly salt: Uint8Array;
  /** Whether line ends count as CR LF (signatures of type 0x01). */
  readonly text: boolean;
  /** The hashed part of the signature and the trailer. */
  readonly suffix: Uint8Array;
}

/** The content's own digest. */
export function plainHash(algorithm: string): SignedHash {
  const none = new Uint8Array(0);
  return { algorithm, salt: none, text: false, suffix: none };
}

/** The digests in the order of `wanted`. */
export async function hashContent(
  content: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  wanted: readonly SignedHash[],
): Promise<readonly Uint8Array[]> {
  // Signatures differ in their suffixes only, as a rule: the hash of the content is shared.
  const shared = new Map<string, { readonly hash: Hash; readonly text: boolean }>();
  const keyOf = ({ algorithm, salt, text }: SignedHash) =>
    `${algorithm} ${text} ${Buffer.from(salt).toString('hex')}`;
  for (const each of wanted) {
    const hash = createHash(each.algorithm).update(each.salt);
    shared.set(keyOf(each), { hash, text: each.text });
  }
  const hashes = [...shared.values()];
  const canonical = hashes.some(({ text }) => text) ? new CanonicalText() : undefined;
  for await (const chunk of content) {
    const lines = canonical?.convert(chunk) ?? [];
    for (const { hash, text } of hashes) {
      if (text) for (const part of lines) hash.update(part);
      else hash.update(chunk);
    }
  }
  return wanted.map(each => {
    const { hash } = shared.get(keyOf(each)) ?? { hash: createHash(each.algorithm) };
    return hash.copy().update(each.suffix).digest();
  });
}

const CR = 0x0d;
const LF = 0x0a;
const CR_LF = Uint8Array.of(CR, LF);

/** Line ends as CR LF, whatever the chunks: an LF without a CR before it gets one. */
export class CanonicalText {
  #afterCr = false;

  convert(chunk: Uint8Array): readonly Uint8Array[] {
    const parts: Uint8Array[] = [];
    let from = 0;
    for (let at = chunk.indexOf(LF); at >= 0; at = chunk.indexOf(LF, at + 1)) {
      const afterCr = at === 0 ? this.#afterCr : chunk[at - 1] === CR;
      if (afterCr) continue;
      parts.push(chunk.subarray(from, at), CR_LF);
      from = at + 1;
    }
    parts.push(chunk.subarray(from));
    if (chunk.length > 0) this.#afterCr = chunk.at(-1) === CR;
    return parts;
  }
}
