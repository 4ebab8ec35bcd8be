/** From a name in a registry to a process: real images, made from Debian's packages. */
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { freePort, waitForPort } from '../support/registry.ts';
import { fromLayout, fromRegistry, useSandbox } from './sandbox.ts';

const use = useSandbox();

describe('images of a registry', () => {
  test('busybox is fetched and run; the upper layer wins and takes away', async () => {
    const fetched = await use.box.run(['fetch', '--full', fromRegistry('busybox')]);
    expect(fetched).toMatchObject({ status: 0 });
    expect(fetched.stdout).toMatch(/^sha256:[0-9a-f]{64}\n$/);
    const script = 'cat /etc/motd /etc/replaced; ls /var; pwd; echo $FROM_IMAGE';
    const ran = await use.box.run(['run', fetched.stdout.trim(), '--', '-c', script]);
    expect(ran).toMatchObject({
      status: 0,
      stdout: 'hello from the app layer\napp\n/data\nyes\n',
      stderr: '',
    });
  });

  test('Python runs as the image’s user and ends with its own status', async () => {
    const ran = await use.box.run(['run', fromRegistry('python'), '--', '7']);
    expect(ran).toMatchObject({ status: 7, stderr: '' });
    expect(JSON.parse(ran.stdout)).toMatchObject({ sum: 45 });
  });

  test('nginx answers HTTP, a shell enters, stop ends it, gc leaves nothing of it', async () => {
    const fetched = await use.box.run(['fetch', fromRegistry('nginx')]);
    expect(fetched.status).toBe(0);
    const before = tree(use.box.dir);
    const port = await freePort();
    const name = ['--pod-name=web', `--set-env=PORT=${port}`];
    const server = use.box.start(['run', ...name, fromRegistry('nginx')]);
    await waitForPort(port, server.child);
    expect(await (await fetch(`http://127.0.0.1:${port}/`)).text()).toBe('hello from nginx\n');

    const entered = await use.box.run([
      'enter',
      'web',
      '/bin/sh',
      '-c',
      'cat /srv/www/index.html; exit 3',
    ]);
    expect(entered).toMatchObject({ status: 3, stdout: 'hello from nginx\n' });
    const status = await use.box.run(['status', 'web']);
    expect(status.stdout).toContain('state=running');

    expect(await use.box.run(['stop', 'web'])).toMatchObject({ status: 0 });
    expect(await server.ended).toMatchObject({ status: 0 });
    const after = await use.box.run(['status', 'web']);
    expect(after.stdout).toContain('state=exited');
    expect(await use.box.run(['gc', '--grace-period=0s'])).toMatchObject({ status: 0 });
    expect(tree(use.box.dir)).toEqual(before);
  });

  test('Redis answers PING; its volume is an empty folder of its own', async () => {
    const port = await freePort();
    const image = [
      fromRegistry('redis'),
      '--',
      '--port',
      String(port),
      '--save',
      '',
      '--bind',
      '127.0.0.1',
    ];
    const server = use.box.start([
      'run',
      '--volume=volume-data,kind=empty,mode=0777',
      '--pod-name=kv',
      ...image,
    ]);
    await waitForPort(port, server.child);
    expect(await ask(port, 'PING\r\n')).toBe('+PONG\r\n');
    expect(await use.box.run(['stop', 'kv'])).toMatchObject({ status: 0 });
    expect(await server.ended).toMatchObject({ status: 0 });
  });

  test('a layout and a registry give the same image, fetched once', async () => {
    const one = await use.box.run(['fetch', '--full', fromLayout('busybox')]);
    const two = await use.box.run(['fetch', '--full', fromRegistry('busybox')]);
    expect(two.stdout).toBe(one.stdout);
    const listed = await use.box.run(['image', 'list', '--format=json']);
    const parsed: unknown = JSON.parse(listed.stdout);
    expect(Array.isArray(parsed) ? parsed.length : 0).toBeGreaterThanOrEqual(1);
  });
});

test('the mount table is as before when a pod has ended', async () => {
  const script =
    'cat /proc/self/mountinfo >before; "$@"; cat /proc/self/mountinfo >after; cmp before after';
  const tool = [process.env['TSPOD'] ?? new URL('../../bin/tspod', import.meta.url).pathname];
  const run = ['run', '--rm', fromLayout('busybox'), '--', '-c', 'true'];
  const words = [
    '-m',
    '--propagation',
    'private',
    'sh',
    '-c',
    script,
    'sh',
    ...tool,
    ...use.box.globalFlags,
    ...run,
  ];
  expect(await use.box.spawn('unshare', words).ended).toMatchObject({ status: 0, stdout: '' });
});

test('enter gives a shell a terminal', async () => {
  const pod = use.box.start(
    ['run', '--pod-name=tty', fromLayout('busybox'), '--', '-c', 'echo up; sleep 60'],
    {},
    'pipe',
  );
  await new Promise<void>(resolve => pod.child.stdout?.once('data', () => resolve()));
  const tool = process.env['TSPOD'] ?? new URL('../../bin/tspod', import.meta.url).pathname;
  const command = [
    tool,
    ...use.box.globalFlags,
    'enter',
    'tty',
    '/bin/sh',
    '-c',
    "'test -t 0 && test -t 1 && echo a terminal'",
  ];
  const entered = await use.box.spawn('script', ['-qec', command.join(' '), '/dev/null']).ended;
  expect(entered.stdout).toContain('a terminal');
  expect(entered.status).toBe(0);
  expect(await use.box.run(['stop', '--force', 'tty'])).toMatchObject({ status: 0 });
  expect(await pod.ended).toMatchObject({ signal: 'SIGKILL' });
});

/** Paths below the data folder; locks and empty folders of first use aside. */
function tree(folder: string): string[] {
  const listed = readdirSync(folder, { recursive: true, withFileTypes: true });
  return listed
    .filter(entry => !entry.isDirectory())
    .map(entry => join(entry.parentPath, entry.name).slice(folder.length))
    .filter(path => !/\/leases\/|\/lock$|\.lock$/.test(path))
    .sort();
}

function ask(port: number, question: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port }, () => socket.write(question));
    socket.once('data', data => {
      socket.destroy();
      resolve(data.toString());
    });
    socket.once('error', reject);
  });
}

test('nothing of the tests runs as root’s own mount: the sandbox is private', () => {
  const here = readFileSync('/proc/self/mountinfo', 'utf8');
  const there = spawnSync(
    'unshare',
    ['-m', '--propagation', 'private', 'cat', '/proc/self/mountinfo'],
    { encoding: 'utf8' },
  );
  expect(there.stdout.split('\n').length).toBe(here.split('\n').length);
  expect(there.stdout).not.toContain('shared:');
});
