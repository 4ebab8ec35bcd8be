/**
 * xz (The .xz File Format 1.2.1), streams and padding after one another, with all of its checks. Filters other
 * than LZMA2 are refused by name, and so is a dictionary over 64 MiB, which is what `xz -9` uses: the memory
 * that an archive may ask for.
 */
import { createHash, type Hash } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { TspodError } from '../../src/errors.ts';
import { ByteSource, DamagedData } from './byte-source.ts';
import { LzmaDecoder } from './lzma.ts';

export const MAX_XZ_DICTIONARY = 64 * 1024 * 1024;

const MAGIC = Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]);
const LZMA2 = 0x21;
const FILTERS: Readonly<Record<number, string>> = {
  3: 'delta',
  4: 'x86',
  5: 'powerpc',
  6: 'ia64',
  7: 'arm',
  8: 'armthumb',
  9: 'sparc',
  10: 'arm64',
  11: 'riscv',
};
/** Of one stream's index. */
const MAX_BLOCKS = 1_000_000;

interface Block {
  readonly unpadded: number;
  readonly size: number;
}

/** @throws DamagedData, TspodError 'unsupported', 'limit' */
export async function* decodeXz(chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const source = new ByteSource(chunks);
  for (let streams = 0; ; streams += 1) {
    if (streams > 0 && (await atEnd(source))) return;
    yield* decodeStream(source);
  }
}

/** Passes over stream padding: zeros, in fours. */
async function atEnd(source: ByteSource): Promise<boolean> {
  for (;;) {
    const four = await source.peek(4);
    if (four.length === 0) return true;
    if (four.some(byte => byte !== 0)) return false;
    if (four.length < 4) throw new DamagedData('something else follows its end');
    source.skip(4);
  }
}

async function* decodeStream(source: ByteSource): AsyncGenerator<Buffer> {
  const head = await source.take(12);
  const flags = head.subarray(6, 8);
  if (!head.subarray(0, 6).equals(MAGIC)) throw new DamagedData('it has no beginning');
  if (crc32(flags) !== head.readUInt32LE(8)) throw new DamagedData('its header is damaged');
  if (flags[0] !== 0 || (flags[1] ?? 0) > 15)
    throw new DamagedData('its header is of no known kind');
  const blocks: Block[] = [];
  for (;;) {
    const [first = 0] = await source.take(1);
    if (first === 0) break;
    const header = await source.take((first + 1) * 4 - 1);
    blocks.push(
      yield* decodeBlock(source, Buffer.concat([Buffer.from([first]), header]), flags[1] ?? 0),
    );
    if (blocks.length > MAX_BLOCKS) {
      throw new TspodError('limit', `layer: its xz data has more than ${MAX_BLOCKS} blocks`);
    }
  }
  const indexSize = await checkIndex(source, blocks);
  const foot = await source.take(12);
  const fits =
    foot.toString('latin1', 10) === 'YZ' &&
    crc32(foot.subarray(4, 10)) === foot.readUInt32LE(0) &&
    (foot.readUInt32LE(4) + 1) * 4 === indexSize &&
    foot.subarray(8, 10).equals(flags);
  if (!fits) throw new DamagedData('its end is damaged');
}

async function* decodeBlock(
  source: ByteSource,
  header: Buffer,
  checkType: number,
): AsyncGenerator<Buffer, Block> {
  const { dictionary, packed, size } = readBlockHeader(header);
  const check = checkOf(checkType);
  const decoder = new LzmaDecoder(dictionary);
  const progress = { packed: 0, size: 0 };
  for await (const piece of decodeChunks(source, decoder, progress)) {
    check.update(piece);
    progress.size += piece.length;
    yield piece;
  }
  if (
    (packed ?? progress.packed) !== progress.packed ||
    (size ?? progress.size) !== progress.size
  ) {
    throw new DamagedData('a block has not the size that it says');
  }
  const padding = await source.take(-progress.packed & 3);
  if (padding.some(byte => byte !== 0)) throw new DamagedData('a block is padded wrongly');
  const stored = await source.take(check.bytes);
  if (!stored.equals(check.digest())) throw new DamagedData("a block's checksum is wrong");
  return { unpadded: header.length + progress.packed + check.bytes, size: progress.size };
}

function readBlockHeader(header: Buffer): {
  readonly dictionary: number;
  readonly packed: number | undefined;
  readonly size: number | undefined;
} {
  const end = header.length - 4;
  if (crc32(header.subarray(0, end)) !== header.readUInt32LE(end)) {
    throw new DamagedData("a block's header is damaged");
  }
  const fields = new Fields(header.subarray(0, end), 2);
  const flags = header[1] ?? 0;
  if ((flags & 0x3c) !== 0) throw new DamagedData("a block's header is of no known kind");
  const packed = flags & 0x40 ? fields.integer() : undefined;
  const size = flags & 0x80 ? fields.integer() : undefined;
  const filters: number[] = [];
  let properties: Buffer = Buffer.alloc(0);
  for (let count = (flags & 3) + 1; count > 0; count -= 1) {
    filters.push(fields.integer());
    properties = fields.bytes(fields.integer());
  }
  if (fields.rest().some(byte => byte !== 0)) throw new DamagedData("a block's header is damaged");
  const other = filters.find(id => id !== LZMA2);
  if (other !== undefined) {
    const name = FILTERS[other] ?? `number ${other}`;
    throw new TspodError(
      'unsupported',
      `layer: its xz data has the filter ${name}, and only LZMA2 is known`,
      {
        hint: 'compress it without filters for programs',
      },
    );
  }
  if (filters.length !== 1 || properties.length !== 1)
    throw new DamagedData("a block's header is damaged");
  return { dictionary: dictionarySize(properties[0] ?? 0), packed, size };
}

function dictionarySize(byte: number): number {
  if (byte > 40) throw new DamagedData("a block's header is of no known kind");
  const size = byte === 40 ? 2 ** 32 - 1 : (2 | (byte & 1)) * 2 ** ((byte >>> 1) + 11);
  if (size <= MAX_XZ_DICTIONARY) return size;
  throw new TspodError(
    'limit',
    `layer: its xz data needs a dictionary of ${size} bytes, over the limit of ${MAX_XZ_DICTIONARY}`,
    { hint: 'compress it with xz -9 or less' },
  );
}

/** "LZMA2": a control byte says what is new, sizes, data. */
async function* decodeChunks(
  source: ByteSource,
  decoder: LzmaDecoder,
  progress: { packed: number },
): AsyncGenerator<Buffer> {
  let hasDictionary = false;
  let hasProperties = false;
  for (;;) {
    const [control = 0] = await source.take(1);
    progress.packed += 1;
    if (control === 0) return;
    if (control === 1 || control >= 0xe0) {
      decoder.resetDictionary();
      hasDictionary = true;
    }
    if (!hasDictionary || (control > 2 && control < 0x80)) {
      throw new DamagedData('a chunk is of no known kind');
    }
    if (control < 0x80) {
      const size = (await source.take(2)).readUInt16BE(0) + 1;
      progress.packed += 2 + size;
      yield decoder.copy(await source.take(size));
      continue;
    }
    const sizes = await source.take(4);
    const size = ((control & 0x1f) << 16) + sizes.readUInt16BE(0) + 1;
    const packed = sizes.readUInt16BE(2) + 1;
    progress.packed += 4 + packed;
    if (control >= 0xc0) {
      const [byte = 0] = await source.take(1);
      progress.packed += 1;
      decoder.setProperties(byte);
      hasProperties = true;
    }
    if (!hasProperties) throw new DamagedData('a chunk is of no known kind');
    if (control >= 0xa0) decoder.resetState();
    yield decoder.decode(await source.take(packed), size);
  }
}

/** "Index": it has to tell of the blocks what they were. The number of its bytes. */
async function checkIndex(source: ByteSource, blocks: readonly Block[]): Promise<number> {
  const parts = [Buffer.from([0]), integer(blocks.length)];
  for (const { unpadded, size } of blocks) parts.push(integer(unpadded), integer(size));
  const plain = Buffer.concat(parts);
  const expected = Buffer.concat([plain, Buffer.alloc(-plain.length & 3)]);
  const stored = await source.take(expected.length - 1 + 4);
  const fits =
    stored.subarray(0, -4).equals(expected.subarray(1)) &&
    stored.readUInt32LE(stored.length - 4) === crc32(expected);
  if (!fits) throw new DamagedData('its index is damaged');
  return expected.length + 4;
}

/** Seven bits per byte, the lowest first. */
function integer(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  while (rest >= 0x80) {
    bytes.push((rest % 0x80) | 0x80);
    rest = Math.floor(rest / 0x80);
  }
  return Buffer.from([...bytes, rest]);
}

class Fields {
  readonly #bytes: Buffer;
  #at: number;

  constructor(bytes: Buffer, at: number) {
    this.#bytes = bytes;
    this.#at = at;
  }

  integer(): number {
    let value = 0;
    for (let scale = 1; ; scale *= 0x80) {
      const byte = this.#bytes[this.#at];
      this.#at += 1;
      if (byte === undefined || (byte === 0 && scale > 1)) break;
      value += (byte & 0x7f) * scale;
      if (!Number.isSafeInteger(value)) break;
      if (byte < 0x80) return value;
    }
    throw new DamagedData("a block's header is damaged");
  }

  bytes(count: number): Buffer {
    const found = this.#bytes.subarray(this.#at, this.#at + count);
    if (found.length < count) throw new DamagedData("a block's header is damaged");
    this.#at += count;
    return found;
  }

  rest(): Buffer {
    return this.#bytes.subarray(this.#at);
  }
}

interface Check {
  readonly bytes: number;
  update(piece: Buffer): void;
  digest(): Buffer;
}

function checkOf(type: number): Check {
  switch (type) {
    case 0:
      return { bytes: 0, update: () => undefined, digest: () => Buffer.alloc(0) };
    case 1:
      return new Crc32();
    case 4:
      return new Crc64();
    case 10:
      return new Sha256();
    default:
      throw new TspodError(
        'unsupported',
        `layer: its xz data has a checksum of the unknown type ${type}`,
      );
  }
}

class Crc32 implements Check {
  readonly bytes = 4;
  #crc = 0;

  update(piece: Buffer): void {
    this.#crc = crc32(piece, this.#crc);
  }

  digest(): Buffer {
    const out = Buffer.alloc(4);
    out.writeUInt32LE(this.#crc);
    return out;
  }
}

class Sha256 implements Check {
  readonly bytes = 32;
  readonly #hash: Hash = createHash('sha256');

  update(piece: Buffer): void {
    this.#hash.update(piece);
  }

  digest(): Buffer {
    return this.#hash.digest();
  }
}

/** ECMA-182, the lowest bit first; in two halves, because JavaScript's integers have 32 bits. */
const LOW = new Uint32Array(256);
const HIGH = new Uint32Array(256);
for (let byte = 0; byte < 256; byte += 1) {
  let low = byte;
  let high = 0;
  for (let bit = 0; bit < 8; bit += 1) {
    const odd = low & 1;
    low = ((low >>> 1) | (high << 31)) >>> 0;
    high >>>= 1;
    if (odd === 1) {
      low = (low ^ 0xd7870f42) >>> 0;
      high = (high ^ 0xc96c5795) >>> 0;
    }
  }
  LOW[byte] = low;
  HIGH[byte] = high;
}

class Crc64 implements Check {
  readonly bytes = 8;
  #low = 0xffffffff;
  #high = 0xffffffff;

  update(piece: Buffer): void {
    let low = this.#low;
    let high = this.#high;
    for (let at = 0; at < piece.length; at += 1) {
      const index = (low ^ (piece[at] ?? 0)) & 0xff;
      low = ((low >>> 8) | (high << 24)) ^ (LOW[index] ?? 0);
      high = (high >>> 8) ^ (HIGH[index] ?? 0);
    }
    this.#low = low;
    this.#high = high;
  }

  digest(): Buffer {
    const out = Buffer.alloc(8);
    out.writeUInt32LE(~this.#low >>> 0, 0);
    out.writeUInt32LE(~this.#high >>> 0, 4);
    return out;
  }
}
