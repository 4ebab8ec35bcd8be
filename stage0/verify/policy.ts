/**
 * Whether an image may run, decided from its manifest before any layer is fetched. Digests are always
 * checked; what decides here is who vouches for the image. The one rule that admits is the user's own
 * `--insecure-options=image`; everything else is refused.
 *
 * The verdict is kept with the image. What was admitted once runs again from the store without the option,
 * as in rkt: the content is the same, its digest says so.
 */
import type { Context } from '../../src/context.ts';
import { TspodError } from '../../src/errors.ts';
import type { Verdict } from '../../src/store/types.ts';

/** @throws TspodError 'trust' with the option that would admit it. */
export function admitImage(context: Pick<Context, 'insecure'>, name: string): Verdict {
  if (context.insecure.has('image')) return { admitted: true, by: '--insecure-options=image' };
  throw new TspodError('trust', `image "${name}" has no accepted signature: it is not signed`, {
    hint: 'to run it all the same use --insecure-options=image',
  });
}
