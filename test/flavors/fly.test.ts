/** fly: the contract, and what is fly's own: refusals, limits by cgroup, enter, stop, gc. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { encodePlan, type Step } from '../../src/pod/launch-plan.ts';
import type { Pod } from '../../src/pod/pod.ts';
import { artifact } from '../../src/sys/artifacts.ts';
import { fly } from '../../stage1-flavors/fly/fly.ts';
import { flavorByName } from '../../stage1-flavors/index.ts';
import { assemble, FlyHouse, type Wanted } from '../support/fly-pod.ts';
import { flavorContract } from './contract.ts';

flavorContract({
  name: 'fly',
  oneProcess: true,
  listenFds: true,
  keepsStatus: false,
  hostNetwork: true,
  copies: true,
  readsInput: true,
  limitsByV1: true,
  hostProcesses: true,
});

describe('flavorByName', () => {
  it.each([
    'fly',
    'stage1-fly',
    'coreos.com/rkt/stage1-fly:1.30.0',
    'example.com/stage1-fly',
    'coreos.com/rkt/stage1-fly',
  ])('%s', name => expect(flavorByName(name).name).toBe('fly'));
  it.each(['nspawn', 'stage1-nspawn', 'coreos.com/rkt/stage1-coreos:1.30.0'])('%s', name =>
    expect(flavorByName(name).name).toBe('nspawn'),
  );
  it.each(['kvm', 'coreos.com/rkt/stage1-kvm:1.30.0'])('%s', name =>
    expect(flavorByName(name).name).toBe('kvm'),
  );
  it.each(['bogus', '', 'toString', '__proto__'])('%s', name =>
    expect(() => flavorByName(name)).toThrow('there is no such flavor'),
  );
});

describe('what fly refuses, by name', () => {
  it.each<[string, Wanted]>([
    ['--net=none', { args: { net: 'none' } }],
    ['--net=default', { args: { net: 'default' } }],
    ['--port=80-tcp', { args: { ports: ['80-tcp:8080'] }, config: { ExposedPorts: ['80/tcp'] } }],
    ['--hostname=box', { args: { hostname: 'box' } }],
    ['--ipc=private', { args: { ipc: 'private' } }],
    ['--private-users', { args: { privateUsers: true }, overlay: false }],
    ['--mds-register', { args: { mdsRegister: true } }],
    [
      '--stdin: fly leaves the app the standard streams of its caller',
      { flags: { annotations: ['coreos.com/rkt/stage2/stdin=tty'] } },
    ],
    [
      'annotation coreos.com/rkt/stage2/other',
      { flags: { annotations: ['coreos.com/rkt/stage2/other=x'] } },
    ],
  ])('%s', (words, wanted) => {
    expect(() => fly.check(assemble(wanted))).toThrow(words);
  });
  it('isolators that it can not enforce', () => {
    const pod = assemble();
    const [app] = pod.apps;
    if (app === undefined) throw new Error('no app');
    const isolators = [{ name: 'resource/block-bandwidth', value: { limit: '1M' } }];
    const asked: Pod = { ...pod, apps: [{ ...app, app: { ...app.app, isolators } }] };
    expect(() => fly.check(asked)).toThrow('isolator resource/block-bandwidth of app "busybox"');
    expect(() => fly.check({ ...pod, apps: [app, app] })).toThrow(
      'fly only supports 1 application per Pod for now',
    );
  });
});

describe('a running pod', () => {
  let house: FlyHouse;
  beforeAll(() => {
    house = new FlyHouse();
  });
  afterAll(() => house.remove());
  const children: { child: ChildProcess; ended: Promise<unknown> }[] = [];
  afterEach(async () => {
    for (const { child, ended } of children.splice(0)) {
      child.kill('SIGKILL');
      await ended;
    }
  });

  const isolated: Wanted = {
    appArgs: ['sleep', '1000'],
    config: { User: 'ann', Env: ['COLOR=blue'] },
    flags: {
      capsRetain: ['CAP_KILL'],
      seccomp: 'mode=remove,errno=EPERM,mount',
      rlimits: ['nofile=100:200'],
      oomScoreAdj: '100',
      ...(existsSync('/sys/fs/cgroup/memory') ? { memory: '64Mi' } : {}),
    },
  };

  async function start(
    wanted: Wanted,
  ): Promise<{ child: ChildProcess; pod: Pod; dir: string; pid: number; ended: Promise<unknown> }> {
    const { dir, pod } = house.prepare(wanted);
    const child = spawn('unshare', ['-m', '--propagation', 'private', artifact('launch'), dir], {
      stdio: 'inherit',
    });
    const ended = new Promise(resolve =>
      child.on('exit', (status, signal) => resolve({ status, signal })),
    );
    children.push({ child, ended });
    while (!existsSync(join(dir, 'pid'))) {
      expect(child.exitCode).toBeNull();
      await sleep(5);
    }
    const pid = Number(readFileSync(join(dir, 'pid'), 'utf8').split(' ')[0]);
    while (!readFileSync(`/proc/${pid}/cmdline`, 'utf8').startsWith('/bin/busybox')) await sleep(5);
    return { child, pod, dir, pid, ended };
  }

  function enter(
    pod: Pod,
    dir: string,
    pid: number,
    command: readonly string[],
    environment: Record<string, string> = {},
  ) {
    const plan = fly.enter(
      pod,
      { uuid: pod.uuid, dir, pid },
      { app: 'busybox', command, environment },
    );
    const appSteps = plan.apps.get('busybox');
    if (appSteps === undefined) throw new Error('no app plan');
    const appPlan = join(dir, 'enter-app');
    writeFileSync(appPlan, encodePlan(appSteps));
    const file = join(dir, 'enter');
    const steps = plan.steps.map((step): Step => (step[0] === 'start' ? ['start', appPlan] : step));
    writeFileSync(file, encodePlan(steps));
    const fd = openSync(file, 'r');
    try {
      return spawnSync(artifact('launch'), ['--plan-fd', '3'], {
        stdio: ['ignore', 'pipe', 'pipe', fd],
        encoding: 'utf8',
        env: {},
      });
    } finally {
      closeSync(fd);
    }
  }

  it('CVE-2019-10144, -10145, -10147: who enters has the app’s user, rights, limits and cgroups', async () => {
    const { pod, dir, pid, ended } = await start(isolated);
    try {
      const lines = /^(?:Uid|Gid|Groups|Cap\w+|NoNewPrivs|Seccomp|Seccomp_filters):.*$/gm;
      const inside = enter(pod, dir, pid, ['/bin/busybox', 'sh', '-c', 'cat /proc/self/status']);
      expect(inside.stderr).toBe('');
      expect(inside.stdout.match(lines)).toEqual(
        readFileSync(`/proc/${pid}/status`, 'utf8').match(lines),
      );
      const more = enter(pod, dir, pid, [
        '/bin/busybox',
        'sh',
        '-c',
        'cat /proc/self/cgroup /proc/self/limits /proc/self/oom_score_adj; ls /proc/self/fd | wc -l',
      ]);
      const same = ['cgroup', 'limits', 'oom_score_adj']
        .map(name => readFileSync(`/proc/${pid}/${name}`, 'utf8'))
        .join('');
      expect(more.stdout.startsWith(same)).toBe(true);
      const env = enter(pod, dir, pid, ['/bin/busybox', 'env'], { TERM: 'dumb' });
      expect(env.stdout.split('\n')).toEqual(
        expect.arrayContaining(['COLOR=blue', 'TERM=dumb', 'HOME=/home/ann']),
      );
      expect(
        enter(pod, dir, pid, ['/bin/busybox', 'mount', '-t', 'tmpfs', 'x', '/work']).status,
      ).not.toBe(0);
    } finally {
      fly.stop({ uuid: pod.uuid, dir, pid }, true);
      expect(await ended).toEqual({ status: null, signal: 'SIGKILL' });
    }
    fly.gc({ uuid: pod.uuid, dir });
    fly.gc({ uuid: pod.uuid, dir });
    if (existsSync(join(dir, 'subcgroup'))) {
      for (const folder of readFileSync(join(dir, 'subcgroup'), 'utf8').trim().split('\n'))
        expect(existsSync(folder)).toBe(false);
    }
  });

  it('stop asks with SIGTERM, and leaves a process alone that has the number by now', async () => {
    const { pod, dir, pid, ended } = await start({
      appArgs: ['sh', '-c', 'trap "exit 3" TERM; while :; do sleep 0.01; done'],
    });
    const running = { uuid: pod.uuid, dir, pid };
    const text = readFileSync(join(dir, 'pid'), 'utf8');
    writeFileSync(join(dir, 'pid'), text.replace(/ [0-9]+ /, ' 1 '));
    fly.stop(running, true);
    expect(() => enter(pod, dir, pid, ['/bin/busybox', 'true'])).toThrow('its app has ended');
    writeFileSync(join(dir, 'pid'), text);
    await sleep(50);
    fly.stop(running, false);
    expect(await ended).toEqual({ status: 3, signal: null });
    fly.stop(running, true);
  });

  it('passes sockets of socket activation on, the lock behind them, and nothing else', () => {
    const { dir } = house.prepare({
      appArgs: [
        'sh',
        '-c',
        'cat <&3; echo $LISTEN_FDS $((LISTEN_PID - $$)); ls /proc/$$/fd | tr "\\n" " "',
      ],
    });
    const file = join(house.dir, 'socket');
    writeFileSync(file, 'from the socket\n');
    const fd = openSync(file, 'r');
    try {
      const { stdout, stderr } = spawnSync(
        'sh',
        [
          '-c',
          'LISTEN_PID=$$ LISTEN_FDS=1 exec unshare -m --propagation private "$0" "$1"',
          artifact('launch'),
          dir,
        ],
        { stdio: ['ignore', 'pipe', 'pipe', fd], encoding: 'utf8' },
      );
      expect(stderr).toBe('');
      expect(stdout).toBe('from the socket\n1 0\n0 1 2 3 4 ');
    } finally {
      closeSync(fd);
    }
  });

  it('a volume keeps its peer group: mounts below it reach the host, other mounts do not', () => {
    const source = join(house.dir, 'shared');
    mkdirSync(source);
    const { dir } = house.prepare({
      appArgs: [
        'sh',
        '-c',
        'mkdir /v/below && mount -t tmpfs inside /v/below && mount -t tmpfs hidden /work',
      ],
      args: { volumes: [`v,kind=host,source=${source}`], mounts: ['volume=v,target=/v'] },
    });
    const { stdout, stderr } = spawnSync(
      'unshare',
      [
        '-m',
        '--propagation',
        'private',
        'sh',
        '-c',
        'mount --bind "$2" "$2" && mount --make-shared "$2" && "$0" "$1" && cut -d" " -f5 /proc/self/mountinfo',
        artifact('launch'),
        dir,
        source,
      ],
      { encoding: 'utf8' },
    );
    expect(stderr).toBe('');
    const mounted = stdout.split('\n').filter(path => path.startsWith(house.dir));
    expect(mounted).toEqual([source, join(source, 'below')]);
  });

  it('supervised, leaves its status and runs the finish command', () => {
    const record = join(house.dir, 'finished');
    const ended = house.run({
      appArgs: ['sh', '-c', 'exit 7'],
      finish: ['/bin/sh', '-c', 'echo "$@" > "$0"', record],
    });
    expect([ended.status, ended.stderr]).toEqual([7, '']);
    expect(readFileSync(record, 'utf8')).toBe('exited 7\n');
    expect(readFileSync(join(ended.dir, 'stage1/rootfs/rkt/status/busybox'), 'utf8').trim()).toBe(
      '7',
    );
  });

  it.each(['dev', 'proc', 'sys'])(
    'CVE-2019-19921: an image whose /%s is a link is refused',
    name => {
      const evil = new FlyHouse();
      try {
        rmSync(join(evil.layer, name), { recursive: true });
        symlinkSync('/work', join(evil.layer, name));
        const ended = evil.run({ appArgs: ['true'] });
        expect(ended.status).toBe(254);
        expect(ended.stderr).toContain(name);
      } finally {
        evil.remove();
      }
    },
  );

  it('CVE-2021-30465: a mount target behind a link out of the root stays inside', () => {
    const evil = new FlyHouse();
    try {
      const outside = join(evil.dir, 'outside');
      mkdirSync(outside);
      symlinkSync(outside, join(evil.layer, 'escape'));
      const ended = evil.run({
        appArgs: ['sh', '-c', `touch /escape/x && ls ${outside}`],
        args: { volumes: ['e,kind=empty'], mounts: ['volume=e,target=/escape'] },
      });
      expect([ended.stdout, ended.stderr]).toEqual(['x\n', '']);
      expect(readdirSync(outside)).toEqual([]);
    } finally {
      evil.remove();
    }
  });

  it('gc removes no folder that is not the pod’s own cgroup', () => {
    const dir = join(house.dir, 'forged');
    const victim = join(house.dir, 'victim');
    mkdirSync(dir);
    mkdirSync(victim);
    writeFileSync(join(dir, 'subcgroup'), `${victim}\n`);
    expect(() => fly.gc({ uuid: 'u', dir })).toThrow('not its own');
    expect(existsSync(victim)).toBe(true);
  });
});
