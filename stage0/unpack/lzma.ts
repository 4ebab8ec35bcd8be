/**
 * LZMA as LZMA2 uses it (xz file format 1.2.1, "LZMA2"; LZMA specification, Igor Pavlov): one chunk at a time,
 * whose two sizes are known before. The window is linear: what a match may reach lies before the write position.
 */
import { DamagedData } from './byte-source.ts';

const STATES = 12;
const POS_STATES = 16;
const HALF = 1024;
const TOP = 0x1000000;
const LEN_PROBS = 2 + POS_STATES * 16 + 256;
/** An LZMA2 chunk gives at most so many bytes. */
export const MAX_CHUNK = 2 * 1024 * 1024;

export class LzmaDecoder {
  readonly #dictionary: number;
  readonly #window: Buffer;
  #position = 0;
  /** Where what matches may reach begins. */
  #begin = 0;

  #lc = 0;
  #posMask = 0;
  #literalMask = 0;
  #state = 0;
  readonly #reps = new Uint32Array(4);

  readonly #isMatch = new Uint16Array(STATES * POS_STATES);
  readonly #isRep = new Uint16Array(STATES);
  readonly #isRep0 = new Uint16Array(STATES);
  readonly #isRep1 = new Uint16Array(STATES);
  readonly #isRep2 = new Uint16Array(STATES);
  readonly #isRep0Long = new Uint16Array(STATES * POS_STATES);
  readonly #slot = new Uint16Array(4 * 64);
  readonly #special = new Uint16Array(128);
  readonly #align = new Uint16Array(16);
  readonly #length = new Uint16Array(LEN_PROBS);
  readonly #repLength = new Uint16Array(LEN_PROBS);
  /** lc + lp is at most 4 */
  readonly #literal = new Uint16Array(0x300 << 4);

  // the range decoder
  #input: Buffer = Buffer.alloc(0);
  #at = 0;
  #range = 0;
  #code = 0;

  /** @param dictionary bytes */
  constructor(dictionary: number) {
    this.#dictionary = dictionary;
    // Room for as much again, so that what lies behind is moved to the front once per window.
    this.#window = Buffer.allocUnsafeSlow(dictionary + Math.max(dictionary, MAX_CHUNK));
  }

  resetDictionary(): void {
    this.#begin = this.#position;
    this.#base = -this.#position;
  }

  /** The properties byte of a chunk. */
  setProperties(byte: number): void {
    const lc = byte % 9;
    const lp = Math.floor(byte / 9) % 5;
    const pb = Math.floor(byte / 45);
    if (pb > 4 || lc + lp > 4) throw new DamagedData('it has properties that LZMA2 has not');
    this.#lc = lc;
    this.#literalMask = (1 << lp) - 1;
    this.#posMask = (1 << pb) - 1;
  }

  resetState(): void {
    this.#state = 0;
    this.#reps.fill(0);
    for (const probs of [
      this.#isMatch,
      this.#isRep,
      this.#isRep0,
      this.#isRep1,
      this.#isRep2,
      this.#isRep0Long,
      this.#slot,
      this.#special,
      this.#align,
      this.#length,
      this.#repLength,
      this.#literal,
    ]) {
      probs.fill(HALF);
    }
  }

  /** A chunk that is not compressed. */
  copy(bytes: Buffer): Buffer {
    this.#makeRoom(bytes.length);
    bytes.copy(this.#window, this.#position);
    this.#position += bytes.length;
    return bytes;
  }

  /** The `size` bytes of a chunk, fresh. */
  decode(input: Buffer, size: number): Buffer {
    this.#makeRoom(size);
    if (input.length < 5 || input[0] !== 0) throw new DamagedData('a chunk has no beginning');
    this.#input = input;
    this.#code = input.readUInt32BE(1);
    this.#at = 5;
    this.#range = 0xffffffff;
    const start = this.#position;
    this.#run(start + size);
    this.#normalize();
    if (this.#code !== 0 || this.#at !== input.length) {
      throw new DamagedData('a chunk does not end where it should');
    }
    return Buffer.from(this.#window.subarray(start, start + size));
  }

  #makeRoom(size: number): void {
    if (this.#position + size <= this.#window.length) return;
    const kept = Math.min(this.#position - this.#begin, this.#dictionary);
    this.#window.copyWithin(0, this.#position - kept, this.#position);
    this.#begin = 0;
    // Positions count in the low bits of contexts: they keep them.
    this.#base += this.#position - kept;
    this.#position = kept;
  }

  /** What the place since the dictionary was reset is more than the position in the window. */
  #base = 0;

  #run(end: number): void {
    const window = this.#window;
    const reps = this.#reps;
    while (this.#position < end) {
      const place = this.#base + this.#position;
      const posState = place & this.#posMask;
      const state = this.#state;
      if (this.#bit(this.#isMatch, state * POS_STATES + posState) === 0) {
        this.#decodeLiteral(place);
        continue;
      }
      let length: number;
      if (this.#bit(this.#isRep, state) === 0) {
        reps[3] = reps[2] ?? 0;
        reps[2] = reps[1] ?? 0;
        reps[1] = reps[0] ?? 0;
        length = this.#decodeLength(this.#length, posState);
        this.#state = state < 7 ? 7 : 10;
        const distance = this.#decodeDistance(length);
        if (distance === 0xffffffff) throw new DamagedData('a chunk has an end mark');
        reps[0] = distance;
      } else {
        if (this.#bit(this.#isRep0, state) === 0) {
          if (this.#bit(this.#isRep0Long, state * POS_STATES + posState) === 0) {
            this.#state = state < 7 ? 9 : 11;
            const from = this.#source(reps[0] ?? 0);
            window[this.#position] = window[from] ?? 0;
            this.#position += 1;
            continue;
          }
        } else this.#rotateReps(state);
        length = this.#decodeLength(this.#repLength, posState);
        this.#state = state < 7 ? 8 : 11;
      }
      if (this.#position + length > end) throw new DamagedData('a match goes beyond its chunk');
      let from = this.#source(reps[0] ?? 0);
      let to = this.#position;
      this.#position += length;
      // Byte by byte: what is copied may be what was just written.
      while (to < this.#position) {
        window[to] = window[from] ?? 0;
        to += 1;
        from += 1;
      }
    }
  }

  #rotateReps(state: number): void {
    const reps = this.#reps;
    let distance: number;
    if (this.#bit(this.#isRep1, state) === 0) distance = reps[1] ?? 0;
    else {
      if (this.#bit(this.#isRep2, state) === 0) distance = reps[2] ?? 0;
      else {
        distance = reps[3] ?? 0;
        reps[3] = reps[2] ?? 0;
      }
      reps[2] = reps[1] ?? 0;
    }
    reps[1] = reps[0] ?? 0;
    reps[0] = distance;
  }

  /** Where a match of this distance (less one) begins. */
  #source(distance: number): number {
    const from = this.#position - distance - 1;
    if (distance >= this.#dictionary || from < this.#begin) {
      throw new DamagedData('a match begins before the data');
    }
    return from;
  }

  #decodeLiteral(place: number): void {
    const window = this.#window;
    const probs = this.#literal;
    const before = this.#position > this.#begin ? (window[this.#position - 1] ?? 0) : 0;
    const context = ((place & this.#literalMask) << this.#lc) + (before >>> (8 - this.#lc));
    const base = context * 0x300;
    let symbol = 1;
    const state = this.#state;
    if (state >= 7) {
      let match = window[this.#source(this.#reps[0] ?? 0)] ?? 0;
      let offset = 0x100;
      do {
        match <<= 1;
        const matchBit = match & offset;
        const bit = this.#bit(probs, base + offset + matchBit + symbol);
        symbol = (symbol << 1) | bit;
        offset &= bit === 0 ? ~matchBit : matchBit;
      } while (symbol < 0x100);
    } else {
      do symbol = (symbol << 1) | this.#bit(probs, base + symbol);
      while (symbol < 0x100);
    }
    window[this.#position] = symbol & 0xff;
    this.#position += 1;
    this.#state = state < 4 ? 0 : state < 10 ? state - 3 : state - 6;
  }

  #decodeLength(probs: Uint16Array, posState: number): number {
    if (this.#bit(probs, 0) === 0) return 2 + this.#tree(probs, 2 + posState * 8, 3);
    if (this.#bit(probs, 1) === 0) {
      return 10 + this.#tree(probs, 2 + POS_STATES * 8 + posState * 8, 3);
    }
    return 18 + this.#tree(probs, 2 + POS_STATES * 16, 8);
  }

  #decodeDistance(length: number): number {
    const slot = this.#tree(this.#slot, Math.min(length - 2, 3) * 64, 6);
    if (slot < 4) return slot;
    const bits = (slot >>> 1) - 1;
    const high = ((2 | (slot & 1)) << bits) >>> 0;
    if (slot < 14) return high + this.#reverseTree(this.#special, high - slot, bits);
    const middle = this.#direct(bits - 4) * 16;
    return (high + middle + this.#reverseTree(this.#align, 0, 4)) >>> 0;
  }

  // --- the range decoder

  #normalize(): void {
    if (this.#range >= TOP) return;
    const byte = this.#input[this.#at];
    if (byte === undefined) throw new DamagedData('a chunk is cut off');
    this.#at += 1;
    this.#range = (this.#range << 8) >>> 0;
    this.#code = ((this.#code << 8) | byte) >>> 0;
  }

  #bit(probs: Uint16Array, index: number): 0 | 1 {
    this.#normalize();
    const prob = probs[index] ?? 0;
    const bound = (this.#range >>> 11) * prob;
    if (this.#code < bound) {
      this.#range = bound;
      probs[index] = prob + ((2048 - prob) >>> 5);
      return 0;
    }
    this.#range -= bound;
    this.#code -= bound;
    probs[index] = prob - (prob >>> 5);
    return 1;
  }

  #direct(count: number): number {
    let value = 0;
    for (let left = count; left > 0; left -= 1) {
      this.#normalize();
      this.#range >>>= 1;
      const bit = this.#code >= this.#range ? 1 : 0;
      if (bit === 1) this.#code -= this.#range;
      value = value * 2 + bit;
    }
    return value;
  }

  #tree(probs: Uint16Array, base: number, bits: number): number {
    let symbol = 1;
    for (let left = bits; left > 0; left -= 1) {
      symbol = (symbol << 1) | this.#bit(probs, base + symbol);
    }
    return symbol - (1 << bits);
  }

  #reverseTree(probs: Uint16Array, base: number, bits: number): number {
    let symbol = 1;
    let value = 0;
    for (let at = 0; at < bits; at += 1) {
      const bit = this.#bit(probs, base + symbol);
      symbol = (symbol << 1) | bit;
      value |= bit << at;
    }
    return value;
  }
}
