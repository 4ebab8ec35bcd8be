/** Limits under fly: which files of which hierarchy, and what is refused where they can't be set. */
import { existsSync, readFileSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Isolation } from '../../src/pod/isolators.ts';
import type { CgroupView } from '../../stage1-flavors/cgroup-places.ts';
import { planCgroups } from '../../stage1-flavors/fly/cgroups.ts';
import { fly } from '../../stage1-flavors/fly/fly.ts';
import { FlyHouse } from '../support/fly-pod.ts';

const LIMITS: Isolation = {
  memory: 1n << 24n,
  cpuMillis: 500n,
  cpuShares: 1024,
  noNewPrivileges: false,
  rlimits: [],
  others: [],
};

const v1: CgroupView = {
  own: '4:memory:/a/b\n2:cpu,cpuacct:/\n0::/\n',
  mounts:
    '32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n' +
    '33 31 0:30 /a /sys/fs/cgroup/mem\\040ory rw - cgroup cgroup rw,memory\n',
  read: () => undefined,
};
const OWN = '/sys/fs/cgroup/system.slice/x.service';
const v2 = (files: Readonly<Record<string, string>>): CgroupView => ({
  own: '0::/system.slice/x.service\n',
  mounts: '31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n',
  read: path => (path.startsWith(`${OWN}/`) ? files[path.slice(OWN.length + 1)] : undefined),
});
const DELEGATED = {
  'cgroup.controllers': 'cpu memory pids\n',
  'cgroup.subtree_control': '',
  'cgroup.type': 'domain\n',
  'cgroup.procs': `${process.pid}\n`,
};

describe('planCgroups', () => {
  it('v1: a folder in each hierarchy, below the own cgroup as this mount shows it', () => {
    expect(planCgroups('u', LIMITS, () => v1)).toEqual({
      before: [],
      steps: [
        ['cgroup', '/sys/fs/cgroup/mem ory/b/tspod-u', 'memory.limit_in_bytes', '16777216'],
        [
          'cgroup',
          '/sys/fs/cgroup/cpu,cpuacct/tspod-u',
          'cpu.cfs_period_us',
          '100000',
          'cpu.cfs_quota_us',
          '50000',
          'cpu.shares',
          '1024',
        ],
      ],
      folders: ['/sys/fs/cgroup/mem ory/b/tspod-u', '/sys/fs/cgroup/cpu,cpuacct/tspod-u'],
    });
  });
  const V2_STEPS = [
    [
      'cgroup',
      `${OWN}/tspod-u`,
      'memory.max',
      '16777216',
      'cpu.max',
      '50000 100000',
      'cpu.weight',
      '39',
    ],
  ];
  it('v2: one folder where the own cgroup hands its controllers down', () => {
    const host = v2({ 'cgroup.subtree_control': 'cpu memory pids\n' });
    expect(planCgroups('u', LIMITS, () => host)).toEqual({
      before: [],
      steps: V2_STEPS,
      folders: [`${OWN}/tspod-u`],
    });
  });
  it('v2: a delegated cgroup is left for a leaf, then it hands them down', () => {
    expect(planCgroups('u', LIMITS, () => v2(DELEGATED))).toEqual({
      before: [
        ['cgroup', `${OWN}/tspod`],
        ['cgroup-controllers', OWN, 'memory', 'cpu'],
      ],
      steps: V2_STEPS,
      folders: [`${OWN}/tspod-u`],
    });
  });
  it('v2: the root hands down with processes in it', () => {
    const { 'cgroup.type': _, ...root } = { ...DELEGATED, 'cgroup.procs': '1\n2\n' };
    expect(planCgroups('u', LIMITS, () => v2(root)).before).toEqual([
      ['cgroup-controllers', OWN, 'memory', 'cpu'],
    ]);
  });
  it('v2 with others in the cgroup, without controllers, or no hierarchy at all: refused with what to do', () => {
    const shared = v2({ ...DELEGATED, 'cgroup.procs': `1\n${process.pid}\n` });
    expect(() => planCgroups('u', LIMITS, () => shared)).toThrow(
      "can't hand controllers down while process 1 is in it",
    );
    expect(() => planCgroups('u', LIMITS, () => v2({}))).toThrow(
      'has no memory controller to hand down',
    );
    expect(() =>
      planCgroups('u', LIMITS, () => ({ own: '0::/\n', mounts: '', read: () => undefined })),
    ).toThrow('is not mounted');
  });
  it('no limit looks at nothing', () => {
    const none: Isolation = { noNewPrivileges: false, rlimits: [], others: [] };
    expect(
      planCgroups('u', none, () => {
        throw new Error('looked');
      }),
    ).toEqual({ before: [], steps: [], folders: [] });
  });
});

describe.skipIf(!existsSync('/sys/fs/cgroup/memory/memory.limit_in_bytes'))(
  'a pod with limits on cgroup v1',
  () => {
    let house: FlyHouse;
    beforeAll(() => {
      house = new FlyHouse();
    });
    afterAll(() => house.remove());
    it('runs in its own cgroup with them, is killed beyond them, and gc removes it', () => {
      const script =
        'p=$(sed -n "s/^[0-9]*:memory://p" /proc/self/cgroup); cat "/sys/fs/cgroup/memory$p/memory.limit_in_bytes"; dd if=/dev/zero of=/dev/null bs=64M count=1 2>/dev/null; echo $?';
      const { stdout, dir, pod } = house.run({
        appArgs: ['sh', '-c', script],
        flags: { memory: '16Mi', cpu: '500m', cpuShares: '512' },
      });
      const folders = readFileSync(join(dir, 'subcgroup'), 'utf8').trim().split('\n');
      try {
        expect(folders.length).toBeGreaterThan(1);
        expect(stdout).toBe('16777216\n137\n');
        fly.gc({ uuid: pod.uuid, dir });
        for (const folder of folders) expect(existsSync(folder)).toBe(false);
      } finally {
        for (const folder of folders) if (existsSync(folder)) rmdirSync(folder);
      }
    });
  },
);
