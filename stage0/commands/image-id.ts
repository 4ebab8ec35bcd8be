/**
 * How commands print an image's id: as OCI tools do, or in appc's spelling when started as rkt; an ACI's
 * always as rkt, by the first 64 digits of its SHA-512.
 */
import type { Context } from '../../src/context.ts';
import { type Digest, digestAlgorithm, digestHex, toAppcHash } from '../../src/image/digest.ts';
import type { ImageRecord } from '../../src/store/types.ts';

const APPC_DIGITS = 64;

/** The id that an image goes by. */
export function imageId({ id, appc }: Pick<ImageRecord, 'id' | 'appc'>): Digest {
  return appc?.id ?? id;
}

/** @param digits of hex; undefined for all */
export function showImageId(
  context: Pick<Context, 'program'>,
  id: Digest,
  digits?: number,
): string {
  const appc = digestAlgorithm(id) === 'sha512';
  const text = context.program === 'rkt' || appc ? toAppcHash(id) : id;
  const shown = digits ?? (appc ? APPC_DIGITS : undefined);
  return shown === undefined ? text : text.slice(0, text.length - digestHex(id).length + shown);
}
