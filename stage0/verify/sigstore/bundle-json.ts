/**
 * A sigstore bundle's JSON, read strictly (protobuf-specs, sigstore_bundle.proto). The library's own reader
 * takes any minor version, drops what it does not know, and lets base64 and numbers be anything; all of
 * that is refused here, so that what is checked later is all that the document says.
 */
import type { Bundle } from '@sigstore/bundle';
import { bundleFromJSON } from '@sigstore/bundle';
import { TspodError } from '../../../src/errors.ts';
import { type JsonObject, JsonReader } from '../../../src/image/json.ts';
import { decodeBase64 } from './base64.ts';
import { MAX_SIGNATURE } from './public-key.ts';
import { parseStrictJson } from './strict-json.ts';

export type BundleVersion = '0.1' | '0.2' | '0.3';

export interface ParsedBundle {
  readonly version: BundleVersion;
  readonly message: Bundle;
}

export const MAX_BUNDLE = 8 * 1024 * 1024;
const MAX_PAYLOAD = 4 * 1024 * 1024;
const MAX_CERTIFICATE = 64 * 1024;
const MAX_ENTRIES = 16;
const MAX_TIMESTAMPS = 16;
const MAX_CHAIN = 16;
/** A tree of 2^64 leaves. */
const MAX_HASHES = 64;
const MAX_CHECKPOINT = 64 * 1024;
const MAX_TIMESTAMP = 64 * 1024;

const VERSIONS: ReadonlyMap<unknown, BundleVersion> = new Map([
  ['application/vnd.dev.sigstore.bundle+json;version=0.1', '0.1'],
  ['application/vnd.dev.sigstore.bundle+json;version=0.2', '0.2'],
  ['application/vnd.dev.sigstore.bundle+json;version=0.3', '0.3'],
  ['application/vnd.dev.sigstore.bundle.v0.3+json', '0.3'],
]);

const kind = { what: 'bundle', code: 'protocol' } as const;
const read: JsonReader = new JsonReader(kind);

/** @throws TspodError 'protocol', or 'limit' for a bound. */
export function parseBundle(json: Uint8Array): ParsedBundle {
  return readBundle(parseStrictJson(json, MAX_BUNDLE, kind));
}

/** As `parseBundle`, for a document that was parsed or made here. */
export function readBundle(value: unknown): ParsedBundle {
  const bundle = members(value, '', [
    'mediaType',
    'verificationMaterial',
    'messageSignature',
    'dsseEnvelope',
  ]);
  const version = VERSIONS.get(bundle['mediaType']);
  if (version === undefined) {
    read.fail('mediaType', 'is not that of a bundle of version 0.1, 0.2 or 0.3');
  }
  checkMaterial(bundle['verificationMaterial'], version);
  switch (one(bundle, '', ['messageSignature', 'dsseEnvelope'])) {
    case 'messageSignature':
      checkMessageSignature(bundle['messageSignature']);
      break;
    default:
      checkEnvelope(bundle['dsseEnvelope']);
  }
  try {
    return { version, message: bundleFromJSON(value) };
  } catch (error) {
    throw new TspodError('protocol', `bundle: it is not one of version ${version}`, {
      cause: error,
    });
  }
}

function checkMaterial(value: unknown, version: BundleVersion): void {
  const at = 'verificationMaterial';
  const kinds = ['publicKey', 'x509CertificateChain', 'certificate'];
  const material = members(value, at, [...kinds, 'tlogEntries', 'timestampVerificationData']);
  switch (one(material, at, kinds)) {
    case 'publicKey': {
      const key = members(material['publicKey'], `${at}.publicKey`, ['hint']);
      read.optionalString(key['hint'], `${at}.publicKey.hint`);
      break;
    }
    case 'certificate':
      if (version !== '0.3') read.fail(`${at}.certificate`, `is not of version ${version}`);
      checkCertificate(material['certificate'], `${at}.certificate`);
      break;
    default:
      if (version === '0.3') read.fail(`${at}.x509CertificateChain`, 'is not of version 0.3');
      checkChain(material['x509CertificateChain'], `${at}.x509CertificateChain`);
  }
  const entries = read.array(material['tlogEntries'] ?? [], `${at}.tlogEntries`, MAX_ENTRIES);
  for (const [index, entry] of entries.entries()) {
    checkEntry(entry, `${at}.tlogEntries[${index}]`, version);
  }
  checkTimestamps(material['timestampVerificationData'], `${at}.timestampVerificationData`);
}

function checkCertificate(value: unknown, at: string): void {
  bytes(members(value, at, ['rawBytes'])['rawBytes'], `${at}.rawBytes`, MAX_CERTIFICATE);
}

function checkChain(value: unknown, at: string): void {
  const chain = members(value, at, ['certificates']);
  const certificates = read.array(chain['certificates'] ?? [], `${at}.certificates`, MAX_CHAIN);
  if (certificates.length === 0) read.fail(`${at}.certificates`, 'is empty');
  for (const [index, certificate] of certificates.entries()) {
    checkCertificate(certificate, `${at}.certificates[${index}]`);
  }
}

function checkEntry(value: unknown, at: string, version: BundleVersion): void {
  const entry = members(value, at, [
    'logIndex',
    'logId',
    'kindVersion',
    'integratedTime',
    'inclusionPromise',
    'inclusionProof',
    'canonicalizedBody',
  ]);
  number(entry['logIndex'] ?? '0', `${at}.logIndex`);
  number(entry['integratedTime'] ?? '0', `${at}.integratedTime`);
  bytes(members(entry['logId'], `${at}.logId`, ['keyId'])['keyId'], `${at}.logId.keyId`, 64);
  const type = members(entry['kindVersion'], `${at}.kindVersion`, ['kind', 'version']);
  read.nonEmptyString(type['kind'], `${at}.kindVersion.kind`);
  read.nonEmptyString(type['version'], `${at}.kindVersion.version`);
  bytes(entry['canonicalizedBody'], `${at}.canonicalizedBody`, MAX_BUNDLE);
  if (entry['inclusionPromise'] !== undefined) {
    const promise = members(entry['inclusionPromise'], `${at}.inclusionPromise`, [
      'signedEntryTimestamp',
    ]);
    bytes(
      promise['signedEntryTimestamp'],
      `${at}.inclusionPromise.signedEntryTimestamp`,
      MAX_SIGNATURE,
    );
  } else if (version === '0.1') {
    read.fail(`${at}.inclusionPromise`, 'is missing: a bundle of version 0.1 needs it');
  }
  if (entry['inclusionProof'] !== undefined) {
    checkProof(entry['inclusionProof'], `${at}.inclusionProof`);
  } else if (version !== '0.1') {
    read.fail(`${at}.inclusionProof`, `is missing: a bundle of version ${version} needs it`);
  }
}

function checkProof(value: unknown, at: string): void {
  const proof = members(value, at, ['logIndex', 'rootHash', 'treeSize', 'hashes', 'checkpoint']);
  number(proof['logIndex'] ?? '0', `${at}.logIndex`);
  number(proof['treeSize'], `${at}.treeSize`);
  bytes(proof['rootHash'], `${at}.rootHash`, 64);
  const hashes = read.array(proof['hashes'] ?? [], `${at}.hashes`, MAX_HASHES);
  for (const [index, hash] of hashes.entries()) bytes(hash, `${at}.hashes[${index}]`, 64);
  const checkpoint = members(proof['checkpoint'], `${at}.checkpoint`, ['envelope']);
  const envelope = read.nonEmptyString(checkpoint['envelope'], `${at}.checkpoint.envelope`);
  if (envelope.length > MAX_CHECKPOINT) {
    read.fail(`${at}.checkpoint.envelope`, `is over the limit of ${MAX_CHECKPOINT} characters`);
  }
}

function checkTimestamps(value: unknown, at: string): void {
  if (value === undefined) return;
  const data = members(value, at, ['rfc3161Timestamps']);
  const list = read.array(
    data['rfc3161Timestamps'] ?? [],
    `${at}.rfc3161Timestamps`,
    MAX_TIMESTAMPS,
  );
  for (const [index, item] of list.entries()) {
    const path = `${at}.rfc3161Timestamps[${index}]`;
    const timestamp = members(item, path, ['signedTimestamp']);
    bytes(timestamp['signedTimestamp'], `${path}.signedTimestamp`, MAX_TIMESTAMP);
  }
}

function checkMessageSignature(value: unknown): void {
  const at = 'messageSignature';
  const signature = members(value, at, ['messageDigest', 'signature']);
  const digest = members(signature['messageDigest'], `${at}.messageDigest`, [
    'algorithm',
    'digest',
  ]);
  // What Rekor's entries and cosign use. Another one would need its own hash over the content.
  if (digest['algorithm'] !== 'SHA2_256') {
    read.fail(`${at}.messageDigest.algorithm`, 'is not SHA2_256');
  }
  bytes(digest['digest'], `${at}.messageDigest.digest`, 64);
  bytes(signature['signature'], `${at}.signature`, MAX_SIGNATURE);
}

function checkEnvelope(value: unknown): void {
  const at = 'dsseEnvelope';
  const envelope = members(value, at, ['payload', 'payloadType', 'signatures']);
  bytes(envelope['payload'], `${at}.payload`, MAX_PAYLOAD);
  read.nonEmptyString(envelope['payloadType'], `${at}.payloadType`);
  const signatures = read.array(envelope['signatures'], `${at}.signatures`, MAX_ENTRIES);
  if (signatures.length !== 1) read.fail(`${at}.signatures`, 'has to be exactly one');
  const signature = members(signatures[0], `${at}.signatures[0]`, ['sig', 'keyid']);
  bytes(signature['sig'], `${at}.signatures[0].sig`, MAX_SIGNATURE);
  read.optionalString(signature['keyid'], `${at}.signatures[0].keyid`);
}

/** An object without any other member than these. */
function members(value: unknown, at: string, known: readonly string[]): JsonObject {
  const object = read.object(value, at);
  for (const key of Object.keys(object)) {
    if (!known.includes(key)) {
      read.fail(at, `has a member that is unknown: ${JSON.stringify(key.slice(0, 80))}`);
    }
  }
  return object;
}

/** Which one of the members is there. */
function one(object: JsonObject, at: string, names: readonly string[]): string {
  const there = names.filter(name => object[name] !== undefined && object[name] !== null);
  const [name] = there;
  if (name === undefined || there.length > 1) {
    read.fail(at, `has ${there.length === 0 ? 'none' : 'more than one'} of ${names.join(', ')}`);
  }
  return name;
}

function bytes(value: unknown, at: string, max: number): void {
  if (decodeBase64(read.string(value, at), max) === undefined) {
    read.fail(at, `is not base64 of 1 to ${max} bytes`);
  }
}

/** int64 in protobuf's JSON: a text, by some writers a number. Negative ones make no sense here. */
function number(value: unknown, at: string): void {
  const text = typeof value === 'number' && Number.isSafeInteger(value) ? String(value) : value;
  if (typeof text !== 'string' || !/^(?:0|[1-9]\d{0,15})$/.test(text)) {
    read.fail(at, 'is not a whole number from 0');
  }
}
