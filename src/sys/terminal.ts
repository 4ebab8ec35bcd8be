/** Terminals, without node:tty, which takes a millisecond to load. */
import { fstatSync } from 'node:fs';

/** Major numbers of terminals (kernel documentation, admin-guide/devices.txt): tty, console, and the 8 of pts. */
const MAJORS: ReadonlySet<number> = new Set([4, 5, 136, 137, 138, 139, 140, 141, 142, 143]);

/** Whether a descriptor is a terminal; false when it is closed. */
export function isTerminal(fd: number): boolean {
  try {
    const stat = fstatSync(fd);
    // The major number of a dev_t as glibc packs it; ours are below 4096.
    return stat.isCharacterDevice() && MAJORS.has((stat.rdev >> 8) & 0xfff);
  } catch {
    return false;
  }
}
