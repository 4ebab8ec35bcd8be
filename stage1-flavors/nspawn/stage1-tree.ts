/** Where things lie in a pod's own tree (docs/stage2-init.md), and from where on the host they come. */
import { artifact } from '../../src/sys/artifacts.ts';

/** In the pod's folder. */
export const TREE = 'stage1/rootfs';
export const INIT_PLAN = `${TREE}/rkt/init-plan`;

/** Read-only binds: a pod can't write into the host's programs. */
export const PROGRAMS: readonly { readonly inside: string; readonly source: string }[] = [
  { inside: '/init', source: artifact('stage2') },
  { inside: '/stage2', source: artifact('stage2') },
  { inside: '/launch', source: artifact('launch') },
];

/** Where the host's journal takes entries. */
export const JOURNAL_INSIDE = '/rkt/journal';

/** An app's root as the pod sees it. */
export function rootInside(app: string): string {
  return `/opt/stage2/${app}/rootfs`;
}

/** The folder of an app's plans as the pod sees it. */
export function plansInside(app: string): string {
  return `/rkt/apps/${app}`;
}
