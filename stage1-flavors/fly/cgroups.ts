/**
 * Resource limits under fly: a cgroup of the pod's own below the one that the starter is in, so that what
 * bounds the starter bounds the pod too. cgroup v1 (a folder in each hierarchy that is needed) and v2
 * (cgroup-v2.ts). A limit that can't be set is an error: a pod that was asked to be bounded never runs unbounded.
 */
import type { Isolation } from '../../src/pod/isolators.ts';
import type { Step } from '../../src/pod/launch-plan.ts';
import { type CgroupView, cgroupName, hostCgroups, locate } from '../cgroup-places.ts';
import { handDown, ownV2 } from '../cgroup-v2.ts';
import { unsupported } from '../isolation.ts';
import { type Limit, limitsOf } from '../limits.ts';

export interface CgroupPlan {
  /** For whoever stays behind as the app's parent, before that one forks. */
  readonly before: readonly Step[];
  readonly steps: readonly Step[];
  /** Absolute paths of what the launcher makes and gc removes. */
  readonly folders: readonly string[];
}

/** @throws TspodError 'unsupported' that names the option and what to do */
export function planCgroups(
  uuid: string,
  isolation: Isolation,
  view: () => CgroupView = hostCgroups,
): CgroupPlan {
  const limits = limitsOf(isolation);
  if (limits.length === 0) return { before: [], steps: [], folders: [] };
  const host = view();
  const writes = new Map<string, string[]>();
  const add = (parent: string, words: readonly string[]) => {
    const folder = `${parent}/${cgroupName(uuid)}`;
    writes.set(folder, [...(writes.get(folder) ?? []), ...words]);
  };
  const inV2: Limit[] = [];
  for (const limit of limits) {
    const folder = folderOfV1(limit, host);
    if (folder === undefined) inV2.push(limit);
    else add(folder, limit.v1);
  }
  const own = inV2.length === 0 ? undefined : ownV2(host);
  const [first] = inV2;
  if (first !== undefined && own === undefined) {
    throw unsupported(
      `--${first.option}: the ${first.controller} controller is not mounted`,
      `mount a cgroup hierarchy with ${first.controller}, or leave --${first.option} out`,
    );
  }
  const before = own === undefined ? [] : handDown(own, inV2, host);
  if (own !== undefined) for (const limit of inV2) add(own, limit.v2);
  return {
    before,
    steps: [...writes].map(([folder, words]): Step => ['cgroup', folder, ...words]),
    folders: [...writes.keys()],
  };
}

function folderOfV1({ controller }: Limit, host: CgroupView): string | undefined {
  for (const line of host.own.trim().split('\n')) {
    const [, controllers = '', path = ''] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    if (!controllers.split(',').includes(controller)) continue;
    const folder = locate(
      host.mounts,
      path,
      (type, superOptions) => type === 'cgroup' && superOptions.includes(controller),
    );
    if (folder !== undefined) return folder;
  }
  return undefined;
}
