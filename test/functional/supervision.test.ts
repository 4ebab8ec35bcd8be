/** Pods of several apps under nspawn: which ends end the pod, what is started again, how a stop goes. */
import { afterEach, describe, expect, test } from 'vitest';
import { fromLayout, useSandbox } from './sandbox.ts';

const use = useSandbox();
// Ended pods keep their cgroups until gc.
afterEach(async () => {
  expect(await use.box.run(['gc', '--grace-period=0s'])).toMatchObject({ status: 0 });
});

/** An app that is a shell with a script. */
function app(name: string, script: string, ...flags: readonly string[]): string[] {
  const words = ['--exec=/bin/sh', ...flags, '--', '-c', script, '---'];
  return [fromLayout('busybox'), `--name=${name}`, ...words];
}

function pod(flags: readonly string[], ...apps: readonly (readonly string[])[]): string[] {
  return ['run', '--stage1-name=nspawn', '--net=none', ...flags, ...apps.flat()];
}

describe('which end ends the pod', () => {
  test.each([
    ['first-failure', 'exit 0', 'sleep 1; exit 5', 5, { one: '0', two: '5' }],
    ['first-failure', 'exit 4', 'exec sleep 1000', 4, { one: '4' }],
    ['all', 'exit 4', 'sleep 1; exit 0', 4, { one: '4', two: '0' }],
    ['any', 'sleep 0.3; exit 0', 'exec sleep 1000', 0, { one: '0' }],
  ])('%s: %s and %s', async (policy, first, second, status, codes) => {
    const flags = [`--exit-policy=${policy}`, '--stop-timeout=1', '--pod-name=p'];
    const ended = await use.box.run(pod(flags, app('one', first), app('two', second)));
    expect(ended).toMatchObject({ status, stderr: '' });
    const { stdout } = await use.box.run(['status', 'p']);
    for (const [name, code] of Object.entries(codes))
      expect(stdout).toContain(`app-${name}=${code}\n`);
  });
});

describe('restart', () => {
  test('on-failure: until it succeeds', async () => {
    const script =
      'n=$(cat /data/n 2>/dev/null || echo 0); n=$((n+1)); echo $n >/data/n; echo try $n; [ $n -ge 3 ]';
    const ended = await use.box.run(pod([], app('one', script, '--restart=on-failure')));
    expect(ended).toMatchObject({ status: 0, stdout: 'try 1\ntry 2\ntry 3\n' });
  });

  test('always: also when it succeeds, until the pod is stopped', async () => {
    const flags = ['--pod-name=r'];
    const started = use.box.start(pod(flags, app('one', 'echo round', '--restart=always')));
    let seen = 0;
    started.child.stdout?.on('data', (chunk: Buffer) => {
      seen += chunk.toString().split('round').length - 1;
    });
    await expect.poll(() => seen, { timeout: 20_000 }).toBeGreaterThan(2);
    expect(await use.box.run(['stop', 'r'])).toMatchObject({ status: 0 });
    expect((await started.ended).status).toBe(0);
  });
});

describe('stop', () => {
  test('the image’s stop signal, then SIGKILL when the time is over', async () => {
    const flags = ['--pod-name=s', '--stop-timeout=1'];
    const deaf = 'trap "echo asked" TERM; echo up; while :; do sleep 0.1; done';
    const started = use.box.start(pod(flags, app('one', deaf)));
    await new Promise(resolve => started.child.stdout?.once('data', resolve));
    expect(await use.box.run(['stop', 's'])).toMatchObject({ status: 0 });
    const ended = await started.ended;
    expect(ended.stdout).toBe('up\nasked\n');
    expect(ended.status).toBe(137);
  });
});

describe('refused', () => {
  test.each([
    [pod(['--exit-policy=some'], app('a', ':')), /--exit-policy: "some" is unknown/],
    [pod([], app('a', ':', '--restart=perhaps')), /--restart: "perhaps" is unknown/],
    [pod(['--stop-timeout=-1'], app('a', ':')), /--stop-timeout: "-1" is no number of seconds/],
    [
      ['run', '--stage1-name=fly', ...app('a', ':', '--restart=always')],
      /--restart=always: nobody watches over an app under fly/,
    ],
  ])('%j', async (words, message) => {
    const ended = await use.box.run(words);
    expect(ended).toMatchObject({ status: 254, stdout: '' });
    expect(ended.stderr).toMatch(message);
  });
});
