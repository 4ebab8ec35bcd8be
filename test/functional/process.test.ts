/** `run` replaces itself: what the caller started is the app, with its own input, output, signals, status. */
import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync, readlinkSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { TSPOD } from '../support/tspod.ts';
import { fromLayout, shell, useSandbox } from './sandbox.ts';

const use = useSandbox();

function childrenOf(pid: number): string {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
}

async function said(stream: NodeJS.ReadableStream | null): Promise<void> {
  await new Promise<void>(resolve => stream?.once('data', () => resolve()));
}

describe('one exec', () => {
  test('the process that was started is the app; no Node stays behind', async () => {
    const pod = use.box.start(['run', ...shell('echo $$; exec sleep 60')]);
    await said(pod.child.stdout);
    // It says its number before it executes the rest.
    await expect
      .poll(() => readFileSync(`/proc/${pod.pid}/cmdline`, 'utf8'), { timeout: 10_000 })
      .toBe('sleep\x0060\0');
    expect(readlinkSync(`/proc/${pod.pid}/exe`)).toMatch(/\/bin\/busybox$/);
    expect(childrenOf(pod.pid)).toBe('');
    process.kill(pod.pid, 'SIGKILL');
    const ended = await pod.ended;
    expect(ended).toMatchObject({ signal: 'SIGKILL', stdout: `${pod.pid}\n` });
    const listed = await use.box.run(['list', '--no-legend']);
    expect(listed.stdout).toContain('exited');
  });

  test('with --rm the launcher alone stays, and dies with the app', async () => {
    const pod = use.box.start(['run', '--rm', ...shell('echo up; exec sleep 60')]);
    await said(pod.child.stdout);
    const children = childrenOf(pod.pid).split(' ');
    expect(children.length).toBe(1);
    expect(readFileSync(`/proc/${pod.pid}/cmdline`, 'utf8')).not.toContain('node');
    process.kill(pod.pid, 'SIGKILL');
    await pod.ended;
    expect(await use.box.leftovers()).toEqual([]);
  });

  test.each([0, 1, 42, 254, 255])('exit status %i is the app’s own', async code => {
    expect(await use.box.run(['run', ...shell(`exit ${code}`)])).toMatchObject({
      status: code,
      stderr: '',
    });
  });

  test.each(['SIGTERM', 'SIGKILL', 'SIGUSR1', 'SIGSEGV'] as const)(
    '%s ends it as it ends the app',
    async signal => {
      const pod = use.box.start(['run', ...shell('echo up; exec sleep 60')]);
      await said(pod.child.stdout);
      process.kill(pod.pid, signal);
      expect(await pod.ended).toMatchObject({ signal });
    },
  );

  test('a trap of the app sees the signal', async () => {
    const pod = use.box.start([
      'run',
      ...shell('trap "echo bye; exit 9" TERM; echo up; while :; do sleep 0.05; done'),
    ]);
    await said(pod.child.stdout);
    process.kill(pod.pid, 'SIGTERM');
    expect(await pod.ended).toMatchObject({ status: 9, stdout: 'up\nbye\n' });
  });

  test('signal dispositions and limits are not those of Node', async () => {
    const script = 'grep -E "^Sig(Ign|Blk)" /proc/self/status 2>/dev/null || cat /proc/self/status';
    const ran = await use.box.run(['run', ...shell(script)]);
    const ignored = /SigIgn:\s*([0-9a-f]+)/.exec(ran.stdout)?.[1];
    // an interactive shell's choices aside, SIGPIPE (13) and SIGXFSZ (25) are at their default
    expect(BigInt(`0x${ignored ?? 'f'}`) & ((1n << 12n) | (1n << 24n))).toBe(0n);
  });
});

describe('standard streams', () => {
  test('four megabytes of any bytes pass unchanged', async () => {
    const input = randomBytes(4 << 20);
    const ran = await use.box.run(['run', ...shell('exec cat')], { input });
    expect(ran.status).toBe(0);
    expect(ran.bytes.equals(input)).toBe(true);
  });

  test('standard error is the app’s alone', async () => {
    const ran = await use.box.run(['run', ...shell('echo out; echo err >&2')]);
    expect(ran).toMatchObject({ stdout: 'out\n', stderr: 'err\n', status: 0 });
  });

  test('closed standard input', async () => {
    const words = [TSPOD, ...use.box.globalFlags, 'run', ...shell('echo still here')];
    const quoted = words.map(word => `'${word}'`).join(' ');
    const closed = await use.box.spawn('unshare', [
      '-m',
      '--propagation',
      'private',
      'sh',
      '-c',
      `exec ${quoted} <&-`,
    ]).ended;
    expect(closed).toMatchObject({ status: 0, stdout: 'still here\n', stderr: '' });
  });

  test('only 0, 1, 2 and the pod’s lock are open in the app', async () => {
    const script = 'ls -l /proc/self/fd';
    const ran = await use.box.run(['run', ...shell(script)]);
    const targets = ran.stdout
      .split('\n')
      .filter(line => line.includes('->'))
      .map(line => line.split('-> ')[1] ?? '');
    // the listing itself holds one descriptor of /proc
    const others = targets.filter(target => !/^(pipe|socket):|^\/proc\/|^\/dev\/null/.test(target));
    expect(others.length).toBe(1);
    expect(others[0]).toMatch(/lock/);
  });
});

test('sockets of socket activation pass through', async () => {
  const helper = [
    'import os,socket,sys',
    's=socket.socket();s.bind(("127.0.0.1",0));s.listen()',
    'f=os.dup(s.fileno())',
    'os.dup2(f,3) if f!=3 else None',
    'os.set_inheritable(3,True)',
    'os.environ.update(LISTEN_FDS="1",LISTEN_PID=str(os.getpid()),LISTEN_FDNAMES="web")',
    'os.execvp(sys.argv[1],sys.argv[1:])',
  ].join('\n');
  const script =
    'echo $LISTEN_FDS $LISTEN_FDNAMES; test "$LISTEN_PID" = $$ && echo mine; test -S /proc/self/fd/3 && echo a socket';
  const words = [
    '-m',
    '--propagation',
    'private',
    'python3',
    '-c',
    helper,
    TSPOD,
    ...use.box.globalFlags,
    'run',
    ...shell(script),
  ];
  expect(await use.box.spawn('unshare', words).ended).toMatchObject({
    status: 0,
    stdout: '1 web\nmine\na socket\n',
  });
});

test('started as rkt it answers as rkt', async () => {
  const link = join(use.box.root, 'rkt');
  symlinkSync(TSPOD, link);
  const words = [
    '-m',
    '--propagation',
    'private',
    link,
    ...use.box.globalFlags,
    'status',
    'ffffffff',
  ];
  const ended = await use.box.spawn('unshare', words).ended;
  expect(ended.status).toBe(254);
  expect(ended.stderr).toMatch(/^status: /);
});

describe('prepare and run-prepared', () => {
  test('a prepared pod runs later, without the image’s source', async () => {
    const prepared = await use.box.run(['prepare', '--quiet', ...shell('echo prepared; exit 5')]);
    expect(prepared.status).toBe(0);
    const uuid = prepared.stdout.trim();
    expect(uuid).toMatch(/^[0-9a-f-]{36}$/);
    expect((await use.box.run(['status', uuid])).stdout).toContain('state=prepared');
    expect(await use.box.run(['run-prepared', uuid.slice(0, 8)])).toMatchObject({
      status: 5,
      stdout: 'prepared\n',
    });
    const again = await use.box.run(['run-prepared', uuid]);
    expect(again.status).toBe(254);
    expect(again.stderr.trimEnd().split('\n').length).toBe(1);
  });

  test('the launcher alone starts a prepared pod', async () => {
    const uuid = (await use.box.run(['prepare', '--quiet', ...shell('echo $$')])).stdout.trim();
    const launch = join(TSPOD, '../../dist/launch');
    const words = [
      '-m',
      '--propagation',
      'private',
      launch,
      join(use.box.dir, 'pods/prepared', uuid),
    ];
    const pod = use.box.spawn('unshare', words);
    expect(await pod.ended).toMatchObject({ status: 0, stdout: `${pod.pid}\n` });
    expect((await use.box.run(['status', uuid])).stdout).toContain('state=exited');
  });
});

test('--dry-run prints the plan and starts nothing', async () => {
  const ran = await use.box.run(['run', '--dry-run', fromLayout('busybox')]);
  expect(ran.status).toBe(0);
  expect(ran.stdout).toContain('overlay');
  expect(() => JSON.parse(ran.stdout)).not.toThrow();
  expect((await use.box.run(['list', '--no-legend'])).stdout).toBe('');
  expect(readdirSync(use.box.dir)).toBeDefined();
});
