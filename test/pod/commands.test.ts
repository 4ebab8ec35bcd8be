/** The commands on pods, through the bundle: their literals, and what they make of states and ages. */
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { shell, useSandbox } from '../functional/sandbox.ts';
import { type Started, TSPOD } from '../support/tspod.ts';

const use = useSandbox();
const READER = fileURLToPath(new URL('reader.ts', import.meta.url));
const TIME = String.raw`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,3})? [+-]\d{4} \w+`;

async function prepare(...flags: readonly string[]): Promise<string> {
  const ended = await use.box.run(['prepare', ...flags, ...shell('exit 5')]);
  expect(ended).toMatchObject({ status: 0, stderr: '' });
  return ended.stdout.trim();
}

/** A pod that has ended with status 5. @returns its UUID */
async function exited(...flags: readonly string[]): Promise<string> {
  const file = join(use.box.root, `uuid-${Math.random()}`);
  const words = ['run', `--uuid-file-save=${file}`, ...flags, ...shell('exit 5')];
  expect((await use.box.run(words)).status).toBe(5);
  return readFileSync(file, 'utf8');
}

/** A pod that runs until it is stopped. @param first what the shell does before it says that it is up */
async function running(
  script = 'exec sleep 60',
  first = '',
): Promise<Started & { readonly uuid: string }> {
  const file = join(use.box.root, `uuid-${Math.random()}`);
  const words = ['run', `--uuid-file-save=${file}`, ...shell(`${first} echo up; ${script}`)];
  const pod = use.box.start(words);
  await new Promise<void>(resolve => pod.child.stdout?.once('data', () => resolve()));
  return { ...pod, uuid: readFileSync(file, 'utf8') };
}

async function stateOf(uuid: string): Promise<string | undefined> {
  const { stdout } = await use.box.run(['list', '--format=json']);
  const pods: readonly { name: string; state: string }[] = JSON.parse(stdout);
  return pods.find(pod => pod.name === uuid)?.state;
}

function placeOf(uuid: string): string | undefined {
  const pods = join(use.box.dir, 'pods');
  return readdirSync(pods).find(folder => {
    return (
      statSync(join(pods, folder)).isDirectory() && readdirSync(join(pods, folder)).includes(uuid)
    );
  });
}

describe('prepare and --uuid-file-save', () => {
  test('the UUID: a line on standard output, and a file without a line’s end', async () => {
    const file = join(use.box.root, 'uuid');
    const uuid = await prepare(`--uuid-file-save=${file}`, '--quiet');
    expect(uuid).toMatch(/^[0-9a-f-]{36}$/);
    expect(readFileSync(file, 'utf8')).toBe(uuid);
    for (const command of ['status', 'cat-manifest', 'rm'])
      expect((await use.box.run([command, `--uuid-file=${file}`])).status, command).toBe(0);
    expect(placeOf(uuid)).toBeUndefined();
  });

  test('a place where the UUID can’t be saved: no pod', async () => {
    const ended = await use.box.run(['run', '--uuid-file-save=/nowhere/x', ...shell('true')]);
    expect(ended.status).toBe(254);
    expect(ended.stderr).toMatch(/^tspod: can't save the UUID to \/nowhere\/x: [^\n]*\n$/);
    expect((await use.box.run(['list', '--no-legend'])).stdout).toBe('');
  });
});

describe('list', () => {
  test('columns, short and full', async () => {
    const uuid = await prepare('--pod-name=web');
    const short = (await use.box.run(['list'])).stdout.split('\n').map(line => line.split(/\t+/));
    expect(short[0]).toEqual([
      'UUID',
      'APP',
      'IMAGE NAME',
      'STATE',
      'CREATED',
      'STARTED',
      'NETWORKS',
    ]);
    expect(short[1]?.slice(0, 4)).toEqual([
      uuid.slice(0, 8),
      'busybox',
      expect.stringContaining('oci:'),
      'prepared',
    ]);
    const full = (await use.box.run(['list', '--full'])).stdout
      .split('\n')
      .map(line => line.split(/\t+/));
    expect(full[0]).toEqual([
      'UUID',
      'APP',
      'IMAGE NAME',
      'IMAGE ID',
      'STATE',
      'CREATED',
      'STARTED',
      'NETWORKS',
    ]);
    expect(full[1]?.slice(0, 2)).toEqual([uuid, 'busybox']);
    expect(full[1]?.[4]).toBe('prepared');
    expect(full[1]?.[5]).toMatch(new RegExp(`^${TIME}$`));
  });

  test('JSON: rkt’s keys, empty ones left out', async () => {
    const uuid = await exited('--pod-name=web', '--rm=false');
    const [pod]: readonly Record<string, unknown>[] = JSON.parse(
      (await use.box.run(['list', '--format=json'])).stdout,
    );
    expect(pod).toMatchObject({
      name: uuid,
      state: 'exited',
      app_names: ['busybox'],
      apps: [
        { name: 'busybox', state: 'exited', image_id: expect.stringMatching(/^sha(256|512)/) },
      ],
      pod_name: 'web',
    });
    expect(Number.isInteger(pod?.['created_at'])).toBe(true);
    expect(Number.isInteger(pod?.['started_at'])).toBe(true);
    expect(pod).not.toHaveProperty('networks');
    expect(pod).not.toHaveProperty('pid');
  });

  test('sorted by UUID; a damaged pod is told as far as it can be, the reason behind the table', async () => {
    const uuids = [await prepare(), await prepare(), await prepare()].sort();
    const damaged = uuids[1] ?? '';
    writeFileSync(join(use.box.dir, 'pods/prepared', damaged, 'pod'), '{');
    const listed = await use.box.run(['list', '--no-legend', '--full']);
    expect(listed.status).toBe(0);
    const lines = listed.stdout
      .trimEnd()
      .split('\n')
      .map(line => line.split(/\t+/));
    expect(lines.map(([uuid]) => uuid)).toEqual(uuids);
    expect(lines[1]?.slice(0, 5)).toEqual([damaged, '-', '-', '-', 'prepared']);
    expect(listed.stderr).toMatch(
      /^1 error\(s\) encountered when listing pods:\n-+\npod [0-9a-f-]{36}: /,
    );
    expect((await use.box.run(['status', damaged])).status).toBe(254);
    expect((await use.box.run(['cat-manifest', damaged])).stderr).toMatch(
      /^tspod: pod [0-9a-f-]{36}: its manifest is damaged; [^\n]*\n$/,
    );
    expect((await use.box.run(['run-prepared', damaged])).status).toBe(254);
    expect(await use.box.run(['rm', damaged])).toMatchObject({
      status: 0,
      stdout: `"${damaged}"\n`,
    });
  });
});

describe('status', () => {
  test('lines of a pod that is prepared, runs, has ended', async () => {
    const uuid = await prepare();
    expect((await use.box.run(['status', uuid])).stdout).toMatch(
      new RegExp(`^state=prepared\ncreated=${TIME}\n$`),
    );
    const pod = await running();
    expect((await use.box.run(['status', pod.uuid])).stdout).toMatch(
      new RegExp(
        `^state=running\ncreated=${TIME}\nstarted=${TIME}\nnetworks=\npid=${pod.pid}\nexited=false\n$`,
      ),
    );
    pod.child.kill();
    await pod.ended;
    expect((await use.box.run(['status', pod.uuid])).stdout).toMatch(
      new RegExp(`^state=exited\ncreated=${TIME}\nstarted=${TIME}\nnetworks=\nexited=true\n$`),
    );
  });

  test('the app’s status where somebody outlived it', async () => {
    const uuid = await exited(`--result=${join(use.box.root, 'r')}`);
    expect((await use.box.run(['status', uuid])).stdout).toMatch(/\nexited=true\napp-busybox=5\n$/);
  });

  test('--wait until it has ended; with a limit no longer than that', async () => {
    const pod = await running('exec sleep 60');
    const limited = await use.box.run(['status', '--wait=500ms', pod.uuid]);
    expect(limited.stdout).toMatch(/^state=running\n/);
    const waiting = use.box.start(['status', '--wait', pod.uuid]);
    let over = false;
    void waiting.ended.then(() => {
      over = true;
    });
    await new Promise(resolve => setTimeout(resolve, 300));
    expect(over).toBe(false);
    pod.child.kill();
    expect((await waiting.ended).stdout).toMatch(/^state=exited\n/);
    expect((await use.box.run(['status', '--wait=false', pod.uuid])).stdout).toMatch(
      /^state=exited\n/,
    );
  });

  test('--wait on a pod that is removed meanwhile says that it is gone', async () => {
    const uuid = await prepare();
    const waiting = use.box.start(['status', '--wait', uuid]);
    await new Promise(resolve => setTimeout(resolve, 300));
    await use.box.run(['rm', uuid]);
    const ended = await waiting.ended;
    expect(ended.status).toBe(254);
    expect(ended.stderr).toMatch(/^tspod: no matches found for /);
  });

  test('--wait-ready until the app has a process', async () => {
    const uuid = await prepare();
    const waiting = use.box.start(['status', '--wait-ready', uuid]);
    const pod = use.box.start(['run-prepared', uuid], {}, ['pipe', 'pipe', 'pipe']);
    expect((await waiting.ended).stdout).toMatch(/^state=(running|exited)\n/);
    await pod.ended;
    expect((await use.box.run(['status', '--wait-ready=200ms', await prepare()])).stdout).toMatch(
      /^state=prepared\n/,
    );
  });

  test('an app that closed the lock but lives is running, for gc and rm too', async () => {
    const pod = await running(
      'exec sleep 60',
      'for fd in 3 4 5 6 7 8 9; do eval "exec $fd>&-"; done;',
    );
    expect(readdirSync(`/proc/${pod.pid}/fd`).sort()).toEqual(['0', '1', '2']);
    expect(await stateOf(pod.uuid)).toBe('running');
    expect((await use.box.run(['rm', pod.uuid])).status).toBe(254);
    expect(await use.box.run(['gc', '--grace-period=0s'])).toMatchObject({ status: 0, stdout: '' });
    expect(await use.box.run(['stop', pod.uuid])).toMatchObject({
      status: 0,
      stdout: `"${pod.uuid}"\n`,
    });
    expect(await pod.ended).toMatchObject({ signal: 'SIGTERM' });
    expect(await stateOf(pod.uuid)).toBe('exited');
  });
});

describe('stop', () => {
  test('SIGTERM, or SIGKILL with --force; twice is no failure', async () => {
    const [polite, stubborn] = [
      await running(),
      await running('while :; do sleep 0.1; done', 'trap "" TERM;'),
    ];
    expect(await use.box.run(['stop', polite.uuid])).toMatchObject({
      status: 0,
      stdout: `"${polite.uuid}"\n`,
      stderr: '',
    });
    expect((await polite.ended).signal).toBe('SIGTERM');
    expect((await use.box.run(['stop', stubborn.uuid])).status).toBe(0);
    expect(await stateOf(stubborn.uuid)).toBe('running');
    expect((await use.box.run(['stop', '--force', stubborn.uuid])).stdout).toBe(
      `"${stubborn.uuid}"\n`,
    );
    expect((await stubborn.ended).signal).toBe('SIGKILL');
    expect(await use.box.run(['stop', polite.uuid])).toMatchObject({
      status: 0,
      stdout: `"${polite.uuid}"\n`,
      stderr: `tspod: stop: pod "${polite.uuid}" is already stopped\n`,
    });
  });

  test('of a pod that is only prepared', async () => {
    const uuid = await prepare();
    const ended = await use.box.run(['stop', uuid]);
    expect(ended.status).toBe(254);
    expect(ended.stderr).toContain(`pod "${uuid}" is prepared`);
  });
});

describe('rm', () => {
  test('what runs is refused, what does not is removed', async () => {
    const pod = await running();
    const refused = await use.box.run(['rm', pod.uuid]);
    expect(refused).toMatchObject({ status: 254, stdout: '' });
    expect(refused.stderr).toMatch(
      new RegExp(`^tspod: rm: pod "${pod.uuid}" is running; stop it first`),
    );
    expect(await stateOf(pod.uuid)).toBe('running');
    pod.child.kill('SIGKILL');
    await pod.ended;
    const prepared = await prepare();
    expect(await use.box.run(['rm', pod.uuid.slice(0, 9), prepared])).toMatchObject({
      status: 0,
      stdout: `"${pod.uuid}"\n"${prepared}"\n`,
      stderr: '',
    });
    expect((await use.box.run(['list', '--no-legend'])).stdout).toBe('');
  });

  test('what somebody mounted below is left alone: refused, by the mount point’s name', async () => {
    const uuid = await exited();
    const inside = join(use.box.dir, 'pods/run', uuid, 'a mount');
    mkdirSync(inside);
    mkdirSync(join(use.box.root, 'precious'));
    writeFileSync(join(use.box.root, 'precious/file'), 'kept');
    const words = [TSPOD, ...use.box.globalFlags].map(word => `'${word}'`).join(' ');
    const script = `mount --bind '${use.box.root}/precious' '${inside}' && { ${words} rm ${uuid}; ${words} gc --grace-period=0s; }`;
    const ended = await use.box.spawn('unshare', [
      '-m',
      '--propagation',
      'private',
      'sh',
      '-c',
      script,
    ]).ended;
    expect(ended.status).toBe(254);
    expect(ended.stderr).toContain(`${inside} is mounted there; unmount it first`);
    expect(readFileSync(join(use.box.root, 'precious/file'), 'utf8')).toBe('kept');
    // gone with that namespace
    expect(await use.box.run(['gc', '--grace-period=0s'])).toMatchObject({ status: 0 });
    expect(placeOf(uuid)).toBeUndefined();
  });
});

describe('gc', () => {
  test('an ended pod is marked, kept for the grace period, then removed', async () => {
    const uuid = await exited();
    const first = await use.box.run(['gc', '--grace-period=1h']);
    expect(first).toMatchObject({ status: 0, stdout: '' });
    expect(first.stderr).toMatch(
      new RegExp(
        `^tspod: gc: moving pod "${uuid}" to garbage\ntspod: gc: pod "${uuid}" not removed: still within grace period \\((1h0m0s|59m\\d+s)\\)\n$`,
      ),
    );
    expect(await stateOf(uuid)).toBe('exited garbage');
    expect((await use.box.run(['status', uuid])).stdout).toMatch(/^state=exited garbage\n/);
    expect(await use.box.run(['gc', '--grace-period=0s'])).toMatchObject({
      status: 0,
      stdout: `Garbage collecting pod "${uuid}"\n`,
      stderr: '',
    });
    expect(await stateOf(uuid)).toBeUndefined();
  });

  test('the age counts from the marking', async () => {
    const uuid = await exited();
    await new Promise(resolve => setTimeout(resolve, 600));
    const early = await use.box.run(['gc', '--grace-period=500ms']);
    expect(early.stdout).toBe('');
    await new Promise(resolve => setTimeout(resolve, 600));
    const late = await use.box.run(['gc', '--grace-period=500ms']);
    expect(late.stdout).toBe(`Garbage collecting pod "${uuid}"\n`);
  });

  test('--mark-only', async () => {
    const uuid = await exited();
    expect(await use.box.run(['gc', '--mark-only', '--grace-period=0s'])).toMatchObject({
      status: 0,
      stdout: '',
      stderr: `tspod: gc: moving pod "${uuid}" to garbage\n`,
    });
    expect(placeOf(uuid)).toBe('exited-garbage');
  });

  test('a prepared pod expires, and not before', async () => {
    const uuid = await prepare();
    expect(await use.box.run(['gc', '--grace-period=0s'])).toMatchObject({
      status: 0,
      stdout: '',
      stderr: '',
    });
    expect(await stateOf(uuid)).toBe('prepared');
    expect(await use.box.run(['gc', '--expire-prepared=0s'])).toMatchObject({
      status: 0,
      stdout: `Garbage collecting pod "${uuid}"\n`,
      stderr: `tspod: gc: moving expired prepared pod "${uuid}" to garbage\n`,
    });
  });

  test('a failed preparation and an abandoned embryo go at once; one that is being made does not', async () => {
    const [embryo, failed] = [
      '10000000-0000-4000-8000-000000000000',
      '20000000-0000-4000-8000-000000000000',
    ];
    for (const [folder, uuid] of [
      ['embryo', embryo],
      ['prepare', failed],
    ] as const)
      mkdirSync(join(use.box.dir, 'pods', folder, uuid), { recursive: true });
    writeFileSync(join(use.box.dir, 'pods/prepare', failed, 'lock'), '');
    const held = join(use.box.dir, 'pods/embryo/30000000-0000-4000-8000-000000000000');
    mkdirSync(held);
    const script = 'echo held; exec sleep 60';
    const maker = use.box.spawn('flock', ['-F', '-x', join(held, 'lock'), 'sh', '-c', script]);
    await new Promise<void>(resolve => maker.child.stdout?.once('data', () => resolve()));
    expect(await use.box.run(['gc'])).toMatchObject({
      status: 0,
      stdout: `Garbage collecting pod "${embryo}"\nGarbage collecting pod "${failed}"\n`,
      stderr: `tspod: gc: moving unfinished pod "${embryo}" to garbage\ntspod: gc: moving failed prepare "${failed}" to garbage\n`,
    });
    expect(readdirSync(join(use.box.dir, 'pods/embryo'))).toEqual([
      '30000000-0000-4000-8000-000000000000',
    ]);
    maker.child.kill('SIGKILL');
    await maker.ended;
  });

  test('a pod of an unknown flavor is left alone and named; the others go', async () => {
    const [strange, plain] = [await exited(), await exited()];
    const link = join(use.box.dir, 'pods/run', strange, 'flavor');
    await use.box.spawn('ln', ['-sfn', 'of-tomorrow', link]).ended;
    const ended = await use.box.run(['gc', '--grace-period=0s']);
    expect(ended.status).toBe(254);
    expect(ended.stdout).toContain(`Garbage collecting pod "${plain}"`);
    expect(ended.stderr).toContain('of-tomorrow');
    expect(ended.stderr).toMatch(/\ntspod: gc: 1 pod\(s\) could not be collected\n$/);
    expect(placeOf(strange)).toBe('exited-garbage');
    expect(placeOf(plain)).toBeUndefined();
  });

  test('a lock that is a link, a lock that is a folder, a flavor that is none: all go', async () => {
    const damages: readonly (readonly string[])[] = [
      ['ln', '-sfn', '/etc/passwd', 'lock'],
      ['ln', '-sfn', '/nowhere', 'lock'],
      ['sh', '-c', 'rm lock; mkdir lock'],
      ['sh', '-c', 'rm lock'],
      ['sh', '-c', 'rm flavor; echo fly >flavor'],
      ['sh', '-c', 'rm flavor; mkdir flavor'],
    ];
    const uuids = await Promise.all(damages.map(() => exited()));
    for (const [index, [program = '', ...args]] of damages.entries()) {
      const cwd = join(use.box.dir, 'pods/run', uuids[index] ?? '');
      await use.box.spawn(program, args, { cwd }).ended;
    }
    const ended = await use.box.run(['gc', '--grace-period=0s']);
    expect(ended.status).toBe(0);
    for (const uuid of uuids) expect(placeOf(uuid)).toBeUndefined();
    expect(statSync('/etc/passwd').size).toBeGreaterThan(0);
  });

  test('two at once', async () => {
    const uuids = await Promise.all(Array.from({ length: 6 }, () => exited()));
    const both = await Promise.all([1, 2].map(() => use.box.run(['gc', '--grace-period=0s'])));
    expect(both.map(({ status }) => status)).toEqual([0, 0]);
    await use.box.run(['gc', '--grace-period=0s']);
    for (const uuid of uuids) expect(placeOf(uuid)).toBeUndefined();
  });
});

describe('names', () => {
  test('a name stands wherever a UUID does', async () => {
    const uuid = await prepare('--pod-name=web');
    expect((await use.box.run(['status', 'web'])).stdout).toMatch(/^state=prepared/);
    expect(await use.box.run(['run-prepared', 'web'])).toMatchObject({ status: 5 });
    expect((await use.box.run(['stop', 'web'])).stdout).toBe(`"${uuid}"\n`);
    expect((await use.box.run(['rm', 'web'])).stdout).toBe(`"${uuid}"\n`);
    expect((await use.box.run(['status', 'web'])).status).toBe(254);
    await prepare('--pod-name=web');
  });

  test('20 at once: one gets it, the others are told and leave nothing', async () => {
    await use.box.run(['fetch', shell('')[0] ?? '']);
    const all = await Promise.all(
      Array.from({ length: 20 }, () =>
        use.box.run(['prepare', '--pod-name=web', ...shell('true')]),
      ),
    );
    const winners = all.filter(({ status }) => status === 0);
    expect(winners).toHaveLength(1);
    const uuid = winners[0]?.stdout.trim() ?? '';
    for (const { status, stdout, stderr } of all) {
      if (status === 0) continue;
      expect({ status, stdout }).toEqual({ status: 254, stdout: '' });
      expect(stderr).toMatch(
        new RegExp(`^tspod: --pod-name: pod ${uuid} has the name "web"; [^\n]*\n$`),
      );
    }
    const listed: readonly { name: string }[] = JSON.parse(
      (await use.box.run(['list', '--format=json'])).stdout,
    );
    expect(listed.map(({ name }) => name)).toEqual([uuid]);
  });
});

test('two that start one prepared pod: one does, the other is told', async () => {
  const uuid = await prepare();
  const both = await Promise.all([1, 2, 3].map(() => use.box.run(['run-prepared', uuid])));
  expect(both.map(({ status }) => status).sort()).toEqual([254, 254, 5]);
  for (const { status, stderr } of both)
    if (status === 254)
      expect(stderr).toMatch(
        new RegExp(`^tspod: run-prepared: pod "${uuid}" is not prepared; [^\n]*\n$`),
      );
});

test('readers of the state never keep the launcher from a prepared pod', async () => {
  const launch = join(TSPOD, '../../dist/launch');
  const uuids: string[] = [];
  for (let pod = 0; pod < 8; pod++) uuids.push(await prepare());
  const readers = Array.from({ length: 3 }, () =>
    use.box.spawn(process.execPath, [READER, use.box.dir]),
  );
  await Promise.all(
    readers.map(({ child }) => new Promise(resolve => child.stdout?.once('data', resolve))),
  );
  for (const uuid of uuids) {
    const folder = join(use.box.dir, 'pods/prepared', uuid);
    const words = ['-m', '--propagation', 'private', launch, folder];
    expect(await use.box.spawn('unshare', words).ended).toMatchObject({ status: 5, stderr: '' });
  }
  for (const reader of readers) reader.child.kill('SIGKILL');
  await Promise.all(readers.map(reader => reader.ended));
});

test('a data folder that is a link', async () => {
  mkdirSync(join(use.box.root, 'real'));
  symlinkSync('real', join(use.box.root, 'data'));
  const uuid = await exited('--rm=false');
  expect(placeOf(uuid)).toBe('run');
  expect(readdirSync(join(use.box.root, 'real/pods/run'))).toEqual([uuid]);
  expect((await use.box.run(['rm', uuid])).status).toBe(0);
});
