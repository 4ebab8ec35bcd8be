/**
 * bzip2, one or several streams after one another, block by block: 4 MB of memory for tables, whatever comes.
 * Both checksums are checked. Blocks that are "randomised", which no bzip2 since 1997 writes, are refused.
 */
import { ByteSource, DamagedData } from './byte-source.ts';

/** More than any block has: 900,001 symbols of at most 20 bits, and its tables. */
const LONGEST_BLOCK = 2_400_000;
const MAX_SELECTORS = 18_002;
const GROUP = 50;
const MAX_LENGTH = 20;
const PIECE = 256 * 1024;

/** @throws DamagedData */
export async function* decodeBzip2(chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const source = new ByteSource(chunks);
  for (let streams = 0; ; streams += 1) {
    const head = await source.peek(4);
    if (streams > 0 && head.length === 0) return;
    const level = (head[3] ?? 0) - 0x30;
    if (head.length < 4 || head.toString('latin1', 0, 3) !== 'BZh' || level < 1 || level > 9) {
      throw new DamagedData(streams === 0 ? 'it is cut off' : 'something else follows its end');
    }
    source.skip(4);
    yield* decodeStream(source, level * 100_000);
  }
}

async function* decodeStream(source: ByteSource, blockSize: number): AsyncGenerator<Buffer> {
  const decoder = new BlockDecoder(blockSize);
  let bit = 0;
  let combined = 0;
  for (;;) {
    const bits = new BitReader(await source.peek(LONGEST_BLOCK), bit);
    const high = bits.read(24);
    const low = bits.read(24);
    const crc = bits.read32();
    if (high === 0x177245 && low === 0x385090) {
      if (crc !== combined) throw new DamagedData('its checksum is wrong');
      source.skip(Math.ceil(bits.position / 8));
      return;
    }
    if (high !== 0x314159 || low !== 0x265359) throw new DamagedData('a block has no beginning');
    const length = decoder.read(bits);
    source.skip(bits.position >>> 3);
    bit = bits.position & 7;
    let actual = 0xffffffff;
    for (const piece of decoder.expand(length)) {
      actual = crcOf(actual, piece);
      yield piece;
    }
    if (~actual >>> 0 !== crc) throw new DamagedData("a block's checksum is wrong");
    combined = (((combined << 1) | (combined >>> 31)) ^ crc) >>> 0;
  }
}

/** The first bit of a byte is its highest. */
class BitReader {
  readonly #bytes: Buffer;
  position: number;

  constructor(bytes: Buffer, position: number) {
    this.#bytes = bytes;
    this.position = position;
  }

  /** Up to 24 bits. */
  read(count: number): number {
    const { position } = this;
    const at = position >>> 3;
    const end = position + count;
    if (end > this.#bytes.length * 8) throw new DamagedData('it is cut off');
    const four =
      (((this.#bytes[at] ?? 0) << 24) |
        ((this.#bytes[at + 1] ?? 0) << 16) |
        ((this.#bytes[at + 2] ?? 0) << 8) |
        (this.#bytes[at + 3] ?? 0)) >>>
      0;
    this.position = end;
    return count === 0 ? 0 : ((four << (position & 7)) >>> 0) >>> (32 - count);
  }

  read32(): number {
    return ((this.read(16) << 16) | this.read(16)) >>> 0;
  }
}

/** A prefix code, as codes of each length in order. */
interface Code {
  readonly minLength: number;
  readonly maxLength: number;
  /** By length: the largest code, and what to take from a code to find its symbol in `symbols`. */
  readonly limit: Int32Array;
  readonly base: Int32Array;
  readonly symbols: Uint16Array;
}

class BlockDecoder {
  readonly #size: number;
  /** Bytes of the block in its low 8 bits, links of the transform above them. */
  readonly #links: Uint32Array;
  #start = 0;

  constructor(size: number) {
    this.#size = size;
    this.#links = new Uint32Array(size);
  }

  /** Decodes a block's symbols and turns the transform round; the number of bytes. */
  read(bits: BitReader): number {
    if (bits.read(1) === 1)
      throw new DamagedData('it has randomised blocks, as bzip2 before 0.9.5');
    const origin = bits.read(24);
    const used = readUsed(bits);
    const codeCount = bits.read(3);
    const selectorCount = bits.read(15);
    if (codeCount < 2 || codeCount > 6 || selectorCount < 1) {
      throw new DamagedData('the tables of a block are wrong');
    }
    const selectors = readSelectors(bits, selectorCount, codeCount);
    const codes = Array.from({ length: codeCount }, () => readCode(bits, used.length + 2));
    const length = this.#readSymbols(bits, used, selectors, codes);
    if (origin >= length) throw new DamagedData('the origin of a block is wrong');
    this.#invert(length, origin);
    return length;
  }

  #readSymbols(
    bits: BitReader,
    used: Uint8Array,
    selectors: Uint8Array,
    codes: readonly Code[],
  ): number {
    const links = this.#links;
    const end = used.length + 1;
    const front = Uint8Array.from(used);
    let length = 0;
    let run = 0;
    let weight = 1;
    let group = 0;
    let left = 0;
    let code: Code | undefined;
    for (;;) {
      if (left === 0) {
        const selector = selectors[group];
        if (selector === undefined) throw new DamagedData('a block is longer than its tables');
        code = codes[selector];
        group += 1;
        left = GROUP;
      }
      left -= 1;
      if (code === undefined) throw new DamagedData('the tables of a block are wrong');
      const symbol = readSymbol(bits, code);
      if (symbol <= 1) {
        // A run's length in binary, with digits 1 and 2.
        run += weight << symbol;
        weight *= 2;
        if (run > this.#size) throw new DamagedData('a block is too long');
        continue;
      }
      if (run > 0) {
        if (length + run > this.#size) throw new DamagedData('a block is too long');
        links.fill(front[0] ?? 0, length, length + run);
        length += run;
        run = 0;
        weight = 1;
      }
      if (symbol === end) return length;
      if (length === this.#size) throw new DamagedData('a block is too long');
      const index = symbol - 1;
      const byte = front[index] ?? 0;
      front.copyWithin(1, 0, index);
      front[0] = byte;
      links[length] = byte;
      length += 1;
    }
  }

  /** The Burrows-Wheeler transform, back. */
  #invert(length: number, origin: number): void {
    const links = this.#links;
    const next = new Uint32Array(256);
    for (let at = 0; at < length; at += 1) {
      const byte = (links[at] ?? 0) & 0xff;
      next[byte] = (next[byte] ?? 0) + 1;
    }
    let sum = 0;
    for (let byte = 0; byte < 256; byte += 1) {
      const count = next[byte] ?? 0;
      next[byte] = sum;
      sum += count;
    }
    for (let at = 0; at < length; at += 1) {
      const byte = (links[at] ?? 0) & 0xff;
      const to = next[byte] ?? 0;
      next[byte] = to + 1;
      links[to] = (links[to] ?? 0) | (at << 8);
    }
    this.#start = (links[origin] ?? 0) >>> 8;
  }

  /** The block's bytes, with what the first step of bzip2 makes of runs undone: four, then how many more. */
  *expand(length: number): Generator<Buffer> {
    const links = this.#links;
    let at = this.#start;
    let out = Buffer.allocUnsafe(PIECE);
    let filled = 0;
    let same = 0;
    let last = -1;
    for (let done = 0; done < length; done += 1) {
      const link = links[at] ?? 0;
      at = link >>> 8;
      const byte = link & 0xff;
      if (filled + 256 > PIECE) {
        yield out.subarray(0, filled);
        out = Buffer.allocUnsafe(PIECE);
        filled = 0;
      }
      if (same === 4) {
        out.fill(last, filled, filled + byte);
        filled += byte;
        same = 0;
        last = -1;
        continue;
      }
      same = byte === last ? same + 1 : 1;
      last = byte;
      out[filled] = byte;
      filled += 1;
    }
    if (filled > 0) yield out.subarray(0, filled);
  }
}

/** The byte values of the block, ascending. */
function readUsed(bits: BitReader): Uint8Array {
  const used: number[] = [];
  const rows = bits.read(16);
  for (let row = 0; row < 16; row += 1) {
    if (((rows >>> (15 - row)) & 1) === 0) continue;
    const columns = bits.read(16);
    for (let column = 0; column < 16; column += 1) {
      if (((columns >>> (15 - column)) & 1) === 1) used.push(row * 16 + column);
    }
  }
  if (used.length === 0) throw new DamagedData('the tables of a block are wrong');
  return Uint8Array.from(used);
}

function readSelectors(bits: BitReader, count: number, codes: number): Uint8Array {
  const selectors = new Uint8Array(Math.min(count, MAX_SELECTORS));
  const front = Uint8Array.from({ length: codes }, (_, index) => index);
  for (let at = 0; at < count; at += 1) {
    let index = 0;
    while (bits.read(1) === 1) {
      index += 1;
      if (index >= codes) throw new DamagedData('the tables of a block are wrong');
    }
    const selector = front[index] ?? 0;
    front.copyWithin(1, 0, index);
    front[0] = selector;
    // Some compressors write more than a block can need.
    if (at < selectors.length) selectors[at] = selector;
  }
  return selectors;
}

function readCode(bits: BitReader, symbols: number): Code {
  const lengths = new Uint8Array(symbols);
  let length = bits.read(5);
  for (let symbol = 0; symbol < symbols; symbol += 1) {
    for (;;) {
      if (length < 1 || length > MAX_LENGTH)
        throw new DamagedData('the tables of a block are wrong');
      if (bits.read(1) === 0) break;
      length += bits.read(1) === 0 ? 1 : -1;
    }
    lengths[symbol] = length;
  }
  return makeCode(lengths);
}

function makeCode(lengths: Uint8Array): Code {
  const limit = new Int32Array(MAX_LENGTH + 2).fill(-1);
  const base = new Int32Array(MAX_LENGTH + 2);
  const symbols = new Uint16Array(lengths.length);
  const minLength = Math.min(...lengths);
  const maxLength = Math.max(...lengths);
  let code = 0;
  let index = 0;
  for (let length = minLength; length <= maxLength; length += 1) {
    const first = index;
    for (let symbol = 0; symbol < lengths.length; symbol += 1) {
      if (lengths[symbol] === length) {
        symbols[index] = symbol;
        index += 1;
      }
    }
    base[length] = code - first;
    code += index - first;
    limit[length] = code - 1;
    code *= 2;
  }
  return { minLength, maxLength, limit, base, symbols };
}

function readSymbol(bits: BitReader, code: Code): number {
  let length = code.minLength;
  let value = bits.read(length);
  while (value > (code.limit[length] ?? -1)) {
    if (length === code.maxLength) throw new DamagedData('it has a code that means nothing');
    value = value * 2 + bits.read(1);
    length += 1;
  }
  const symbol = code.symbols[value - (code.base[length] ?? 0)];
  if (symbol === undefined) throw new DamagedData('it has a code that means nothing');
  return symbol;
}

/** CRC-32 with the highest bit first, unlike zlib's. */
const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte << 24;
  for (let bit = 0; bit < 8; bit += 1) crc = crc < 0 ? (crc << 1) ^ 0x04c11db7 : crc << 1;
  return crc >>> 0;
});

function crcOf(start: number, bytes: Buffer): number {
  let crc = start;
  for (let at = 0; at < bytes.length; at += 1) {
    crc = (crc << 8) ^ (CRC_TABLE[(crc >>> 24) ^ (bytes[at] ?? 0)] ?? 0);
  }
  return crc;
}
