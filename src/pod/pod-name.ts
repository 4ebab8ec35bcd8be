/**
 * Names of pods (`--pod-name`): a file `name` in the pod's folder. A name is unique among the pods that
 * neither failed nor are being removed; who claims one holds a lock for that instant, so that two can't claim the same.
 */
import { closeSync, constants, openSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { systemError, TspodError } from '../errors.ts';
import { native } from '../sys/native.ts';
import { keepsName, listPods, type PodHandle } from './lifecycle.ts';

const GRAMMAR = /^[a-z0-9][a-z0-9_.-]{0,62}$/;
/** What could be the beginning of a UUID would hide a pod from whoever types that. */
const LIKE_UUID = /^[0-9a-f]{2,8}$|^[0-9a-f]{8}-[0-9a-f-]*$/;

/** @throws TspodError 'usage' */
export function checkPodName(name: string): void {
  if (!GRAMMAR.test(name) || LIKE_UUID.test(name)) {
    throw new TspodError(
      'usage',
      `--pod-name: ${JSON.stringify(name.slice(0, 100))} can't name a pod`,
      {
        hint: 'take 1 to 63 of a-z, 0-9, "_", "." and "-", beginning with a letter or digit, unlike a UUID',
      },
    );
  }
}

/** @throws TspodError 'exists' when another pod has the name */
export function claimPodName(dataDir: string, pod: PodHandle, name: string): void {
  const lock = join(dataDir, 'pods', 'names.lock');
  let fd: number;
  try {
    fd = openSync(lock, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
  } catch (error) {
    throw systemError(`can't open ${lock}`, error);
  }
  try {
    native().flock(fd, 'exclusive', true);
    const owner = listPods(dataDir).find(other => other.name === name && keepsName(other));
    if (owner !== undefined) {
      throw new TspodError(
        'exists',
        `--pod-name: pod ${owner.uuid} has the name ${JSON.stringify(name)}`,
        {
          hint: `choose another name, or remove that pod with "rm ${name}"`,
        },
      );
    }
    writeFileSync(join(pod.dir, 'name'), name, { mode: 0o640 });
  } finally {
    closeSync(fd);
  }
}
