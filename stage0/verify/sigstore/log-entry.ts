/**
 * The body of a transparency log entry against the bundle that shows it. The library compares the signature
 * and the digest; that the log saw the same certificate or key, under the hash that is meant, and in a kind of
 * entry that fits the content, is checked here (Rekor's types hashedrekord, dsse and intoto; Rekor v2's
 * entry.proto). Otherwise an entry of somebody else's signature could be shown (CVE-2022-36056).
 */
import { createPublicKey } from 'node:crypto';
import type { TransparencyLogEntry } from '@sigstore/bundle';
import { type JsonObject, JsonReader } from '../../../src/image/json.ts';
import { decodeBase64 } from './base64.ts';
import { MAX_BUNDLE } from './bundle-json.ts';
import { decodePem } from './pem.ts';
import { refuse } from './refusal.ts';
import { parseStrictJson } from './strict-json.ts';

/** What a bundle claims, in the form that entries keep it. */
export interface SignedContent {
  readonly kind: 'message' | 'dsse';
  /** DER of the certificate, or of the key's SubjectPublicKeyInfo. */
  readonly verifier: { readonly kind: 'certificate' | 'key'; readonly der: Buffer };
}

const kind = { what: 'its log entry', code: 'protocol' } as const;
const read: JsonReader = new JsonReader(kind);

/** @throws Refusal, or TspodError for a body that breaks its type's rules. */
export function checkLogEntry(entry: TransparencyLogEntry, content: SignedContent): void {
  const body = read.object(parseStrictJson(entry.canonicalizedBody, MAX_BUNDLE, kind), '');
  const type = read.string(body['kind'], 'kind');
  const version = read.string(body['apiVersion'], 'apiVersion');
  const spec = read.object(body['spec'], 'spec');
  if (content.kind === 'message' && type !== 'hashedrekord') {
    refuse(`its log entry is of the kind ${JSON.stringify(type.slice(0, 40))}, not hashedrekord`);
  }
  switch (`${type} ${version}`) {
    case 'hashedrekord 0.0.1':
      checkHashedRekord1(spec, content);
      break;
    case 'hashedrekord 0.0.2':
      checkHashedRekord2(spec, content);
      break;
    case 'dsse 0.0.1':
      checkDsse1(spec, content);
      break;
    case 'dsse 0.0.2':
      checkDsse2(spec, content);
      break;
    case 'intoto 0.0.2':
      checkIntoto2(spec, content);
      break;
    default:
      refuse(`its log entry is of an unknown kind: ${`${type} ${version}`.slice(0, 80)}`);
  }
}

function checkHashedRekord1(spec: JsonObject, content: SignedContent): void {
  const data = read.object(spec['data'], 'spec.data');
  checkHash(data['hash'], 'spec.data.hash');
  const signature = read.object(spec['signature'], 'spec.signature');
  const key = read.object(signature['publicKey'], 'spec.signature.publicKey');
  comparePem(key['content'], 'spec.signature.publicKey.content', content);
}

function checkHashedRekord2(spec: JsonObject, content: SignedContent): void {
  const at = 'spec.hashedRekordV002';
  const record = read.object(spec['hashedRekordV002'], at);
  checkHashOutput(record['data'], `${at}.data`);
  const signature = read.object(record['signature'], `${at}.signature`);
  compareVerifier(signature['verifier'], `${at}.signature.verifier`, content);
}

function checkDsse1(spec: JsonObject, content: SignedContent): void {
  checkHash(spec['payloadHash'], 'spec.payloadHash');
  const signature = onlyOne(spec['signatures'], 'spec.signatures');
  comparePem(signature['verifier'], 'spec.signatures[0].verifier', content);
}

function checkDsse2(spec: JsonObject, content: SignedContent): void {
  const at = 'spec.dsseV002';
  const envelope = read.object(spec['dsseV002'], at);
  checkHashOutput(envelope['payloadHash'], `${at}.payloadHash`);
  const signature = onlyOne(envelope['signatures'], `${at}.signatures`);
  compareVerifier(signature['verifier'], `${at}.signatures[0].verifier`, content);
}

function checkIntoto2(spec: JsonObject, content: SignedContent): void {
  const inner = read.object(spec['content'], 'spec.content');
  checkHash(inner['payloadHash'], 'spec.content.payloadHash');
  const envelope = read.object(inner['envelope'], 'spec.content.envelope');
  const signature = onlyOne(envelope['signatures'], 'spec.content.envelope.signatures');
  comparePem(signature['publicKey'], 'spec.content.envelope.signatures[0].publicKey', content);
}

/** Rekor v1's. The value is compared by the library. */
function checkHash(value: unknown, at: string): void {
  const hash = read.object(value, at);
  if (hash['algorithm'] !== 'sha256') read.fail(`${at}.algorithm`, 'is not sha256');
  if (!/^[0-9a-f]{64}$/.test(read.string(hash['value'], `${at}.value`))) {
    read.fail(`${at}.value`, 'is not a sha256');
  }
}

/** Rekor v2's. */
function checkHashOutput(value: unknown, at: string): void {
  const hash = read.object(value, at);
  if (hash['algorithm'] !== 'SHA2_256') read.fail(`${at}.algorithm`, 'is not SHA2_256');
  if (decodeBase64(read.string(hash['digest'], `${at}.digest`), 32)?.length !== 32) {
    read.fail(`${at}.digest`, 'is not a sha256');
  }
}

/** Rekor v1 keeps the certificate or key as PEM, in base64 once more. */
function comparePem(value: unknown, at: string, content: SignedContent): void {
  const pem = decodeBase64(read.string(value, at), MAX_VERIFIER);
  const block = pem === undefined ? undefined : decodePem(pem.toString('latin1'));
  if (block === undefined) read.fail(at, 'is not PEM in base64');
  const isCertificate = block.label === 'CERTIFICATE';
  compare(isCertificate ? 'certificate' : 'key', block.der, content);
}

function compareVerifier(value: unknown, at: string, content: SignedContent): void {
  const verifier = read.object(value, at);
  const certificate = read.optionalObject(verifier['x509Certificate'], `${at}.x509Certificate`);
  const key = read.optionalObject(verifier['publicKey'], `${at}.publicKey`);
  if ((certificate === undefined) === (key === undefined)) {
    read.fail(at, 'is not one certificate or key');
  }
  const raw = (certificate ?? key)?.['rawBytes'];
  const der = decodeBase64(read.string(raw, `${at}.rawBytes`), MAX_VERIFIER);
  if (der === undefined) read.fail(`${at}.rawBytes`, 'is not base64');
  compare(certificate === undefined ? 'key' : 'certificate', der, content);
}

const MAX_VERIFIER = 128 * 1024;

function compare(kindThere: 'certificate' | 'key', der: Buffer, content: SignedContent): void {
  const { verifier } = content;
  if (kindThere === verifier.kind) {
    const same = kindThere === 'certificate' ? der : canonicalKey(der);
    if (same?.equals(verifier.der) === true) return;
  }
  refuse(`its log entry was made for another ${kindThere}`);
}

function canonicalKey(der: Buffer): Buffer | undefined {
  try {
    const key = createPublicKey({ key: der, format: 'der', type: 'spki' });
    return key.export({ type: 'spki', format: 'der' });
  } catch {
    return undefined;
  }
}

function onlyOne(value: unknown, at: string): JsonObject {
  const list = read.array(value, at, 16);
  if (list.length !== 1) read.fail(at, 'has to be exactly one');
  return read.object(list[0], `${at}[0]`);
}
