/** Writes to whatever a descriptor is: a caller's pipe may be one that does not block. */
import { writeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { errnoOf } from '../../src/errors.ts';

const WAIT_MS = 2;

export async function writeAll(fd: number, chunk: Uint8Array): Promise<void> {
  for (let done = 0; done < chunk.length; ) {
    try {
      done += writeSync(fd, chunk, done, chunk.length - done);
    } catch (error) {
      if (errnoOf(error) !== 'EAGAIN') throw error;
      await sleep(WAIT_MS);
    }
  }
}
