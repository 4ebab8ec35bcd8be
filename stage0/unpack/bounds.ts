/**
 * What an archive from outside may ask of us. Every bound is far above what real images need, and one
 * that is hit ends the unpack with an error that names it (security rows 17 and 32).
 */
import { TspodError } from '../../src/errors.ts';

export interface Bounds {
  /** Headers of all kinds in one layer. */
  readonly entries: number;
  /** Bytes of the uncompressed archive. */
  readonly archiveBytes: number;
  /** Bytes of one PAX header (all of its records). */
  readonly paxBytes: number;
  /** Bytes of a name or a link's target; the kernel's PATH_MAX without its NUL. */
  readonly nameBytes: number;
  /** Extended attributes of one entry. */
  readonly xattrs: number;
  /** Bytes of one attribute's value; the kernel's XATTR_SIZE_MAX. */
  readonly xattrBytes: number;
  /** Data segments of one sparse file. */
  readonly sparseSegments: number;
  /** Uncompressed bytes per compressed byte, once `ratioFloor` bytes have come out. */
  readonly ratio: number;
  readonly ratioFloor: number;
}

export const DEFAULT_BOUNDS: Bounds = {
  entries: 4_000_000,
  archiveBytes: 256 * 1024 ** 3,
  paxBytes: 4 * 1024 ** 2,
  nameBytes: 4095,
  xattrs: 1024,
  xattrBytes: 65_536,
  sparseSegments: 1_000_000,
  ratio: 400,
  ratioFloor: 256 * 1024 ** 2,
};

/** The error of a bound that was hit: `layer <where>: more than <bound> <of what>`. */
export function overBound(where: string, bound: number, what: string): TspodError {
  return new TspodError('limit', `layer ${where}: more than the bound of ${bound} ${what}`);
}
