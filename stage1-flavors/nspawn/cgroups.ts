/**
 * The pod's cgroups. systemd-nspawn makes `payload` in the pod's scope, or in the cgroup that it is started in; the
 * pod's init sees that one as /sys/fs/cgroup and gives each app a child of it, with the app's limits (cgroup v2).
 * Where no systemd gives the pod a scope, it gets a cgroup of its own, and gc knows what to remove.
 */
import { CGROUPS_FILE } from '../../src/pod/folder.ts';
import { isFromImage } from '../../src/pod/isolators.ts';
import type { Step } from '../../src/pod/launch-plan.ts';
import type { Pod, PodApp } from '../../src/pod/pod.ts';
import { type CgroupView, cgroupName, hostCgroups, locate } from '../cgroup-places.ts';
import { handDown, ownV2 } from '../cgroup-v2.ts';
import { annotationsOf, isolationOf, unsupported } from '../isolation.ts';
import { type Limit, limitsOf } from '../limits.ts';
import { hostPlace, type Place } from './host.ts';

export interface PodCgroups {
  /** For the launcher that stays, before it forks. */
  readonly before: readonly Step[];
  /** For the child that becomes systemd-nspawn. */
  readonly steps: readonly Step[];
  /** cgroup v2 alone: init has a tree of its own. */
  readonly unified: boolean;
  /** What can be enforced, by app. */
  readonly limits: ReadonlyMap<string, readonly Limit[]>;
  /** What can't be, though an image wishes it; one sentence each. */
  readonly warnings: readonly string[];
}

/** @throws TspodError 'unsupported' that names the option when a limit that was asked for can't be kept */
export function planCgroups(
  pod: Pod,
  place: Place = hostPlace(),
  host: CgroupView = hostCgroups(),
): PodCgroups {
  const unified = !/^[1-9]\d*:[^:]*:/m.test(host.own) && ownV2(host) !== undefined;
  const limits = new Map<string, readonly Limit[]>();
  const warnings: string[] = [];
  for (const app of pod.apps) {
    const kept = limitsOf(isolationOf(pod, app)).filter(limit => {
      const why = whyNot(limit, place, host, unified);
      if (why === undefined) return true;
      if (!isFromImage(annotationsOf(pod, app), limit.isolator)) throw refused(app, limit, why);
      warnings.push(
        `app "${app.name}": its image's isolator ${limit.isolator} is not enforced: ${why}`,
      );
      return false;
    });
    limits.set(app.name, kept);
  }
  const all = [...limits.values()].flat();
  return { ...placeSteps(pod.uuid, place, host, all), unified, limits, warnings };
}

function placeSteps(
  uuid: string,
  place: Place,
  host: CgroupView,
  limits: readonly Limit[],
): Pick<PodCgroups, 'before' | 'steps'> {
  if (place === 'scope') return { before: [], steps: [] };
  const own = limits.length === 0 ? undefined : ownV2(host);
  // Without limits the pod stays in its unit's cgroup as it is.
  if (place === 'unit' && own === undefined) return { before: [], steps: [] };
  const folders = (own === undefined ? ownFolders(host) : [own]).map(
    folder => `${folder === '/' ? '' : folder}/${cgroupName(uuid)}`,
  );
  if (folders.length === 0) return { before: [], steps: [] };
  return {
    before: [
      ['file', '.', CGROUPS_FILE, '0640', `${folders.join('\n')}\n`, 'replace'],
      ...(own === undefined ? [] : handDown(own, limits, host)),
    ],
    steps: folders.map((folder): Step => ['cgroup', folder]),
  };
}

/** Those in which systemd-nspawn makes cgroups. */
function ownFolders({ own, mounts }: CgroupView): readonly string[] {
  return own
    .split('\n')
    .map(line => /^\d+:([^:]*):(.*)$/.exec(line))
    .flatMap(match => {
      const [, hierarchy, path = ''] = match ?? [];
      if (hierarchy === '') return locate(mounts, path, type => type === 'cgroup2') ?? [];
      if (hierarchy !== 'name=systemd') return [];
      return (
        locate(mounts, path, (type, options) => type === 'cgroup' && options.includes(hierarchy)) ??
        []
      );
    });
}

function whyNot(
  { controller }: Limit,
  place: Place,
  host: CgroupView,
  unified: boolean,
): string | undefined {
  if (!unified) return 'this machine has no cgroup v2 alone';
  // A scope gets whatever the machine has.
  const folder =
    place === 'scope' ? locate(host.mounts, '/', type => type === 'cgroup2') : ownV2(host);
  const controllers = host.read(`${folder}/cgroup.controllers`)?.trim().split(' ') ?? [];
  if (controllers.includes(controller)) return undefined;
  return `cgroup ${folder} has no ${controller} controller`;
}

function refused(app: PodApp, { option }: Limit, why: string): Error {
  return unsupported(
    `app "${app.name}": --${option} can't be enforced: ${why}`,
    `leave --${option} out, or start the pod where systemd and cgroup v2 are`,
  );
}
