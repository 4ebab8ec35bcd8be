/**
 * The store's locks, all flock(2): the kernel drops them when their holder dies, however it dies.
 *
 *   cas/v1/lock        shared while somebody adds to a lease or writes an image record, exclusive for the
 *                      instant in which gc decides and moves away; held for milliseconds
 *   a lease's file     exclusive, as long as the lease lives
 *   an entry of tmp    exclusive, by the one process that writes this blob or layer
 *
 * A lock on a file that gets renamed or removed says nothing unless the path still leads to the locked
 * inode: `lockEntry` checks that.
 */
import { closeSync, constants, fstatSync, lstatSync, openSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { errnoOf } from '../errors.ts';
import { native } from '../sys/native.ts';
import { type Layout, unwritable } from './layout.ts';

/** Runs `action` with the store lock. Blocks for the instant that another process holds it. */
export function withStoreLock<T>(layout: Layout, mode: 'shared' | 'exclusive', action: () => T): T {
  const fd = openLock(layout);
  try {
    native().flock(fd, mode, true);
    return action();
  } finally {
    closeSync(fd);
  }
}

function openLock(layout: Layout): number {
  const flags = constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW;
  try {
    return openSync(layout.lock, flags, 0o600);
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw unwritable(layout.dir, error);
  }
  layout.make();
  try {
    return openSync(layout.lock, flags, 0o600);
  } catch (error) {
    throw unwritable(layout.dir, error);
  }
}

/**
 * Opens and locks the entry of tmp at `path`, which `open` makes when it is not there. Undefined when
 * another process holds it, or removed it meanwhile: look again.
 */
export function lockEntry(path: string, open: () => number): number | undefined {
  const fd = open();
  try {
    if (native().flock(fd, 'exclusive', false) && leadsTo(path, fd)) return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  closeSync(fd);
  return undefined;
}

function leadsTo(path: string, fd: number): boolean {
  try {
    const there = lstatSync(path, { bigint: true });
    const held = fstatSync(fd, { bigint: true });
    return there.ino === held.ino && there.dev === held.dev;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false;
    throw error;
  }
}

/**
 * Waits for another process without blocking this one's event loop: flock(2) can't be polled, so it is
 * tried again, soon at first. Calls `onWait` once, when the wait is more than another's last moments.
 */
export class LockWait {
  readonly #onWait: (() => void) | undefined;
  readonly #signal: AbortSignal | undefined;
  #tries = 0;

  /** @param signal ends the wait, with an AbortError */
  constructor(onWait: (() => void) | undefined, signal?: AbortSignal) {
    this.#onWait = onWait;
    this.#signal = signal;
  }

  async pause(): Promise<void> {
    this.#tries++;
    if (this.#tries === 2) this.#onWait?.();
    const ms = Math.min(5 * 2 ** Math.min(this.#tries, 6), 200);
    await sleep(ms, undefined, this.#signal === undefined ? {} : { signal: this.#signal });
  }
}
