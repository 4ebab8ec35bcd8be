/**
 * The pod's own cgroup where no systemd gives it one: systemd-nspawn makes `payload` and `supervisor` in the
 * cgroup that it is started in, and with one of the pod's own gc knows what to remove.
 */
import { existsSync } from 'node:fs';
import type { Step } from '../../src/pod/launch-plan.ts';
import { CGROUPS_FILE, cgroupName, hostCgroups, locate } from '../cgroup-places.ts';

export function cgroupSteps(uuid: string): readonly Step[] {
  // There the pod stays in its unit's or scope's cgroup.
  if (existsSync('/run/systemd/system')) return [];
  const { own, mounts } = hostCgroups();
  const folders = own
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
    })
    .map(folder => `${folder === '/' ? '' : folder}/${cgroupName(uuid)}`);
  if (folders.length === 0) return [];
  return [
    ['file', '.', CGROUPS_FILE, '0640', `${folders.join('\n')}\n`, 'replace'],
    ...folders.map((folder): Step => ['cgroup', folder]),
  ];
}
