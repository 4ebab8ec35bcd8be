/**
 * Who does with an app of a running pod what is to be done: stage2's init, or the programs of a stage1 image.
 * The pod's files are the caller's; where `add` puts the pod's manifest is the implementer's, for a stage1
 * reads it.
 */
import type { Pod, PodApp } from '../../src/pod/pod.ts';
import type { RunningPod } from '../../stage1-flavors/flavor.ts';
import { byInit } from './by-init.ts';
import { byStage1 } from './by-stage1.ts';

/** With the lock of its manifest. */
export type LockedPod = RunningPod & { readonly lockFd: number };

export interface AppsBy {
  /** Whether an app's root may be an overlay, which has to be mounted inside the pod. */
  readonly mounts: boolean;
  /** The app's folders and root are there; afterwards the pod has it. @param before the pod without it */
  add(pod: Pod, app: PodApp, running: LockedPod, before: Pod): Promise<void>;
  start(pod: Pod, app: string, running: RunningPod): Promise<void>;
  /** Until it has ended. */
  stop(pod: Pod, app: string, running: RunningPod): Promise<void>;
  /** Stops it, too. Nothing of it need be there. */
  remove(pod: Pod, app: string, running: LockedPod): Promise<void>;
}

export function appsBy({ options }: Pod): AppsBy {
  return options.stage1 === undefined ? byInit : byStage1;
}
