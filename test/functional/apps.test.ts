/** Mutable pods: apps that are added, started, stopped and removed while the pod runs. */
import { chownSync, existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { busybox, writeAci } from '../images/aci-writer.ts';
import { type Ended, type Started, TSPOD } from '../support/tspod.ts';
import { fromLayout, useSandbox } from './sandbox.ts';

const use = useSandbox();

interface Pod {
  readonly uuid: string;
  readonly dir: string;
  readonly started: Started;
}

async function until<T>(look: () => T | undefined | false): Promise<T> {
  for (let tries = 0; tries < 1000; tries++) {
    const found = look();
    if (found !== undefined && found !== false) return found;
    await new Promise(resolve => setTimeout(resolve, 20));
  }
  throw new Error('it never came');
}

async function pod(words: readonly string[]): Promise<Pod> {
  const file = join(use.box.root, 'uuid');
  const started = use.box.start([
    ...words.slice(0, 2),
    `--uuid-file-save=${file}`,
    ...words.slice(2),
  ]);
  const uuid = await until(() => existsSync(file) && readFileSync(file, 'utf8'));
  const dir = join(use.box.dir, 'pods/run', uuid);
  await until(() => existsSync(join(dir, 'stage1/rootfs/rkt/control')));
  return { uuid, dir, started };
}

const sandbox = (...flags: string[]) => pod(['app', 'sandbox', '--net=none', ...flags]);

async function ok(...words: string[]): Promise<string> {
  const ended = await use.box.run(words);
  expect(ended).toMatchObject({ stderr: '', status: 0 });
  return ended.stdout;
}

async function fetched(): Promise<string> {
  await use.box.run(['fetch', fromLayout('busybox')]);
  return fromLayout('busybox');
}

async function end({ uuid, started }: Pod): Promise<Ended> {
  expect((await use.box.run(['stop', uuid])).status).toBe(0);
  const ended = await started.ended;
  expect(await use.box.run(['gc', '--grace-period=0s'])).toMatchObject({ status: 0 });
  return ended;
}

/** The host's number of the pod's init: below the launcher and systemd-nspawn. */
function pidInside({ started }: Pod): string {
  const childOf = (pid: string | number) =>
    readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
  return childOf(childOf(started.pid));
}

function states(text: string): Record<string, string> {
  const apps = JSON.parse(text) as { name: string; state: string }[];
  return Object.fromEntries(apps.map(({ name, state }) => [name, state]));
}

const LOOP = 'trap "exit 5" TERM; echo up; while :; do sleep 0.02; done';

async function log({ dir }: Pod, app: string, text: string): Promise<void> {
  const path = join(dir, `stage1/rootfs/rkt/logs/${app}.log`);
  await until(() => existsSync(path) && readFileSync(path, 'utf8').includes(text));
}

describe('a sandbox', { timeout: 60_000 }, () => {
  test('apps come, run, see each other over the loopback and a volume, and go', async () => {
    const image = await fetched();
    const box = await sandbox();
    expect(await ok('app', 'list', box.uuid)).toBe('\n');
    const host = join(use.box.root, 'shared');
    mkdirSync(host);
    chownSync(host, 77, 77);
    const volume = `--mnt-volume=name=shared,kind=host,source=${host},target=/shared`;
    const server = 'echo pong | nc -l -p 7000; sleep 1000';
    await ok('app', 'add', box.uuid, image, '--name=server', volume, '--', '-c', server);
    expect(await ok('app', 'list', box.uuid)).toMatch(/^NAME\s+STATE\nserver\s+created\n$/);
    const script =
      'id -u; hostname; until nc 127.0.0.1 7000; do sleep 0.05; done > /shared/got; exit 3';
    const mount = '--mount=volume=shared,target=/shared';
    await ok(
      'app',
      'add',
      box.uuid,
      image,
      '--name=client',
      mount,
      '--user=77',
      '--working-dir=/tmp',
      '--',
      '-c',
      script,
    );
    expect(states(await ok('app', 'list', '--format=json', box.uuid))).toEqual({
      server: 'created',
      client: 'created',
    });
    const manifest = JSON.parse(await ok('cat-manifest', box.uuid)) as { apps: { name: string }[] };
    expect(manifest.apps.map(({ name }) => name)).toEqual(['server', 'client']);
    await use.box.run(['app', 'start', box.uuid, '--app=server']);
    await use.box.run(['app', 'start', box.uuid, '--app=client']);
    const status = await until(() => {
      const path = join(box.dir, 'stage1/rootfs/rkt/status/client');
      return existsSync(path) && readFileSync(path, 'utf8');
    });
    expect(status).toBe('3');
    expect(readFileSync(join(host, 'got'), 'utf8')).toBe('pong\n');
    expect(states(await ok('app', 'list', '--format=json', box.uuid))).toEqual({
      server: 'running',
      client: 'exited',
    });
    expect(
      await ok('app', 'exec', '--app=server', box.uuid, 'ls', '/shared', '/proc/self/ns'),
    ).toContain('mnt');
    await ok('app', 'rm', box.uuid, '--app=client');
    await ok('app', 'stop', box.uuid, '--app=server');
    expect(await ok('app', 'status', box.uuid, '--app=server')).toMatch(
      /^name=server\nstate=exited\nimage_id=sha.*\ncreated_at=.*\nstarted_at=.*\nfinished_at=.*\nexit_code=\d+\nmounts=.*:\/shared:true\n/,
    );
    await ok('app', 'rm', box.uuid, '--app=server');
    expect(await ok('list', '--no-legend')).toMatch(/^\w{8}\s+-\s+-\s+running/);
    expect(readdirSync(join(box.dir, 'overlay'))).toEqual([]);
    expect(readdirSync(join(box.dir, 'appsinfo'))).toEqual([]);
    expect(readdirSync(join(box.dir, 'stage1/rootfs/opt/stage2'))).toEqual([]);
    expect((await end(box)).status).toBe(0);
  });

  test('an app is stopped and started again, and keeps its files', async () => {
    const image = await fetched();
    const box = await sandbox();
    await ok(
      'app',
      'add',
      box.uuid,
      image,
      '--name=a',
      '--',
      '-c',
      `echo x >> /count; echo up $(wc -l < /count); ${LOOP}`,
    );
    for (let round = 1; round <= 3; round++) {
      await ok('app', 'start', box.uuid, '--app=a');
      await log(box, 'a', `up ${round}`);
      expect(await ok('enter', '--app=a', box.uuid, 'cat', '/count')).toBe('x\n'.repeat(round));
      expect((await use.box.run(['app', 'start', box.uuid, '--app=a'])).stderr).toContain(
        'it is running',
      );
      await ok('app', 'stop', box.uuid, '--app=a');
      expect(
        JSON.parse(await ok('app', 'status', box.uuid, '--app=a', '--format=json')),
      ).toMatchObject({
        state: 'exited',
        exit_code: 5,
      });
    }
    await end(box);
  });

  test('one of a name only; names of volumes too; images of the store only; nothing stays of what was refused', async () => {
    const image = await fetched();
    const box = await sandbox();
    await ok('app', 'add', box.uuid, image, '--name=a', '--mnt-volume=name=v,kind=empty,target=/v');
    const refusals: [string[], RegExp][] = [
      [[image, '--name=a'], /it has an app "a"/],
      [[image, '--name=b', '--mnt-volume=name=v,kind=empty,target=/v'], /the pod has a volume "v"/],
      [[image, '--name=b', '--mnt-volume=kind=empty,target=/v'], /name or target is missing/],
      [[image, '--name=b', '--mount=volume=none,target=/v'], /none/],
      [
        [image, '--name=b', '--mnt-volume=name=w,kind=host,source=/none,target=/w'],
        /Failed to stat \/none/,
      ],
      [['docker://127.0.0.1:1/none', '--name=b'], /not in the store|store/],
      [
        [image, '--name=b', '--mnt-volume=name=w,kind=empty,target=/proc/x'],
        /nothing may be mounted/,
      ],
    ];
    for (const [words, why] of refusals) {
      const ended = await use.box.run(['app', 'add', box.uuid, ...words]);
      expect(ended.stderr).toMatch(why);
      expect(ended.status).toBe(254);
    }
    expect(readdirSync(join(box.dir, 'appsinfo'))).toEqual(['a']);
    expect(await use.box.run(['app', 'start', box.uuid, '--app=b'])).toMatchObject({
      stderr: `tspod: pod ${box.uuid}: it has no app "b"; its apps are "a"\n`,
      status: 254,
    });
    expect((await use.box.run(['app', 'list', 'ffffffff'])).status).toBe(1);
    await end(box);
  });

  test('its images are kept by image gc; an app goes from a pod that has ended', async () => {
    const image = await fetched();
    const box = await sandbox('--no-overlay');
    await ok('app', 'add', box.uuid, image, '--name=a', '--', '-c', LOOP);
    await ok('app', 'start', box.uuid, '--app=a');
    await log(box, 'a', 'up');
    await use.box.run(['image', 'gc', '--grace-period=0s']);
    expect(await ok('app', 'exec', box.uuid, 'sh', '-c', 'echo $0')).toBe('sh\n');
    expect((await use.box.run(['stop', box.uuid])).status).toBe(0);
    await box.started.ended;
    expect(
      JSON.parse(await ok('app', 'status', box.uuid, '--app=a', '--format=json')),
    ).toMatchObject({
      state: 'exited',
      exit_code: 5,
    });
    expect((await use.box.run(['app', 'start', box.uuid, '--app=a'])).stderr).toContain(
      "isn't currently running",
    );
    await ok('app', 'rm', box.uuid, '--app=a');
    expect(states(await ok('app', 'list', box.uuid, '--format=json'))).toEqual({});
    await use.box.run(['gc', '--grace-period=0s']);
  });

  test('what a killed app leaves behind in the pod is gone with it; the pod goes on when an app fails', async () => {
    const image = await fetched();
    const box = await sandbox();
    await ok('app', 'add', box.uuid, image, '--name=bad', '--exec=/none');
    await use.box.run(['app', 'start', box.uuid, '--app=bad']);
    await until(() => existsSync(join(box.dir, 'stage1/rootfs/rkt/status/bad')));
    expect(await ok('app', 'status', box.uuid, '--app=bad')).toContain('exit_code=254');
    expect(await ok('status', box.uuid)).toContain('state=running');
    await end(box);
  });

  test('an image full of links that lead out: nothing is mounted or written outside the app’s root', async () => {
    const { path } = writeAci(join(use.box.root, 'evil.aci'), 'example.com/evil', {
      rootfs: root => {
        busybox(root);
        symlinkSync('/../../../../../../../..', join(root, 'v'));
        symlinkSync('/opt', join(root, 'etc'));
        symlinkSync('/rkt', join(root, 'run'));
        symlinkSync('/proc/1/root', join(root, 'magic'));
      },
      manifest: { app: { exec: ['/bin/sh', '-c', LOOP], user: '0', group: '0' } },
    });
    await use.box.run(['fetch', path]);
    const box = await sandbox();
    const volumes = ['/v/rkt', '/run/x', '/v/opt/stage2'].map(
      (target, index) => `--mnt-volume=name=v${index},kind=empty,target=${target}`,
    );
    await ok('app', 'add', box.uuid, 'example.com/evil', '--name=a', ...volumes);
    await ok('app', 'start', box.uuid, '--app=a');
    await log(box, 'a', 'up');
    const init = pidInside(box);
    const points = readFileSync(`/proc/${init}/mountinfo`, 'utf8')
      .split('\n')
      .map(line => line.split(' ')[4] ?? '')
      .filter(point => /opt|rkt|run\/x/.test(point));
    for (const inside of ['', '/rkt', '/rkt/x', '/opt/stage2'])
      expect(points).toContain(`/opt/stage2/a/rootfs${inside}`);
    for (const point of points) expect(point).toMatch(/^\/opt\/stage2\/a\/rootfs/);
    expect(existsSync(join(box.dir, 'stage1/rootfs/opt/hosts'))).toBe(false);
    expect(existsSync(join(box.dir, 'stage1/rootfs/rkt/x'))).toBe(false);
    // through the host's own eyes, too: nothing of it is mounted here
    expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(box.uuid);
    // plain folders as long as nothing is mounted on the app's /proc
    const magic = '--mnt-volume=name=m,kind=empty,target=/magic/x';
    await ok('app', 'add', box.uuid, 'example.com/evil', '--name=b', magic);
    expect(readFileSync(`/proc/${init}/mountinfo`, 'utf8')).toContain(
      ' /opt/stage2/b/rootfs/proc/1/root/x ',
    );
    await end(box);
  });

  test('many at once: each is there', async () => {
    const image = await fetched();
    const box = await sandbox();
    const names = ['a', 'b', 'c', 'd'];
    const added = await Promise.all(
      names.map(name =>
        use.box.run(['app', 'add', box.uuid, image, `--name=${name}`, '--', '-c', LOOP]),
      ),
    );
    expect(added.map(({ status }) => status)).toEqual([0, 0, 0, 0]);
    await Promise.all(names.map(name => use.box.run(['app', 'start', box.uuid, `--app=${name}`])));
    for (const name of names) await log(box, name, 'up');
    const gone = await Promise.all(
      names.map(name => use.box.run(['app', 'rm', box.uuid, `--app=${name}`])),
    );
    expect(gone.map(({ status }) => status)).toEqual([0, 0, 0, 0]);
    expect(await ok('app', 'list', box.uuid)).toBe('\n');
    await end(box);
  });

  test.each([
    'app-add-folders',
    'app-add-written',
    'app-add-mounted',
    'app-add-told',
    'app-add-config',
  ])('app add killed at %s: the pod does not have it, and the next one works', async point => {
    const image = await fetched();
    const box = await sandbox();
    const words = [
      'app',
      'add',
      box.uuid,
      image,
      '--name=a',
      '--mnt-volume=name=v,kind=empty,target=/v',
      '--',
      '-c',
      LOOP,
    ];
    await use.box.run(words, { env: { TSPOD_FAULT: point } });
    expect(states(await ok('app', 'list', box.uuid, '--format=json'))).toEqual({});
    await ok(...words);
    await ok('app', 'start', box.uuid, '--app=a');
    await log(box, 'a', 'up');
    expect(
      await ok(
        'enter',
        box.uuid,
        'sh',
        '-c',
        'grep -c " /v " /proc/self/mountinfo; cut -d" " -f5 /proc/self/mountinfo | grep -c "^/$"',
      ),
    ).toBe('1\n1\n');
    expect((await end(box)).status).toBe(5);
  });

  test.each(['app-rm-stopped', 'app-rm-removed', 'app-rm-unmounted', 'app-rm-manifest'])(
    'app rm killed at %s: the next command works',
    async point => {
      const image = await fetched();
      const box = await sandbox();
      const words = ['app', 'add', box.uuid, image, '--name=a', '--', '-c', LOOP];
      await ok(...words);
      await ok('app', 'start', box.uuid, '--app=a');
      await use.box.run(['app', 'rm', box.uuid, '--app=a'], { env: { TSPOD_FAULT: point } });
      const left = states(await ok('app', 'list', box.uuid, '--format=json'));
      expect(left).toEqual(point === 'app-rm-manifest' ? {} : { a: 'exited' });
      if (point !== 'app-rm-manifest') await ok('app', 'rm', box.uuid, '--app=a');
      await ok(...words);
      await ok('app', 'start', box.uuid, '--app=a');
      await log(box, 'a', 'up');
      await end(box);
    },
  );
});

describe('app add and app rm killed at random instants', { timeout: 120_000 }, () => {
  test('what is there is whole or can be taken away; nothing is mounted twice', async () => {
    const image = await fetched();
    const box = await sandbox();
    const add = ['app', 'add', box.uuid, image, '--name=a', '--', '-c', LOOP];
    const remove = ['app', 'rm', box.uuid, '--app=a'];
    for (let round = 0; round < 24; round++) {
      const started = use.box.start(round % 2 === 0 ? add : remove);
      await new Promise(resolve => setTimeout(resolve, 20 + Math.random() * 150));
      started.child.kill('SIGKILL');
      await started.ended;
    }
    const there = Object.keys(states(await ok('app', 'list', box.uuid, '--format=json')));
    if (there.length > 0) await ok(...remove);
    await ok(...add);
    const inside = pidInside(box);
    const mounts = readFileSync(`/proc/${inside}/mountinfo`, 'utf8').split('\n');
    expect(mounts.filter(line => line.split(' ')[4] === '/opt/stage2/a/rootfs')).toHaveLength(1);
    await ok('app', 'start', box.uuid, '--app=a');
    await log(box, 'a', 'up');
    await ok(...remove);
    const after = readFileSync(`/proc/${inside}/mountinfo`, 'utf8');
    expect(after).not.toContain('/opt/stage2/a/rootfs');
    await end(box);
  });
});

describe('other pods', { timeout: 60_000 }, () => {
  test('nspawn: an app is stopped and started while the other goes on; none can be added', async () => {
    const image = await fetched();
    const box = await pod([
      'run',
      '--stage1-name=nspawn',
      '--net=none',
      image,
      '--name=a',
      '--',
      '-c',
      LOOP,
      '---',
      image,
      '--name=b',
      '--',
      '-c',
      LOOP,
    ]);
    await log(box, 'a', 'up');
    await ok('app', 'stop', box.uuid, '--app=a');
    expect(states(await ok('app', 'list', box.uuid, '--format=json'))).toEqual({
      a: 'exited',
      b: 'running',
    });
    await ok('app', 'start', box.uuid, '--app=a');
    expect(states(await ok('app', 'list', box.uuid, '--format=json'))).toEqual({
      a: 'running',
      b: 'running',
    });
    expect((await use.box.run(['app', 'add', box.uuid, image, '--name=c'])).stderr).toContain(
      'immutable pod',
    );
    expect((await use.box.run(['app', 'rm', box.uuid, '--app=a'])).stderr).toContain(
      'immutable pod',
    );
    await end(box);
  });

  test('fly has none of this', async () => {
    const image = await fetched();
    const file = join(use.box.root, 'uuid');
    const started = use.box.start([
      'run',
      `--uuid-file-save=${file}`,
      image,
      '--name=a',
      '--',
      '-c',
      'sleep 1000',
    ]);
    const uuid = await until(() => existsSync(file) && readFileSync(file, 'utf8'));
    await until(() => existsSync(join(use.box.dir, 'pods/run', uuid, 'pid')));
    expect((await use.box.run(['app', 'stop', uuid, '--app=a'])).stderr).toContain('flavor fly');
    expect(await ok('app', 'list', uuid)).toMatch(/a\s+running/);
    started.child.kill('SIGKILL');
    await started.ended;
    await use.box.run(['gc', '--grace-period=0s']);
  });

  test('as rkt it must be asked for', async () => {
    const rkt = join(use.box.root, 'rkt');
    symlinkSync(TSPOD, rkt);
    const words = [...use.box.globalFlags, 'app', 'list', 'ffff'];
    const refused = await use.box.spawn(rkt, words).ended;
    expect(refused.stderr).toContain('unknown command "app" for "rkt"');
    expect(refused.status).toBe(254);
    const asked = await use.box.spawn(rkt, words, { env: { RKT_EXPERIMENT_APP: 'true' } }).ended;
    expect(asked.stderr).toContain('list: no matches found for "ffff"');
    expect(asked.status).toBe(1);
  });
});
