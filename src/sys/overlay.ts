/**
 * Whether overlayfs can hold a pod's writable layer in a folder. Node can't mount to try it out, so this
 * asks what decides in practice: the kernel has overlayfs, and the folder's file system can be an upper
 * layer (kernel documentation, filesystems/overlayfs.rst, "Upper and lower layers"). rkt decides by the
 * same list.
 */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { existingPart } from './existing.ts';
import { native } from './native.ts';

/** statfs(2) f_type of file systems that overlayfs refuses, or does badly with, as upper layer. */
const UNFIT: ReadonlyMap<number, string> = new Map([
  [0x794c7630, 'overlayfs'],
  [0x61756673, 'aufs'],
  [0x2fc12fc1, 'zfs'],
  [0x6969, 'nfs'],
  [0xf15f, 'ecryptfs'],
  [0xff534d42, 'cifs'],
  [0xfe534d42, 'smb2'],
  [0x4d44, 'vfat'],
  [0x65735546, 'fuse'],
]);

/** Why pods below `dir` can't have an overlay; undefined when they can. */
export function overlayUnavailable(dir: string): string | undefined {
  if (!kernelHasOverlay()) return 'the kernel has no overlay file system';
  const fs = UNFIT.get(native().statfsType(existingPart(dir)));
  return fs === undefined
    ? undefined
    : `${dir} lies on ${fs}, which can't be the upper layer of an overlay`;
}

function kernelHasOverlay(): boolean {
  if (listed()) return true;
  // A module that nobody has needed yet since the boot is not listed.
  spawnSync('modprobe', ['-q', 'overlay'], { stdio: 'ignore' });
  return listed();
}

function listed(): boolean {
  return /^nodev\toverlay$/m.test(readFileSync('/proc/filesystems', 'latin1'));
}
