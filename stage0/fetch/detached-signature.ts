/**
 * The detached signature of an image that is one file: looked for before the image is fetched, so that a server
 * can ask for the image first (202), and handed to the policy when it wants one.
 */
import { type Context, warn } from '../../src/context.ts';
import type { SignedImage } from '../verify/openpgp/find-signature.ts';
import type { FoundSignature, SignatureKind } from '../verify/types.ts';
import type { Timing } from './retry.ts';

/** As Admission.signatures, for the one subject that the image is. */
export type DetachedSignatures = (
  kinds: ReadonlySet<SignatureKind>,
) => AsyncGenerator<FoundSignature>;

/**
 * What keeps it from being found is thrown when the policy asks: it may not need any.
 * @param named what `--signature` says
 */
export async function lookForSignature(
  context: Context,
  image: SignedImage,
  named: string | undefined,
  timing: Timing | undefined,
): Promise<DetachedSignatures> {
  if (context.insecure.has('image')) return none;
  const { findDetachedSignature } = await import('./signatures.ts');
  const looked = await findDetachedSignature(context, image, {
    named,
    onDeferred: message => warn(context, message),
    ...(timing === undefined ? {} : { timing }),
  }).catch((error: unknown) => ({ state: 'failed' as const, error }));
  return async function* (kinds) {
    if (!kinds.has('openpgp')) return;
    switch (looked.state) {
      case 'found':
        yield looked.signature;
        break;
      case 'deferred':
        yield await looked.again();
        break;
      case 'failed':
        throw looked.error;
      case 'absent':
    }
  };
}

async function* none(): AsyncGenerator<FoundSignature> {}
