/**
 * Public keys as files hold them: one or more transferable public keys (RFC 9580, 10.1), told apart by their
 * primary keys, with the fingerprint of each. Nothing here says that a key is any good; that is the verifier's
 * business. Done without the library, so that the key store can be read without loading it.
 */
import { createHash } from 'node:crypto';
import { TspodError } from '../../../src/errors.ts';
import { bigEndian, dearmor, malformed, type Packet, splitPackets, TAG } from './packets.ts';

export interface KeyBlock {
  /** 40 (version 4) or 64 (version 6) lower-case hex digits. */
  readonly fingerprint: string;
  /** One key's packets, binary. */
  readonly bytes: Uint8Array;
}

/** A key with the certifications of a few thousand people stays below it. */
const MAX_PACKETS = 10_000;
const MAX_KEYS = 64;
const MAX_RSA_BITS = 16_384;
const MAX_EXPONENT_BITS = 64;

export const FINGERPRINT = /^(?:[0-9a-f]{40}|[0-9a-f]{64})$/;

/** @throws TspodError 'protocol' or 'limit' that begins with `what`. */
export function splitKeys(bytes: Uint8Array, what: string): readonly KeyBlock[] {
  const packets = splitPackets(dearmor(bytes, 'PUBLIC KEY BLOCK', what), MAX_PACKETS, what);
  const keys: Packet[][] = [];
  for (const packet of packets) {
    if (packet.tag === TAG.secretKey || packet.tag === TAG.secretSubkey) {
      throw malformed(what, 'it is a private key, which must not leave its owner');
    }
    if (packet.tag === TAG.publicKey || packet.tag === TAG.publicSubkey) {
      checkRsaSize(packet.body, what);
    }
    if (packet.tag === TAG.publicKey) keys.push([]);
    const key = keys.at(-1);
    if (key === undefined) {
      if (packet.tag === TAG.marker) continue;
      throw malformed(what, 'it does not begin with a public key');
    }
    key.push(packet);
  }
  if (keys.length === 0) throw malformed(what, 'it has no public key');
  if (keys.length > MAX_KEYS) throw malformed(what, `it has more than ${MAX_KEYS} keys`);
  return keys.map(key => ({
    fingerprint: fingerprintOf(key[0]?.body ?? new Uint8Array(0), what),
    bytes: Buffer.concat(key.map(packet => packet.bytes)),
  }));
}

/**
 * RSA keys as OpenSSL takes them, at most: larger ones, or exponents, would keep the verifier busy for minutes.
 * RFC 9580, 5.5.2 and 5.5.5.1.
 */
function checkRsaSize(body: Uint8Array, what: string): void {
  const [version = 0] = body;
  const algorithm = body[5] ?? 0;
  if (algorithm < 1 || algorithm > 3) return;
  const modulusAt = version === 6 ? 10 : 6;
  const modulus = bigEndian(body.subarray(modulusAt, modulusAt + 2));
  const exponentAt = modulusAt + 2 + Math.ceil(modulus / 8);
  const exponent = bigEndian(body.subarray(exponentAt, exponentAt + 2));
  if (modulus <= MAX_RSA_BITS && exponent <= MAX_EXPONENT_BITS) return;
  throw new TspodError(
    'limit',
    `${what}: an RSA key of ${modulus} bits with an exponent of ${exponent} is over the limits of ${MAX_RSA_BITS} and ${MAX_EXPONENT_BITS}`,
  );
}

/** RFC 9580, 5.5.4. */
function fingerprintOf(body: Uint8Array, what: string): string {
  const [version] = body;
  const head = Buffer.alloc(5);
  if (version === 4) {
    head.writeUInt8(0x99);
    head.writeUInt16BE(body.length & 0xffff, 1);
    if (body.length > 0xffff) throw malformed(what, 'its key is too long');
    return createHash('sha1').update(head.subarray(0, 3)).update(body).digest('hex');
  }
  if (version === 6) {
    head.writeUInt8(0x9b);
    head.writeUInt32BE(body.length, 1);
    return createHash('sha256').update(head).update(body).digest('hex');
  }
  throw malformed(what, `a key of version ${version ?? 0} is not supported, only 4 and 6`);
}
