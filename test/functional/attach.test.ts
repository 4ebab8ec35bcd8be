/** `tspod attach` and `tspod logs` of pods that run and that have ended, as somebody at a shell uses them. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Ended } from '../support/tspod.ts';
import { fromLayout, useSandbox } from './sandbox.ts';

const use = useSandbox();
let pod: Promise<Ended>;

const STREAM = ['--stdin=stream', '--stdout=stream', '--stderr=stream'];
const TTY = ['--stdin=tty', '--stdout=tty', '--stderr=tty'];
const ECHO = 'while read -r l; do echo "got $l"; echo "err $l" >&2; done; echo eof';

function app(name: string, script: string, ...flags: readonly string[]): string[] {
  const words = ['--exec=/bin/sh', ...flags, '--', '-c', script, '---'];
  return [fromLayout('busybox'), `--name=${name}`, ...words];
}

beforeEach(async () => {
  pod = use.box.start([
    'run',
    '--stage1-name=nspawn',
    '--net=none',
    '--pod-name=p',
    '--exit-policy=all',
    '--stop-timeout=1',
    ...app('io', ECHO, ...STREAM),
    ...app('term', 'exec sleep 1000', ...TTY),
    ...app('plain', 'echo plain; exec sleep 1000'),
  ]).ended;
  await expect
    .poll(async () => (await use.box.run(['app', 'list', 'p'])).stdout.match(/running/g)?.length, {
      timeout: 30_000,
    })
    .toBe(3);
});
// Ended pods keep their cgroups until gc.
afterEach(async () => {
  await use.box.run(['stop', '--force', 'p']);
  await pod;
  expect(await use.box.run(['gc', '--grace-period=0s'])).toMatchObject({ status: 0 });
});

const attach = (...words: readonly string[]) => use.box.run(['attach', ...words, 'p']);
const logs = (...words: readonly string[]) => use.box.run(['logs', ...words, 'p']);

test('which streams there are; what is refused, with what to do', async () => {
  expect(JSON.parse((await attach('--app=io', '--mode=list')).stdout)).toMatchObject({
    targets: [{ name: 'stdin' }, { name: 'stdout' }, { name: 'stderr' }],
  });
  for (const [flags, message] of [
    [[], /has several apps: io, term, plain; specify app using "tspod attach --app=/],
    [['--app=nobody'], /it has no app "nobody"; its apps are io, term, plain/],
    [['--app=plain'], /app "plain" has nothing to attach to; run it with --stdout=stream/],
    [['--app=io', '--mode=tty'], /app "io" has no tty to attach to; it has stdin, stdout, stderr/],
    [['--app=term', '--mode=stdin'], /app "term" has no stdin to attach to; it has tty/],
    [['--app=io', '--mode=some'], /--mode=some is unknown/],
    [['--app=io', '--detach-keys=ab'], /--detach-keys: "ab" is no key/],
  ] as const)
    expect(await attach(...flags)).toMatchObject({
      status: 254,
      stdout: '',
      stderr: expect.stringMatching(message),
    });
});

test('input from a pipe and its end, both outputs; then the app has ended, and its log is there', async () => {
  const command = use.box.command(['attach', '--app=io', 'p']);
  const ended = await use.box.spawn('sh', [
    '-c',
    `printf 'one\\ntwo\\n' | unshare "$@"`,
    'sh',
    ...command,
  ]).ended;
  expect(ended).toMatchObject({
    status: 0,
    stdout: 'got one\ngot two\neof\n',
    stderr: 'err one\nerr two\n',
  });
  await expect
    .poll(async () => (await attach('--app=io')).stderr, { timeout: 20_000 })
    .toMatch(/app "io" has ended; "logs" prints what it wrote/);
  expect(await logs('--app=io')).toMatchObject({ stdout: 'got one\ngot two\neof\n' });
  expect((await logs('--app=io', '--tail=1', '--format=json')).stdout).toContain('"text":"');
  await use.box.run(['stop', '--force', 'p']);
  await pod;
  expect(await attach('--app=io')).toMatchObject({
    status: 254,
    stderr: expect.stringMatching(/isn't currently running; it is exited; "logs" prints/),
  });
  expect(await logs('-f', '--app=plain')).toMatchObject({ status: 0, stdout: 'plain\n' });
});
