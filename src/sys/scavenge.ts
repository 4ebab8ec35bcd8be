/**
 * Keeps a stream's garbage small. V8 decides about a collection by the size of a Buffer's wrapper, not of
 * what it holds, so a stream of 64 KiB buffers piles up a hundred megabytes before one is due.
 */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/** After so many bytes of buffers the young generation is collected, which takes a millisecond. */
const EVERY_BYTES = 4 * 1024 * 1024;

let collect: unknown;
let since = 0;

/** To be called with the length of every buffer of a stream that was used up. */
export function usedUp(bytes: number): void {
  since += bytes;
  if (since < EVERY_BYTES) return;
  since = 0;
  if (collect === undefined) {
    setFlagsFromString('--expose-gc');
    collect = runInNewContext('gc');
  }
  if (typeof collect === 'function') collect({ type: 'minor' });
}
