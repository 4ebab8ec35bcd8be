/**
 * Whom keyless signatures are traced back to: a trusted root, which names certificate authorities, transparency
 * logs and timestamp authorities, each with the time it was in use (sigstore's protobuf-specs,
 * sigstore_trustroot.proto, as JSON).
 *
 * public-good.json is the public instance's, sigstore.dev. It came from the npm package @sigstore/tuf 5.0.1
 * (seeds.json, target trusted_root.json), which its makers sign and publish; docs/trust.md says how to name
 * another one.
 */
import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs';
import { TrustedRoot as Message, type TransparencyLogInstance } from '@sigstore/protobuf-specs';
import { type TrustMaterial, toTrustMaterial } from '@sigstore/verify';
import { reasonOf, systemError, TspodError } from '../../../src/errors.ts';
import { JsonReader } from '../../../src/image/json.ts';
import { decodeBase64 } from './base64.ts';
import publicGood from './public-good.json' with { type: 'json' };
import { parseStrictJson } from './strict-json.ts';

export interface TrustedRoot {
  /** A file's path, or undefined: the one that ships with tspod. */
  readonly path: string | undefined;
  readonly material: TrustMaterial;
}

const MAX_FILE = 4 * 1024 * 1024;
const MAX_LIST = 256;
const MAX_KEY = 8 * 1024;
const MAX_CERTIFICATE = 64 * 1024;

const MEDIA_TYPES: ReadonlySet<unknown> = new Set([
  'application/vnd.dev.sigstore.trustedroot+json;version=0.1',
  'application/vnd.dev.sigstore.trustedroot.v0.1+json',
]);

/** RFC 3339, as protobuf's JSON writes a Timestamp. */
const TIME = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?Z$/;

/**
 * Reads a trusted_root.json, version 0.1; undefined: the one that ships with tspod.
 * @throws TspodError 'config', 'limit', or 'system' when the file can't be read.
 */
export function loadTrustedRoot(path: string | undefined): TrustedRoot {
  const what = path === undefined ? 'trusted root' : `trusted root ${path}`;
  const value: unknown =
    path === undefined
      ? publicGood
      : parseStrictJson(readBounded(path, what), MAX_FILE, { what, code: 'config' });
  check(value, new JsonReader({ what, code: 'config' }));
  try {
    return { path, material: toMaterial(value) };
  } catch (error) {
    // A key or certificate that does not decode.
    throw new TspodError('config', `${what}: ${reasonOf(error)}`, { cause: error });
  }
}

function toMaterial(value: unknown): TrustMaterial {
  const message = Message.fromJSON(value);
  // Of version 0.2. The library would take it for the log's id, by which entries name their log.
  const byLogId = (log: TransparencyLogInstance) => ({ ...log, checkpointKeyId: undefined });
  return toTrustMaterial({
    ...message,
    tlogs: message.tlogs.map(byLogId),
    ctlogs: message.ctlogs.map(byLogId),
  });
}

function readBounded(path: string, what: string): Uint8Array {
  try {
    const file = openSync(path, 'r');
    try {
      const { size } = fstatSync(file);
      if (size > MAX_FILE) {
        throw new TspodError('limit', `${what}: ${size} bytes is over the limit of ${MAX_FILE}`);
      }
      return readFileSync(file);
    } finally {
      closeSync(file);
    }
  } catch (error) {
    throw systemError(what, error);
  }
}

/**
 * What the library takes silently: without a start a key would have been valid for ever (the specification
 * requires one), base64 would lose what is not base64, a list that is absent would be empty.
 */
function check(value: unknown, read: JsonReader): void {
  const root = read.object(value, '');
  if (!MEDIA_TYPES.has(root['mediaType'])) {
    read.fail('mediaType', 'is not that of a trusted root of version 0.1');
  }
  for (const list of ['tlogs', 'ctlogs']) {
    for (const [index, item] of read.array(root[list] ?? [], list, MAX_LIST).entries()) {
      checkLog(read.object(item, `${list}[${index}]`), `${list}[${index}]`, read);
    }
  }
  for (const list of ['certificateAuthorities', 'timestampAuthorities']) {
    for (const [index, item] of read.array(root[list] ?? [], list, MAX_LIST).entries()) {
      checkAuthority(read.object(item, `${list}[${index}]`), `${list}[${index}]`, read);
    }
  }
}

function checkLog(log: Readonly<Record<string, unknown>>, at: string, read: JsonReader): void {
  read.nonEmptyString(log['baseUrl'], `${at}.baseUrl`);
  if (log['hashAlgorithm'] !== 'SHA2_256') read.fail(`${at}.hashAlgorithm`, 'is not SHA2_256');
  const key = read.object(log['publicKey'], `${at}.publicKey`);
  checkBytes(key['rawBytes'], `${at}.publicKey.rawBytes`, MAX_KEY, read);
  checkPeriod(key['validFor'], `${at}.publicKey.validFor`, read);
  const id = read.object(log['logId'], `${at}.logId`);
  checkBytes(id['keyId'], `${at}.logId.keyId`, 64, read);
}

function checkAuthority(ca: Readonly<Record<string, unknown>>, at: string, read: JsonReader): void {
  const chain = read.object(ca['certChain'], `${at}.certChain`);
  const path = `${at}.certChain.certificates`;
  const certificates = read.array(chain['certificates'], path, 16);
  if (certificates.length === 0) read.fail(path, 'is empty');
  for (const [index, item] of certificates.entries()) {
    const certificate = read.object(item, `${path}[${index}]`);
    checkBytes(certificate['rawBytes'], `${path}[${index}].rawBytes`, MAX_CERTIFICATE, read);
  }
  checkPeriod(ca['validFor'], `${at}.validFor`, read);
}

function checkBytes(value: unknown, path: string, max: number, read: JsonReader): void {
  if (decodeBase64(read.string(value, path), max) === undefined) {
    read.fail(path, `is not base64 of 1 to ${max} bytes`);
  }
}

function checkPeriod(value: unknown, path: string, read: JsonReader): void {
  const period = read.object(value, path);
  const start = time(period['start'], `${path}.start`, read);
  const end =
    (period['end'] ?? undefined) === undefined ? start : time(period['end'], `${path}.end`, read);
  if (end < start) read.fail(path, 'ends before it starts');
}

function time(value: unknown, path: string, read: JsonReader): number {
  const text = read.string(value, path);
  const milliseconds = TIME.test(text) ? Date.parse(text) : Number.NaN;
  if (Number.isNaN(milliseconds)) read.fail(path, 'is not a time (RFC 3339, UTC)');
  return milliseconds;
}
