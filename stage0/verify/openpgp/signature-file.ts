/**
 * A detached signature file (RFC 9580, 10.4): one or more signature packets, armored or binary. What the packets
 * say is read strictly and checked against policy before the content is hashed or a key is asked.
 */
import { reasonOf } from '../../../src/errors.ts';
import type { SignedHash } from './digests.ts';
import { bigEndian, currentLength, dearmor, malformed, splitPackets, TAG } from './packets.ts';

/** Nobody signs an image more often; each one costs a public-key operation. */
const MAX_SIGNATURES = 32;

export interface ReadSignature {
  /** The packet, with its header. */
  readonly bytes: Uint8Array;
  /** What to hash, or why this signature can't count, as a clause. */
  readonly signed: SignedHash | { readonly refused: string };
}

/** RFC 9580, 9.5: name in node:crypto, and the length of a version 6 salt. */
const HASHES: ReadonlyMap<number, { readonly name: string; readonly salt: number }> = new Map([
  [8, { name: 'sha256', salt: 16 }],
  [9, { name: 'sha384', salt: 24 }],
  [10, { name: 'sha512', salt: 32 }],
  [11, { name: 'sha224', salt: 16 }],
  [12, { name: 'sha3-256', salt: 16 }],
  [14, { name: 'sha3-512', salt: 32 }],
]);
const BROKEN_HASHES: ReadonlyMap<number, string> = new Map([
  [1, 'MD5'],
  [2, 'SHA-1'],
  [3, 'RIPEMD-160'],
]);
const BINARY = 0x00;
const TEXT = 0x01;

/** @throws TspodError 'protocol' or 'limit' that begins with `what` */
export function readSignatureFile(bytes: Uint8Array, what: string): readonly ReadSignature[] {
  const packets = splitPackets(dearmor(bytes, 'SIGNATURE', what), MAX_SIGNATURES, what).filter(
    ({ tag }) => tag !== TAG.marker && tag !== TAG.padding,
  );
  const other = packets.find(({ tag }) => tag !== TAG.signature);
  if (other !== undefined) {
    throw malformed(what, `it is not a detached signature: it has a packet of type ${other.tag}`);
  }
  if (packets.length === 0) throw malformed(what, 'it has no signature');
  return packets.map(packet => ({ bytes: packet.bytes, signed: readSigned(packet.body) }));
}

function readSigned(body: Uint8Array): ReadSignature['signed'] {
  try {
    return readFields(body);
  } catch (error) {
    return { refused: reasonOf(error) };
  }
}

/** RFC 9580, 5.2.3. */
function readFields(body: Uint8Array): ReadSignature['signed'] {
  const [version = 0, type = 0, , algorithm = 0] = body;
  if (version !== 4 && version !== 6) {
    return { refused: `signatures of version ${version} are not supported, only 4 and 6` };
  }
  if (type !== BINARY && type !== TEXT) {
    return { refused: `a signature of type 0x${hex(type)} does not sign a document` };
  }
  const broken = BROKEN_HASHES.get(algorithm);
  if (broken !== undefined) return { refused: `the hash algorithm ${broken} is not accepted` };
  const hash = HASHES.get(algorithm);
  if (hash === undefined) return { refused: `hash algorithm ${algorithm} is not known` };
  const lengthSize = version === 4 ? 2 : 4;
  const hashedEnd = skipSubpackets(body, 4, lengthSize);
  const unhashedEnd = skipSubpackets(body, hashedEnd, lengthSize);
  const saltAt = unhashedEnd + 3;
  const saltLength = version === 4 ? 0 : (body[saltAt - 1] ?? 0);
  if (version === 6 && saltLength !== hash.salt) {
    return { refused: `its salt has ${saltLength} bytes instead of ${hash.salt}` };
  }
  if (body.length <= saltAt + saltLength) return { refused: 'it is cut short' };
  const trailer = Buffer.from([version, 0xff, 0, 0, 0, 0]);
  trailer.writeUInt32BE(hashedEnd, 2);
  return {
    algorithm: hash.name,
    salt: body.subarray(saltAt, saltAt + saltLength),
    text: type === TEXT,
    suffix: Buffer.concat([body.subarray(0, hashedEnd), trailer]),
  };
}

/** Where an area of subpackets ends; they have to fill it exactly (5.2.3.7). */
function skipSubpackets(body: Uint8Array, at: number, lengthSize: number): number {
  const start = at + lengthSize;
  const end = start + bigEndian(body.subarray(at, start));
  if (end > body.length) throw malformed('the signature', 'it is cut short');
  let next = start;
  while (next < end) {
    const first = body[next] ?? 0;
    const size = first < 192 ? 1 : first === 255 ? 5 : 2;
    const length = currentLength(body.subarray(next, next + size));
    if (length === 0) throw malformed('the signature', 'it has an empty subpacket');
    next += size + length;
  }
  if (next !== end) throw malformed('the signature', 'its subpackets overrun their area');
  return end;
}

function hex(value: number): string {
  return value.toString(16).padStart(2, '0');
}
