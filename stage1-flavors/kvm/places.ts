/** Where things of a pod with a machine lie: on the host in the pod's folder, and in the machine below /pod. */
import { TREE } from '../nspawn/stage1-tree.ts';

/** The pod's tree as the machine's PID 1 sees it. */
export const GUEST_TREE = 'tree';

/** The plans, in the pod's folder. */
export const HOST_PLAN = 'machine-host-plan';
export const GUEST_PLAN = 'machine-plan';
export const GUEST_LAUNCH_PLAN = 'machine-launch-plan';

/** What the host serves to the machine: a folder of mounts, in the pod's folder and below /pod. */
export const SHARE = 'share';
/** In the pod's folder: the disk for what the apps write. */
export const SCRATCH = 'scratch';

/** A path below the pod's tree, in the machine. */
export function inGuest(path: string): string {
  return path.startsWith(`${TREE}/`) ? `${GUEST_TREE}${path.slice(TREE.length)}` : path;
}
