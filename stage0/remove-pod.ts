/**
 * Taking a pod's folder away. The pod has ended and is locked by this process; nothing of it is mounted in
 * this mount namespace (a pod's mounts live and die with its own). If something is mounted below it all the
 * same, somebody put it there, and removing would remove what he mounted: that is refused.
 */
import { existsSync, lstatSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { TspodError } from '../src/errors.ts';
import { readFlavorName } from '../src/pod/folder.ts';
import type { PodHandle } from '../src/pod/lifecycle.ts';
import { removeTree } from '../src/store/remove-tree.ts';
import { faultPoint } from '../src/sys/fault.ts';
import type { Flavor } from '../stage1-flavors/flavor.ts';
import { FLAVORS, flavorOfPod } from '../stage1-flavors/index.ts';
import { tearDownNetworks } from './net/tear-down.ts';

/**
 * Undoes what the flavor left on the host, then removes the folder, and lets go of the lock. Killed
 * half-way it leaves a folder in `exited-garbage` or `garbage`, which the next gc removes.
 * @throws TspodError 'busy' when something is mounted below it, 'system' when something can't be removed
 */
export function removeLockedPod(pod: PodHandle): void {
  try {
    refuseMounts(pod.dir);
    if (pod.folder === 'run') pod.moveTo('exited-garbage');
    else if (pod.folder !== 'exited-garbage' && pod.folder !== 'garbage') pod.moveTo('garbage');
    tearDownNetworks(pod.uuid, pod.dir);
    for (const flavor of flavorsOf(pod.dir)) flavor.gc({ uuid: pod.uuid, dir: pod.dir });
    faultPoint('pod-remove');
    const [failure] = removeTree(pod.dir);
    if (failure !== undefined) {
      throw new TspodError('system', `pod ${pod.uuid}: can't remove its folder: ${failure}`, {
        hint: 'mend that and run gc again',
      });
    }
  } finally {
    pod.close();
  }
}

/** A pod that never came so far as to have a flavor has nothing on the host; one that is damaged may be any's. */
function flavorsOf(dir: string): readonly Flavor[] {
  const flavor = lstatSync(join(dir, 'flavor'), { throwIfNoEntry: false });
  if (flavor === undefined) return [];
  return flavor.isSymbolicLink() ? [flavorOfPod(readFlavorName(dir))] : FLAVORS;
}

function refuseMounts(dir: string): void {
  if (!existsSync(dir)) return;
  const below = `${dir}/`;
  for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
    // proc(5): the fifth field is the mount point, spaces and the like as octal escapes.
    const point = line
      .split(' ')[4]
      ?.replace(/\\([0-7]{3})/g, (_, octal: string) =>
        String.fromCharCode(Number.parseInt(octal, 8)),
      );
    if (point?.startsWith(below)) {
      throw new TspodError('busy', `can't remove ${dir}: ${point} is mounted there`, {
        hint: `unmount it first: umount ${point}`,
      });
    }
  }
}
