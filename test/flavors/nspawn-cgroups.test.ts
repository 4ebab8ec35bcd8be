/** Where a pod under nspawn lives, and which limits can be kept there. The real thing: test/vm. */
import { describe, expect, it } from 'vitest';
import type { Isolator, NameValue } from '../../src/image/appc.ts';
import type { Pod } from '../../src/pod/pod.ts';
import type { CgroupView } from '../../stage1-flavors/cgroup-places.ts';
import { planCgroups } from '../../stage1-flavors/nspawn/cgroups.ts';
import { placeUnderSystemd } from '../../stage1-flavors/nspawn/host.ts';
import { assemble } from '../support/fly-pod.ts';

const ROOT = '/sys/fs/cgroup';
const UNIT = `${ROOT}/system.slice/x.service`;

function host(files: Readonly<Record<string, string>>, own = '0::/system.slice/x.service\n') {
  const view: CgroupView = {
    own,
    mounts: `31 23 0:28 / ${ROOT} rw - cgroup2 cgroup2 rw\n`,
    read: path => files[path],
  };
  return view;
}

function podWith(isolators: readonly Isolator[], annotations: readonly NameValue[] = []): Pod {
  const pod = assemble({}, { uuid: 'u' });
  const [app] = pod.apps;
  const [listed] = pod.manifest.apps;
  if (app === undefined || listed === undefined) throw new Error('no app');
  return {
    ...pod,
    apps: [{ ...app, app: { ...app.app, isolators } }],
    manifest: { ...pod.manifest, apps: [{ ...listed, annotations }] },
  };
}

const MEMORY: Isolator = { name: 'resource/memory', value: { limit: '16Mi' } };

describe('placeUnderSystemd', () => {
  it.each([
    ['0::/system.slice/web.service\n', 'unit'],
    ['0::/system.slice/web.service/leaf\n', 'unit'],
    ['0::/user.slice/user-0.slice/session-1.scope\n', 'scope'],
    ['0::/user.slice/user-0.slice/user@0.service/app.slice/run-1.scope\n', 'scope'],
    ['0::/user.slice/user-0.slice/user@0.service/app.slice/web.service\n', 'unit'],
    ['0::/init.scope\n', 'scope'],
    ['0::/\n', 'scope'],
    ['5:memory:/a\n1:name=systemd:/system.slice/web.service\n0::/\n', 'unit'],
  ])('%j is a %s', (own, place) => {
    expect(placeUnderSystemd({ own })).toBe(place);
  });
});

describe('planCgroups', () => {
  it('in a scope: what the machine has; nothing to be made', () => {
    const view = host({ [`${ROOT}/cgroup.controllers`]: 'cpu memory pids\n' });
    const { before, steps, unified, limits } = planCgroups(podWith([MEMORY]), 'scope', view);
    expect([before, steps, unified]).toEqual([[], [], true]);
    expect([...limits.values()].flat().map(({ v2 }) => v2)).toEqual([['memory.max', '16777216']]);
  });
  it('in a unit: the launcher goes to a leaf, the pod beside it', () => {
    const view = host({
      [`${UNIT}/cgroup.controllers`]: 'memory pids\n',
      [`${UNIT}/cgroup.type`]: 'domain\n',
      [`${UNIT}/cgroup.procs`]: `${process.pid}\n`,
    });
    const { before, steps } = planCgroups(podWith([MEMORY]), 'unit', view);
    expect(before).toEqual([
      ['file', '.', 'subcgroup', '0640', `${UNIT}/tspod-u\n`, 'replace'],
      ['cgroup', `${UNIT}/tspod`],
      ['cgroup-controllers', UNIT, 'memory'],
    ]);
    expect(steps).toEqual([['cgroup', `${UNIT}/tspod-u`]]);
    const { before: none, steps: stays } = planCgroups(podWith([]), 'unit', view);
    expect([none, stays]).toEqual([[], []]);
  });
  it('a limit that was asked for and can’t be kept is an error, the image’s a warning', () => {
    const hybrid = host({}, '5:memory:/\n1:name=systemd:/\n0::/\n');
    expect(() => planCgroups(podWith([MEMORY]), 'own', hybrid)).toThrow(
      'app "busybox": --memory can\'t be enforced: this machine has no cgroup v2 alone',
    );
    expect(() => planCgroups(podWith([MEMORY]), 'scope', host({}))).toThrow(
      'cgroup /sys/fs/cgroup has no memory controller',
    );
    const brought = [{ name: 'tspod/isolators-of-image', value: 'resource/cpu,resource/memory' }];
    const { warnings, limits } = planCgroups(podWith([MEMORY], brought), 'own', hybrid);
    expect(warnings).toEqual([
      'app "busybox": its image\'s isolator resource/memory is not enforced: this machine has no cgroup v2 alone',
    ]);
    expect([...limits.values()]).toEqual([[]]);
  });
});
