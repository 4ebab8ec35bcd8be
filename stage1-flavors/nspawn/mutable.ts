/**
 * An app that comes into a running pod, or leaves it. Its root is put together in a mount namespace of the
 * launcher's own, as at the start of a pod; a copy of that tree is taken along into the pod's namespace. What
 * was mounted for it outside ends with the launcher.
 */
import type { Step } from '../../src/pod/launch-plan.ts';
import type { Pod, PodApp } from '../../src/pod/pod.ts';
import type { RunningPod } from '../flavor.ts';
import { appInitSteps } from './init-plan.ts';
import { appTree } from './launch-steps.ts';
import { initProcess, plansOf } from './nspawn.ts';
import { plansInside, rootInside, TREE } from './stage1-tree.ts';

const TREE_SLOT = '0';

/** The plans of an app that init is asked to `add`, by path in the pod's folder. It is started when asked for. */
export function addedPlans(pod: Pod, app: PodApp): ReadonlyMap<string, readonly Step[]> {
  return new Map([
    ...plansOf(pod, app),
    [`${TREE}${plansInside(app.name)}/init-plan`, [...appInitSteps(pod, app), ['manual']]],
  ]);
}

/** For the launcher, in the pod's folder: the app's root appears in the running pod. */
export function mountSteps(pod: Pod, app: PodApp, running: RunningPod): readonly Step[] {
  const { hold, place } = appTree(pod, app, Number(TREE_SLOT) + 1);
  return [
    ['program', pod.options.program],
    ...(pod.options.debug ? ([['debug']] satisfies Step[]) : []),
    ...hold,
    ['unshare', 'mount'],
    ['propagation', '/', 'rslave'],
    ...place,
    // Mounts in a volume on the host are seen in the pod, never the other way: as systemd-nspawn has it.
    ['propagation', app.root, 'rslave'],
    ['hold', TREE_SLOT, app.root, 'recursive'],
    ['join-namespaces', initProcess(running), 'mount'],
    ['attach', TREE_SLOT, '/', rootInside(app.name)],
    ['done'],
  ];
}

/** For the launcher: the app's root with all its volumes is gone from the running pod. */
export function unmountSteps(program: string, app: string, running: RunningPod): readonly Step[] {
  return [
    ['program', program],
    ['join-namespaces', initProcess(running), 'mount'],
    ['unmount', rootInside(app), 'if-mounted'],
    ['done'],
  ];
}
