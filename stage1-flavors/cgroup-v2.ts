/**
 * cgroup v2: limits for children of the starter's own cgroup. A cgroup that hands controllers down may hold no
 * process but the root (Documentation/admin-guide/cgroup-v2.rst, "No Internal Process Constraint"), so the starter
 * first moves to a leaf beside the pods; that is right where the cgroup was delegated to it and holds nobody else.
 */
import type { Step } from '../src/pod/launch-plan.ts';
import { type CgroupView, locate } from './cgroup-places.ts';
import { unsupported } from './isolation.ts';
import type { Limit } from './limits.ts';

/** Beside the pods' own cgroups; for who starts and watches them. */
const LAUNCHERS = 'tspod';

/** Where the own cgroup lies; undefined without cgroup v2. */
export function ownV2({ own, mounts }: CgroupView): string | undefined {
  const path = /^0::(.*)$/m.exec(own)?.[1];
  return path === undefined ? undefined : locate(mounts, path, type => type === 'cgroup2');
}

/**
 * Steps after which a child of `own` can have the limits.
 * @throws TspodError 'unsupported' that names the option and what to do
 */
export function handDown(own: string, limits: readonly Limit[], host: CgroupView): readonly Step[] {
  const words = (name: string) => host.read(`${own}/${name}`)?.trim().split(/\s+/) ?? [];
  const handedDown = words('cgroup.subtree_control');
  const missing = limits.filter(({ controller }) => !handedDown.includes(controller));
  if (missing.length === 0) return [];
  const available = words('cgroup.controllers');
  for (const { controller, option } of missing) {
    if (available.includes(controller)) continue;
    throw unsupported(
      `--${option}: cgroup ${own} has no ${controller} controller to hand down`,
      'start the pod in a systemd unit or scope with Delegate=yes',
    );
  }
  const controllers = [...new Set(missing.map(({ controller }) => controller))];
  const order: Step = ['cgroup-controllers', own, ...controllers];
  // The root, which alone may hold processes and hand controllers down, has no type.
  if (host.read(`${own}/cgroup.type`) === undefined) return [order];
  const others = words('cgroup.procs').filter(pid => pid !== String(process.pid));
  if (others.length > 0) {
    throw unsupported(
      `--${missing[0]?.option}: cgroup ${own} can't hand controllers down while process ${others[0]} is in it`,
      'start the pod by itself in a systemd unit with Delegate=yes, for instance with systemd-run --scope -p Delegate=yes',
    );
  }
  return [['cgroup', `${own}/${LAUNCHERS}`], order];
}
