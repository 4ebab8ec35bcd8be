/**
 * Leases: a fetch or a prepare names what it is about to use, and gc leaves that alone. A lease is a file
 * with one digest per line, locked by its holder; when the holder dies the kernel drops the lock and the
 * lease is void.
 *
 * The order that makes it free of races with gc: name it in the lease, then look whether it is there. Both
 * the making of a lease and each addition hold the store lock shared, gc decides and moves away under the
 * exclusive one; so either gc came first and the look finds nothing, or gc sees the lease.
 */
import { closeSync, openSync, readdirSync, readFileSync, unlinkSync, writeSync } from 'node:fs';
import { errnoOf, systemError } from '../errors.ts';
import { type Digest, isDigest } from '../image/digest.ts';
import { native } from '../sys/native.ts';
import type { Layout } from './layout.ts';
import { withStoreLock } from './locks.ts';
import type { Lease } from './types.ts';

export function openLease(
  layout: Layout,
): Pick<Lease, 'add' | 'release'> & { readonly path: string; readonly held: boolean } {
  // Unique without asking for random bytes, whose first one costs a run 0.2 ms.
  const path = `${layout.leases}/${process.pid}.${process.hrtime.bigint()}`;
  let fd: number | undefined = withStoreLock(layout, 'shared', () => {
    layout.make();
    try {
      const opened = openSync(path, 'wx', 0o600);
      native().flock(opened, 'exclusive', true);
      return opened;
    } catch (error) {
      throw systemError("store: can't make a lease", error);
    }
  });
  const named = new Set<Digest>();
  return {
    path,
    get held() {
      return fd !== undefined;
    },
    add(...digests) {
      const held = fd;
      if (held === undefined) throw new Error('the lease was released');
      const fresh = [...new Set(digests)].filter(digest => !named.has(digest));
      if (fresh.length === 0) return;
      withStoreLock(layout, 'shared', () => {
        try {
          writeSync(held, `${fresh.join('\n')}\n`);
        } catch (error) {
          throw systemError("store: can't write a lease", error);
        }
      });
      for (const digest of fresh) named.add(digest);
    },
    release() {
      if (fd === undefined) return;
      // The file first: as long as the lock is held nobody else takes it for a dead one.
      removeFile(path);
      closeSync(fd);
      fd = undefined;
    },
  };
}

/**
 * What live leases name, but for the one at `except`. Removes the files of dead ones. Call with the store lock
 * held exclusively.
 */
export function leasedDigests(layout: Layout, except?: string): Set<Digest> {
  const leased = new Set<Digest>();
  for (const name of readdirSync(layout.leases)) {
    const path = `${layout.leases}/${name}`;
    if (path === except) continue;
    let fd: number;
    try {
      fd = openSync(path, 'r');
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') continue;
      throw systemError("store: can't read a lease", error);
    }
    try {
      if (native().flock(fd, 'exclusive', false)) {
        removeFile(path);
        continue;
      }
      for (const line of readFileSync(fd, 'latin1').split('\n'))
        if (isDigest(line)) leased.add(line);
    } finally {
      closeSync(fd);
    }
  }
  return leased;
}

function removeFile(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw systemError("store: can't remove a lease", error);
  }
}
