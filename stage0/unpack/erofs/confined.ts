/** What the processes that read a layer's archive are reduced to. */
import { closeSync, fstatSync, readdirSync, writeSync } from 'node:fs';
import { errnoOf } from '../../../src/errors.ts';
import { native } from '../../../src/sys/native.ts';

/** No way out of `root`, which becomes the process's /, and no rights; nothing but names of our own is opened there. */
export function confine(root: string): void {
  process.umask(0o077);
  for (const name of readdirSync('/proc/self/fd')) {
    const fd = Number(name);
    try {
      // A folder that tspod was started with would be a way out of the changed root.
      if (fstatSync(fd).isDirectory()) closeSync(fd);
    } catch (error) {
      if (errnoOf(error) !== 'EBADF') throw error;
    }
  }
  const { chroot, confine: reduce } = native();
  chroot(root);
  process.chdir('/');
  reduce(0n);
}

export function writeAll(fd: number, chunk: Uint8Array): void {
  for (let done = 0; done < chunk.length; ) {
    done += writeSync(fd, chunk, done, chunk.length - done);
  }
}
