/** Detached OpenPGP signatures of what is fetched: the one that `--signature` names, or FILE.asc of an archive. */
import '../hot.ts';
import { createHash } from 'node:crypto';
import type { Context } from '../../src/context.ts';
import { type Digest, parseDigest } from '../../src/image/digest.ts';
import { type FoundOpenPgp, findDetachedSignature } from '../verify/openpgp/find-signature.ts';
import type { Subject } from '../verify/types.ts';
import type { ArchiveFile } from './source.ts';

export { findDetachedSignature };

/** An archive as something that is signed. It is read for its digest only when somebody asks. */
export function archiveSubject(archive: ArchiveFile, name: string, reference: string): Subject {
  let digest: Digest | undefined;
  return {
    name,
    reference,
    get digest() {
      digest ??= hashOf(archive);
      return digest;
    },
    content: archive.content,
  };
}

function hashOf({ content, path }: ArchiveFile): Digest {
  const hash = createHash('sha256');
  for (const chunk of content()) hash.update(chunk);
  return parseDigest(`sha256:${hash.digest('hex')}`, path);
}

/**
 * @param path the archive's; undefined for a manifest, whose signature has to be named
 * @throws TspodError 'trust' when a named signature is not there
 */
export async function* detachedSignatures(
  context: Context,
  path: string | undefined,
  named: string | undefined,
): AsyncGenerator<FoundOpenPgp> {
  if (path === undefined && named === undefined) return;
  const found = await findDetachedSignature(context, { path: path ?? '' }, { named });
  if (found.state === 'found') yield found.signature;
  else if (found.state === 'deferred') yield await found.again();
}
