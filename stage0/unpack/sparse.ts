/**
 * Sparse maps: which pieces of a file the archive carries, everything between them being holes. The
 * formats are GNU tar's ("Storing Sparse Files"): old GNU in the header and its extension blocks, PAX
 * 0.0 in repeated records, 0.1 in one record, 1.0 as decimal lines in front of the data.
 */
import { type Bounds, overBound } from './bounds.ts';
import { FieldError, numberField, paxNumber } from './tar-fields.ts';

/** offset, length, offset, length, … in bytes */
export type SparseMap = number[];

/**
 * Adds the `count` map entries that a header (at 386) or an extension block (at 0) holds.
 * @returns whether an extension block follows
 */
export function readOldGnu(
  block: Buffer,
  start: number,
  count: number,
  into: SparseMap,
  bounds: Bounds,
  where: string,
): boolean {
  for (let at = start; at < start + count * 24; at += 24) {
    if (block[at] === 0 && block[at + 12] === 0) break;
    if (into.length >= bounds.sparseSegments * 2) {
      throw overBound(where, bounds.sparseSegments, 'segments of a sparse file');
    }
    into.push(numberField(block, at, 12, 'a sparse offset'));
    into.push(numberField(block, at + 12, 12, 'a sparse length'));
  }
  const flag = block[start + count * 24] ?? 0;
  return flag !== 0 && flag !== 0x30;
}

/** GNU.sparse.map: `offset,length,offset,length,…` */
export function readMap01(value: Buffer, bounds: Bounds, where: string): SparseMap {
  if (value.length === 0) return [];
  const map: SparseMap = [];
  let at = 0;
  while (at <= value.length) {
    const comma = value.indexOf(0x2c, at);
    const end = comma < 0 ? value.length : comma;
    if (map.length >= bounds.sparseSegments * 2) {
      throw overBound(where, bounds.sparseSegments, 'segments of a sparse file');
    }
    map.push(paxNumber(value.subarray(at, end), 'GNU.sparse.map'));
    at = end + 1;
  }
  return map;
}

/** The map of format 1.0: the number of segments, then offset and length of each, one per line. */
export class Map10 {
  readonly map: SparseMap = [];
  #segments = -1;
  #value = 0;
  #digits = 0;
  readonly #bounds: Bounds;
  readonly #where: string;

  constructor(bounds: Bounds, where: string) {
    this.#bounds = bounds;
    this.#where = where;
  }

  /** Takes one block. @returns whether the map is complete */
  block(block: Buffer): boolean {
    for (const byte of block) {
      if (byte === 0x0a) {
        if (this.#digits === 0) throw new FieldError('the sparse map has an empty line');
        if (this.#line()) return true;
      } else {
        this.#digit(byte - 0x30);
      }
    }
    return false;
  }

  #digit(digit: number): void {
    this.#digits += 1;
    if (digit < 0 || digit > 9 || this.#digits > 16) {
      throw new FieldError('the sparse map is not a list of numbers');
    }
    this.#value = this.#value * 10 + digit;
    if (!Number.isSafeInteger(this.#value)) throw new FieldError('a sparse map entry is too large');
  }

  #line(): boolean {
    const value = this.#value;
    this.#value = 0;
    this.#digits = 0;
    if (this.#segments >= 0) {
      this.map.push(value);
    } else {
      if (value > this.#bounds.sparseSegments) {
        throw overBound(this.#where, this.#bounds.sparseSegments, 'segments of a sparse file');
      }
      this.#segments = value;
    }
    return this.map.length === this.#segments * 2;
  }
}

/**
 * Checks that segments ascend without overlap inside `size` and sum up to what the archive carries.
 * @throws FieldError
 */
export function checkSparse(map: readonly number[], size: number, stored: number): void {
  if (map.length % 2 !== 0) throw new FieldError('the sparse map is cut off');
  let end = 0;
  let sum = 0;
  for (let at = 0; at < map.length; at += 2) {
    const offset = map[at] ?? 0;
    const length = map[at + 1] ?? 0;
    if (offset < end || offset + length > size) {
      throw new FieldError('the sparse map overlaps itself or leaves the file');
    }
    end = offset + length;
    sum += length;
  }
  if (sum !== stored) throw new FieldError('the sparse map does not fit the data that is stored');
}
