/** How commands print an image's id: as OCI tools do, or in appc's spelling when started as rkt. */
import type { Context } from '../../src/context.ts';
import { type Digest, digestHex, toAppcHash } from '../../src/image/digest.ts';

/** @param digits of hex; undefined for all */
export function showImageId(
  context: Pick<Context, 'program'>,
  id: Digest,
  digits?: number,
): string {
  const text = context.program === 'rkt' ? toAppcHash(id) : id;
  return digits === undefined ? text : text.slice(0, text.length - digestHex(id).length + digits);
}
