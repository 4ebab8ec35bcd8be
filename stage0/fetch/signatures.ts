/** Finding OpenPGP signatures, in a chunk of its own. */
import '../hot.ts';
import type { Context } from '../../src/context.ts';
import { TspodError } from '../../src/errors.ts';
import { type FoundOpenPgp, findDetachedSignature } from '../verify/openpgp/find-signature.ts';

export { findDetachedSignature };

/** @throws TspodError 'trust' when it is not there */
export async function namedSignature(context: Context, named: string): Promise<FoundOpenPgp> {
  const found = await findDetachedSignature(context, { path: named }, { named });
  switch (found.state) {
    case 'found':
      return found.signature;
    case 'deferred':
      return found.again();
    case 'absent':
      throw new TspodError('trust', found.why, { hint: 'it was named by --signature' });
  }
}
