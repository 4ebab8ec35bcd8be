/**
 * The in-toto statement by which cosign 3 signs an image (in-toto attestation framework, spec/v1/statement.md):
 * its subject is the image's digest, its predicate says that this is a signature. Any other predicate is an
 * attestation: it states something about the image, perhaps that it is broken, and admits nothing.
 */
import { digestAlgorithm, digestHex } from '../../../src/image/digest.ts';
import { JsonReader } from '../../../src/image/json.ts';
import type { Subject } from '../types.ts';
import { refuse } from './refusal.ts';
import { shown } from './simple-signing.ts';
import { parseStrictJson } from './strict-json.ts';

export const COSIGN_PREDICATE = 'https://sigstore.dev/cosign/sign/v1';
const PAYLOAD_TYPE = 'application/vnd.in-toto+json';
const TYPES: ReadonlySet<string> = new Set([
  'https://in-toto.io/Statement/v1',
  'https://in-toto.io/Statement/v0.1',
]);
const MAX_PAYLOAD = 4 * 1024 * 1024;
const MAX_SUBJECTS = 1024;

/** @throws Refusal, or TspodError for what is no statement. */
export function checkStatement(payloadType: string, payload: Uint8Array, subject: Subject): void {
  if (payloadType !== PAYLOAD_TYPE) {
    refuse(`its payload's type is ${shown(payloadType)}, not ${PAYLOAD_TYPE}`);
  }
  const kind = { what: 'its statement', code: 'protocol' } as const;
  const read: JsonReader = new JsonReader(kind);
  const statement = read.object(parseStrictJson(payload, MAX_PAYLOAD, kind), '');
  const type = read.string(statement['_type'], '_type');
  if (!TYPES.has(type)) refuse(`its statement's type is unknown: ${shown(type)}`);
  const subjects = read.array(statement['subject'], 'subject', MAX_SUBJECTS);
  const named = subjects.some((item, index) => {
    const at = `subject[${index}]`;
    const digests = read.stringMap(read.object(item, at)['digest'], `${at}.digest`, 16);
    return digests[digestAlgorithm(subject.digest)] === digestHex(subject.digest);
  });
  if (!named) refuse('its statement is about another image');
  const predicate = read.string(statement['predicateType'], 'predicateType');
  if (predicate !== COSIGN_PREDICATE) {
    refuse(`it is an attestation (${shown(predicate)}), not a signature`);
  }
}
