/**
 * What a layer's tree may take of memory. An archive of a few kilobytes can name thousands of folders that
 * it does not hold, and all of them are kept until the image is written.
 */
import { overBound } from '../bounds.ts';

/** For one layer: enough for two million files. The process that indexes has room for several such layers. */
export const MOST_MEMORY = 512 * 1024 ** 2;

/** Bytes that an inode takes with its place in its folder, measured and rounded up. */
export const INODE_BYTES = 256;
export const FOLDER_BYTES = 512;

export class Budget {
  readonly #bound: number;
  #taken = 0;

  constructor(bound = MOST_MEMORY) {
    this.#bound = bound;
  }

  /** @throws TspodError 'limit' */
  take(bytes: number): void {
    this.#taken += bytes;
    if (this.#taken > this.#bound) {
      throw overBound('archive', this.#bound, 'bytes of memory for names and attributes');
    }
  }
}
