/**
 * The outer form of OpenPGP data, read strictly before any of it reaches the library: ASCII armor (RFC 9580, 6.2)
 * and packet headers (4.2). Bounds on size and count hold here, so that a signature file of a stranger can't
 * make the verifier do unbounded work. Lengths must be definite: keys and signatures never have others.
 */
import { TspodError } from '../../../src/errors.ts';

/** Bytes of a signature or key file, armored or not. */
export const MAX_BYTES = 1024 * 1024;

/** RFC 9580, 5. */
export const TAG = {
  signature: 2,
  secretKey: 5,
  publicKey: 6,
  secretSubkey: 7,
  marker: 10,
  trust: 12,
  userId: 13,
  publicSubkey: 14,
  userAttribute: 17,
  padding: 21,
} as const;

export interface Packet {
  readonly tag: number;
  readonly body: Uint8Array;
  /** With its header, as it came. */
  readonly bytes: Uint8Array;
}

/** What is inside the armor; what has none is handed back as it is. Several blocks become one. */
export function dearmor(
  bytes: Uint8Array,
  type: 'SIGNATURE' | 'PUBLIC KEY BLOCK',
  what: string,
): Uint8Array {
  if (bytes.length > MAX_BYTES) {
    throw new TspodError(
      'limit',
      `${what}: ${bytes.length} bytes is over the limit of ${MAX_BYTES}`,
    );
  }
  const [first] = bytes;
  if (first === undefined) throw malformed(what, 'it is empty');
  // Every packet header has this bit, no character of an armor does.
  if ((first & 0x80) !== 0 && !startsWithMark(bytes)) return bytes;
  const parts = [...armoredBlocks(Buffer.from(bytes).toString('latin1'), type, what)];
  if (parts.length === 0) throw malformed(what, `it has no line -----BEGIN PGP ${type}-----`);
  return Buffer.concat(parts);
}

/** A UTF-8 byte order mark, as some editors put it before the text. */
function startsWithMark(bytes: Uint8Array): boolean {
  return bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf;
}

function* armoredBlocks(text: string, type: string, what: string): Generator<Uint8Array> {
  const lines = text.split('\n').map(line => line.trimEnd());
  let at = 0;
  while (at < lines.length) {
    const begin = /^(?:\u00ef\u00bb\u00bf)?-----BEGIN PGP ([A-Z ,/0-9]+)-----$/.exec(
      lines[at++] ?? '',
    );
    if (begin === null) continue;
    if (begin[1] !== type) throw malformed(what, `it is a PGP ${begin[1]}, not a ${type}`);
    while (/^[A-Za-z0-9-]+: ?/.test(lines[at] ?? '')) at += 1;
    if (lines[at] !== '') throw malformed(what, 'no empty line follows the headers of its armor');
    at += 1;
    const data: string[] = [];
    while (/^[A-Za-z0-9+/]+={0,2}$/.test(lines[at] ?? '')) data.push(lines[at++] ?? '');
    // Its check sum says nothing that a signature would not; RFC 9580, 6.1, wants it ignored.
    if (/^=[A-Za-z0-9+/]{4}$/.test(lines[at] ?? '')) at += 1;
    if (lines[at++] !== `-----END PGP ${type}-----`) {
      throw malformed(what, 'its armor is cut short or is not base64');
    }
    yield fromBase64(data.join(''), what);
  }
}

function fromBase64(text: string, what: string): Uint8Array {
  const bytes = Buffer.from(text, 'base64');
  if (text.length % 4 !== 0 || bytes.toString('base64') !== text) {
    throw malformed(what, 'its armor is not base64');
  }
  return bytes;
}

/** @param max how many packets are allowed */
export function splitPackets(bytes: Uint8Array, max: number, what: string): readonly Packet[] {
  const packets: Packet[] = [];
  for (let at = 0; at < bytes.length; ) {
    const { tag, start, end } = readHeader(bytes, at, what);
    if (packets.length === max) {
      throw new TspodError('limit', `${what}: it has more than ${max} packets`);
    }
    packets.push({ tag, body: bytes.subarray(start, end), bytes: bytes.subarray(at, end) });
    at = end;
  }
  return packets;
}

function readHeader(
  bytes: Uint8Array,
  at: number,
  what: string,
): { readonly tag: number; readonly start: number; readonly end: number } {
  const head = bytes[at] ?? 0;
  if ((head & 0x80) === 0) throw malformed(what, 'it is not OpenPGP data');
  const current = (head & 0x40) !== 0;
  const tag = current ? head & 0x3f : (head >> 2) & 0x0f;
  const lengthAt = at + 1;
  const size = current ? currentLengthSize(bytes[lengthAt] ?? 0) : legacyLengthSize(head & 3);
  if (size === undefined) throw malformed(what, 'a packet in it has no definite length');
  const start = lengthAt + size;
  if (start > bytes.length) throw malformed(what, 'it is cut short');
  const length = current
    ? currentLength(bytes.subarray(lengthAt, start))
    : bigEndian(bytes.subarray(lengthAt, start));
  if (length > bytes.length - start) throw malformed(what, 'it is cut short');
  return { tag, start, end: start + length };
}

/** RFC 9580, 4.2.2. */
function legacyLengthSize(type: number): number | undefined {
  return [1, 2, 4, undefined][type];
}

/** RFC 9580, 4.2.1. */
function currentLengthSize(first: number): number | undefined {
  if (first < 192) return 1;
  if (first < 224) return 2;
  return first === 255 ? 5 : undefined;
}

/** The value of one, two or five octets, also of a subpacket's length (5.2.3.7). */
export function currentLength(octets: Uint8Array): number {
  const [first = 0, second = 0] = octets;
  if (octets.length === 1) return first;
  if (octets.length === 2) return ((first - 192) << 8) + second + 192;
  return bigEndian(octets.subarray(1));
}

export function bigEndian(octets: Uint8Array): number {
  return octets.reduce((value, octet) => value * 256 + octet, 0);
}

export function malformed(what: string, why: string): TspodError {
  return new TspodError('protocol', `${what}: ${why}`);
}

/** Text of a stranger for a message: no control or direction characters, of a bounded length. */
export function printable(text: string): string {
  const clean = text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, ' ').trim();
  return clean.length > 200 ? `${clean.slice(0, 200)}…` : clean;
}
