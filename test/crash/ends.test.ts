/** `--result` and `--rm` in every way that a run can end; and that the parent which they need stands in nobody's way. */
import { randomBytes } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { processStat } from '../../src/sys/process.ts';
import { fromLayout, shell, useSandbox } from '../functional/sandbox.ts';
import { type Ended, type Started, TSPOD } from '../support/tspod.ts';

const use = useSandbox();

function file(): string {
  return join(use.box.root, 'result.json');
}

function record(): unknown {
  const text = readFileSync(file(), 'utf8');
  expect(text).toMatch(/^[^\n]+\n$/);
  return JSON.parse(text);
}

function run(...words: readonly string[]): Promise<Ended> {
  return use.box.run(['run', '--rm', `--result=${file()}`, ...words]);
}

/** @param first what the shell does before it says that it is up */
async function started(script: string, first = ''): Promise<Started> {
  const pod = use.box.start([
    'run',
    '--rm',
    `--result=${file()}`,
    ...shell(`${first} echo up; ${script}`),
  ]);
  await new Promise<void>(resolve => pod.child.stdout?.once('data', () => resolve()));
  return pod;
}

/** No pod, no file beside the record. */
async function nothingLeft(): Promise<void> {
  expect(await use.box.run(['list', '--no-legend'])).toMatchObject({ stdout: '', stderr: '' });
  expect(readdirSync(use.box.root).filter(name => name.startsWith('.tspod'))).toEqual([]);
}

const TIME = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
const DIGEST = expect.stringMatching(/^sha256:[0-9a-f]{64}$/);

describe('--result and --rm', () => {
  test.each([0, 3, 254, 255])('exit %i', async code => {
    expect(await run(...shell(`echo out; exit ${code}`))).toMatchObject({
      status: code,
      stdout: 'out\n',
      stderr: '',
    });
    expect(record()).toEqual({
      version: 1,
      uuid: expect.stringMatching(/^[0-9a-f-]{36}$/),
      name: null,
      flavor: 'fly',
      reason: 'exited',
      exitCode: code,
      signal: null,
      error: null,
      apps: [
        {
          name: 'busybox',
          exitCode: code,
          oomKilled: false,
          image: { name: expect.stringContaining('busybox'), id: DIGEST, manifestDigest: DIGEST },
        },
      ],
      createdAt: TIME,
      startedAt: TIME,
      finishedAt: TIME,
    });
    await nothingLeft();
  });

  test.each(['SIGKILL', 'SIGTERM', 'SIGSEGV', 'SIGHUP'] as const)(
    'the app kills itself with %s',
    async signal => {
      expect(await run(...shell(`kill -${signal.slice(3)} $$`))).toMatchObject({
        signal,
        status: null,
      });
      expect(record()).toMatchObject({
        reason: 'signaled',
        exitCode: null,
        signal,
        apps: [{ exitCode: expect.any(Number) }],
      });
      await nothingLeft();
    },
  );

  test.each(['SIGTERM', 'SIGINT', 'SIGUSR1'] as const)('%s from outside', async signal => {
    const pod = await started('exec sleep 60');
    pod.child.kill(signal);
    expect(await pod.ended).toMatchObject({ signal });
    expect(record()).toMatchObject({ reason: 'signaled', signal });
    await nothingLeft();
  });

  test('stop and stop --force reach the app, not its parent', async () => {
    for (const [flags, signal] of [
      [[], 'SIGTERM'],
      [['--force'], 'SIGKILL'],
    ] as const) {
      const pod = await started('exec sleep 60');
      const listed: readonly { name: string }[] = JSON.parse(
        (await use.box.run(['list', '--format=json'])).stdout,
      );
      expect((await use.box.run(['stop', ...flags, listed[0]?.name ?? ''])).status).toBe(0);
      expect(await pod.ended).toMatchObject({ signal });
      expect(record()).toMatchObject({ reason: 'signaled', signal });
    }
    await nothingLeft();
  });

  test('the launcher killed from outside: the app dies with it, gc does the rest', async () => {
    const pod = await started('exec sleep 60');
    const [app] = readFileSync(`/proc/${pod.pid}/task/${pod.pid}/children`, 'utf8')
      .trim()
      .split(' ');
    pod.child.kill('SIGKILL');
    expect(await pod.ended).toMatchObject({ signal: 'SIGKILL' });
    // where nobody reaps orphans it stays as a zombie
    await expect.poll(() => processStat(Number(app))?.state ?? 'Z').toBe('Z');
    expect((await use.box.run(['list', '--no-legend'])).stdout).toContain('exited');
    expect(existsSync(file())).toBe(false);
    expect(await use.box.run(['gc', '--grace-period=0s'])).toMatchObject({ status: 0 });
    await nothingLeft();
  });

  test.each([
    ['an exec that is not there', ['--exec=/bin/nothing'], /\/bin\/nothing/],
    ['a user that is not there', ['--user=nobody-knows-him'], /nobody-knows-him/],
    ['a working directory that is a file', ['--working-dir=/etc/passwd'], /\/etc\/passwd/],
  ])('%s: launch-failed', async (_, flags, named) => {
    const ended = await run(fromLayout('busybox'), ...flags);
    expect(ended).toMatchObject({ status: 254, stdout: '' });
    expect(ended.stderr).toMatch(/^[^\n]+\n$/);
    expect(ended.stderr).toMatch(named);
    expect(record()).toMatchObject({
      reason: 'launch-failed',
      exitCode: 254,
      signal: null,
      apps: [{ exitCode: null }],
    });
    await nothingLeft();
  });

  test.each([
    ['an unknown image', ['oci:/nowhere:latest'], /\/nowhere/],
    ['an unknown flag', ['--bogus', 'x'], /unknown flag: --bogus/],
    ['a flag that must follow an image', ['--name=x', 'y'], /must follow an image/],
    ['no image', [], /must provide at least one image/],
    ['a wrong truth value', ['--rm=perhaps', 'x'], /perhaps/],
    ['a wrong volume', ['--volume=nonsense', 'x'], /./],
  ])('%s: tspod-failed', async (_, words, named) => {
    const ended = await run(...words);
    expect(ended).toMatchObject({ status: 254, stdout: '' });
    expect(ended.stderr).toMatch(/^tspod: [^\n]+\n$/);
    expect(ended.stderr).toMatch(named);
    expect(record()).toMatchObject({
      uuid: null,
      reason: 'tspod-failed',
      exitCode: 254,
      error: { code: expect.any(String), message: ended.stderr.trimEnd().slice('tspod: '.length) },
      apps: [],
      finishedAt: TIME,
    });
    await nothingLeft();
  });

  test('run-prepared too', async () => {
    const uuid = (
      await use.box.run(['prepare', '--pod-name=web', ...shell('exit 9')])
    ).stdout.trim();
    expect(await use.box.run(['run-prepared', '--rm', `--result=${file()}`, 'web'])).toMatchObject({
      status: 9,
    });
    expect(record()).toMatchObject({ uuid, name: 'web', reason: 'exited', exitCode: 9 });
    expect((await use.box.run(['run-prepared', `--result=${file()}`, uuid])).status).toBe(254);
    expect(record()).toMatchObject({
      uuid: null,
      reason: 'tspod-failed',
      error: { code: 'not-found' },
    });
    await nothingLeft();
  });

  test('a pod that was removed before its record was written: the record is kept', async () => {
    const pod = await started('exec sleep 60');
    const listed: readonly { name: string }[] = JSON.parse(
      (await use.box.run(['list', '--format=json'])).stdout,
    );
    const uuid = listed[0]?.name ?? '';
    pod.child.kill('SIGTERM');
    await pod.ended;
    // as the launcher calls it
    const late = await use.box.run([
      'finish',
      `--result=${file()}`,
      '--rm',
      uuid,
      'signaled',
      '15',
    ]);
    expect(late).toMatchObject({ status: 0, stdout: '', stderr: '' });
    expect(record()).toMatchObject({
      uuid,
      reason: 'signaled',
      signal: 'SIGTERM',
      apps: [],
      flavor: null,
    });
  });
});

describe('where the record goes', () => {
  test('a place that can’t be written: told before anything runs', async () => {
    mkdirSync(join(use.box.root, 'folder'));
    for (const [place, why] of [
      ['/nowhere/x', /no such file/i],
      [join(use.box.root, 'folder'), /it is a folder/],
      ['/proc/version/x', /./],
      ['/dev/fd/7', /descriptor 7 is not passed on/],
      ['', /it has no name/],
    ] as const) {
      const ended = await use.box.run(['run', `--result=${place}`, ...shell('echo ran')]);
      expect(ended).toMatchObject({ status: 254, stdout: '' });
      expect(ended.stderr).toMatch(/^tspod: run: can't write the result to [^\n]*\n$/);
      expect(ended.stderr).toMatch(why);
    }
    await nothingLeft();
  });

  test('a relative path is the caller’s; a link stays a link; what was there is replaced', async () => {
    writeFileSync(join(use.box.root, 'target'), 'old '.repeat(1000));
    symlinkSync('target', join(use.box.root, 'link'));
    expect(
      (await use.box.run(['run', '--result=link', ...shell('exit 4')], { cwd: use.box.root }))
        .status,
    ).toBe(4);
    expect(readlinkSync(join(use.box.root, 'link'))).toBe('target');
    expect(JSON.parse(readFileSync(join(use.box.root, 'target'), 'utf8'))).toMatchObject({
      exitCode: 4,
    });
  });

  test('standard error, also when it is a regular file: nothing of the device is replaced', async () => {
    const before = readlinkSync('/dev/stderr');
    const piped = await use.box.run(['run', '--result=/dev/stderr', ...shell('echo out; exit 4')]);
    expect(piped).toMatchObject({ status: 4, stdout: 'out\n' });
    expect(JSON.parse(piped.stderr)).toMatchObject({ exitCode: 4 });
    const words = [
      TSPOD,
      ...use.box.globalFlags,
      'run',
      '--result=/dev/stdout',
      ...shell('echo out; exit 4'),
    ];
    const quoted = words.map(word => `'${word}'`).join(' ');
    const script = `echo first >out; ${quoted} >>out; echo last >>out`;
    await use.box.spawn('unshare', ['-m', '--propagation', 'private', 'sh', '-c', script]).ended;
    const lines = readFileSync(join(use.box.root, 'out'), 'utf8').split('\n');
    expect([lines[0], lines[1], lines[3]]).toEqual(['first', 'out', 'last']);
    expect(JSON.parse(lines[2] ?? '')).toMatchObject({ exitCode: 4 });
    expect(readlinkSync('/dev/stderr')).toBe(before);
    expect(readdirSync('/dev').filter(name => name.startsWith('.tspod'))).toEqual([]);
  });

  test('a command without --result writes none', async () => {
    writeFileSync(file(), 'mine');
    expect((await use.box.run(['list', `--result=${file()}`])).status).toBe(254);
    expect((await use.box.run(['bogus', `--result=${file()}`])).status).toBe(254);
    expect(
      (await use.box.run(['run', fromLayout('busybox'), '--bogus', '--', `--result=${file()}`]))
        .status,
    ).toBe(254);
    expect(readFileSync(file(), 'utf8')).toBe('mine');
  });

  test('a disk without space: the app’s status counts, the reason is told', async () => {
    expect(await use.box.run(['run', '--result=/dev/full', ...shell('exit 6')])).toMatchObject({
      status: 6,
      stderr: expect.stringMatching(
        /^tspod: run: can't write the result to \/dev\/full: no space left[^\n]*\n$/,
      ),
    });
  });
});

describe('with a parent that stays', () => {
  test('no Node is in the process’s place, its program is the launcher’s', async () => {
    const pod = await started('exec sleep 60');
    expect(readlinkSync(`/proc/${pod.pid}/exe`)).toMatch(/\/dist\/launch$/);
    const [app = ''] = readFileSync(`/proc/${pod.pid}/task/${pod.pid}/children`, 'utf8')
      .trim()
      .split(' ');
    expect(readlinkSync(`/proc/${app}/exe`)).toMatch(/\/bin\/busybox$/);
    await expect.poll(() => readFileSync(`/proc/${app}/comm`, 'utf8')).toBe('sleep\n');
    const resident = Number(
      /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pod.pid}/status`, 'utf8'))?.[1],
    );
    expect(resident).toBeLessThan(4096);
    pod.child.kill();
    await pod.ended;
  });

  test('standard input is bytes, and may be closed', async () => {
    const input = randomBytes(1 << 20);
    const ran = await use.box.run(['run', '--rm', ...shell('exec cat')], { input });
    expect(ran.bytes.equals(input)).toBe(true);
    const words = [TSPOD, ...use.box.globalFlags, 'run', '--rm', ...shell('echo here')];
    const quoted = words.map(word => `'${word}'`).join(' ');
    const closed = await use.box.spawn('unshare', [
      '-m',
      '--propagation',
      'private',
      'sh',
      '-c',
      `exec ${quoted} <&-`,
    ]).ended;
    expect(closed).toMatchObject({ status: 0, stdout: 'here\n', stderr: '' });
  });

  test('a signal reaches the app once', async () => {
    const traps = 'n=0; trap "n=\\$((n+1)); echo got \\$n" USR1; trap "exit 8" TERM;';
    const pod = await started('while :; do sleep 0.05; done', traps);
    for (let count = 1; count <= 3; count++) {
      const said = new Promise<string>(resolve =>
        pod.child.stdout?.once('data', data => resolve(String(data))),
      );
      pod.child.kill('SIGUSR1');
      expect(await said).toBe(`got ${count}\n`);
    }
    pod.child.kill('SIGTERM');
    expect(await pod.ended).toMatchObject({ status: 8, stdout: 'up\ngot 1\ngot 2\ngot 3\n' });
  });

  test('a child that the app leaves behind keeps the pod: --rm says so, gc waits for it', async () => {
    const ended = await run(...shell('sleep 2 >/dev/null 2>&1 </dev/null & exit 0'));
    expect(ended.status).toBe(0);
    expect(record()).toMatchObject({ reason: 'exited', exitCode: 0 });
    const listed = await use.box.run(['list', '--no-legend']);
    if (ended.stderr === '') {
      expect(listed.stdout).toBe('');
    } else {
      expect(ended.stderr).toMatch(/^tspod: [^\n]*is running[^\n]*\n$/);
    }
    await expect
      .poll(
        async () =>
          (await use.box.run(['gc', '--grace-period=0s'])).stdout +
          (await use.box.run(['list', '--no-legend'])).stdout,
        { timeout: 10_000, interval: 300 },
      )
      .not.toContain('running');
    expect(statSync(file()).isFile()).toBe(true);
  });
});
