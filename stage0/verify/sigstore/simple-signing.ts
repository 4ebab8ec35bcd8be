/**
 * What cosign signs: a small JSON document that names a manifest's digest and a repository (containers'
 * "simple signing", with cosign's type).
 */
import { TspodError } from '../../../src/errors.ts';
import { JsonReader } from '../../../src/image/json.ts';
import { parseRegistryReference } from '../../../src/image/reference.ts';
import type { Subject } from '../types.ts';
import { parseStrictJson } from './strict-json.ts';

const MAX_PAYLOAD = 128 * 1024;
const COSIGN_TYPE = 'cosign container image signature';

/**
 * Checks that a payload is about the subject: its digest and its repository. A tag in the name is not
 * compared, since the digest says more. A subject on disk has no repository to compare with.
 * @throws TspodError 'trust' or 'limit' that says what is wrong with it.
 */
export function checkSimpleSigning(payload: Uint8Array, subject: Subject): void {
  const kind = { what: 'its payload', code: 'protocol' } as const;
  const read = new JsonReader(kind);
  const document = read.object(parseStrictJson(payload, MAX_PAYLOAD, kind), '');
  const critical = read.object(document['critical'], 'critical');
  const type = read.string(critical['type'], 'critical.type');
  if (type !== COSIGN_TYPE) {
    throw new TspodError('trust', `its payload's type is ${shown(type)}, not "${COSIGN_TYPE}"`);
  }
  const image = read.object(critical['image'], 'critical.image');
  const digest = read.string(
    image['docker-manifest-digest'],
    'critical.image.docker-manifest-digest',
  );
  if (digest !== subject.digest) {
    throw new TspodError('trust', `it is for another image: ${shown(digest)}`);
  }
  const identity = read.object(critical['identity'], 'critical.identity');
  checkRepository(
    read.string(identity['docker-reference'], 'critical.identity.docker-reference'),
    subject,
  );
}

function checkRepository(reference: string, subject: Subject): void {
  if (subject.name.startsWith('/')) return;
  let named: string | undefined;
  try {
    const { registry, repository, digest } = parseRegistryReference(reference);
    if (digest === undefined || digest === subject.digest) named = `${registry}/${repository}`;
  } catch {
    // Whatever else it says, it is not this repository's name.
  }
  if (named !== subject.name) {
    throw new TspodError('trust', `it was made for ${shown(reference)}, not for ${subject.name}`);
  }
}

export function shown(text: string): string {
  return JSON.stringify(text.length > 100 ? `${text.slice(0, 100)}…` : text);
}
