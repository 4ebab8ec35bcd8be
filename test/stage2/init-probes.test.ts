/** Init's probes: what is asked when, and what comes of the answers. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Step } from '../../src/pod/launch-plan.ts';
import { ask } from '../../stage1-flavors/nspawn/control.ts';
import { ended, InitPod, until } from '../support/init-pod.ts';

let pod: InitPod;
beforeEach(() => {
  pod = new InitPod();
});
afterEach(() => pod.remove());

/** Every second, from the start on; `failures` and `successes` in a row count. */
const probe = (kind: string, how: readonly string[], failures = 1, successes = 1): Step => [
  'probe',
  kind,
  ...how,
  '0',
  '1',
  '1',
  String(failures),
  String(successes),
];
const exec = (name: string) => ['exec', `/rkt/apps/${name}/launch-plan`, '-'];
const control = () => pod.dir;

async function ready(app = 0): Promise<string | undefined> {
  const words = await ask(control(), ['status']);
  return words[app * 6 + 5];
}

/** A plan that a probe executes, as of an app that is never started. */
function asked(name: string, script: string): void {
  pod.addPlans({ name, script });
}

describe('readiness', () => {
  test('the pod is ready when the app says so', async () => {
    asked('ask', 'test -e /tmp/ready');
    pod.plan([
      {
        name: 'a',
        script: 'sleep 1.2; touch /tmp/ready; exec sleep 1000',
        about: [probe('readiness', exec('ask'))],
      },
    ]);
    const child = pod.start();
    await pod.has('rkt/status/a-pid');
    expect(existsSync(join(pod.tree, 'rkt/supervisor-status'))).toBe(false);
    expect(await ready()).toBe('0');
    await until(() => existsSync(join(pod.tree, 'tmp/ready')));
    await expect.poll(() => ready(), { timeout: 10_000 }).toBe('1');
    const end = ended(child);
    await ask(control(), ['stop-pod', '0']);
    await end;
  });

  test('what fails again is not ready any more, and goes on', async () => {
    asked('ask', 'test ! -e /tmp/busy');
    pod.plan([
      {
        name: 'a',
        script: 'sleep 2; touch /tmp/busy; exec sleep 1000',
        about: [probe('readiness', exec('ask'))],
      },
    ]);
    const end = ended(pod.start());
    await pod.has('rkt/status/a-pid');
    await expect.poll(() => ready(), { timeout: 10_000 }).toBe('1');
    await expect.poll(() => ready(), { timeout: 10_000 }).toBe('0');
    expect((await ask(control(), ['status']))[1]).toBe('running');
    await ask(control(), ['stop-pod', '0']);
    await end;
  });

  test('by TCP and by HTTP', async () => {
    const httpd = 'mkdir -p /tmp/w; echo x >/tmp/w/ok; exec busybox httpd -f -p 80 -h /tmp/w';
    pod.plan(
      [
        { name: 'a', script: httpd, about: [probe('readiness', ['tcp', '80', '/'])] },
        {
          name: 'b',
          script: 'exec sleep 1000',
          about: [probe('readiness', ['http', '80', '/ok'])],
        },
        {
          name: 'c',
          script: 'exec sleep 1000',
          about: [probe('readiness', ['http', '80', '/none'])],
        },
        { name: 'd', script: 'exec sleep 1000', about: [probe('readiness', ['tcp', '81', '/'])] },
      ],
      [['loopback']],
    );
    const end = ended(pod.start());
    await pod.has('rkt/status/d-pid');
    await expect.poll(() => ready(0), { timeout: 10_000 }).toBe('1');
    await expect.poll(() => ready(1), { timeout: 10_000 }).toBe('1');
    expect([await ready(2), await ready(3)]).toEqual(['0', '0']);
    await ask(control(), ['stop-pod', '0']);
    await end;
  });
});

describe('liveness and startup', () => {
  test('what does not live is stopped, and started again', async () => {
    asked('ask', 'test -e /tmp/again');
    const script =
      'if [ -e /tmp/once ]; then touch /tmp/again; exit 5; fi; touch /tmp/once; exec sleep 1000';
    pod.plan(
      [{ name: 'a', script, about: [['restart', 'on-failure'], probe('liveness', exec('ask'))] }],
      [['exit-policy', 'all']],
    );
    const end = ended(pod.start());
    await pod.has('tmp/again');
    await ask(control(), ['stop-pod', '0']);
    expect((await end).stderr).toMatch(/its liveness probe failed 1 times, it is stopped/);
  });

  test('without a restart the pod ends with it', async () => {
    asked('ask', 'exit 1');
    pod.plan([{ name: 'a', script: 'exec sleep 1000', about: [probe('startup', exec('ask'), 2)] }]);
    const { status, stderr } = await pod.run();
    expect(status).toBe(143);
    expect(stderr).toMatch(/its startup probe failed 2 times/);
  });

  test('until it has started nobody asks whether it lives', async () => {
    asked('started', 'test -e /tmp/started');
    asked('lives', 'touch /tmp/asked; test -e /tmp/started');
    const script = 'sleep 1.5; [ -e /tmp/asked ] && exit 9; touch /tmp/started; exec sleep 1000';
    const about = [probe('startup', exec('started'), 10), probe('liveness', exec('lives'))];
    pod.plan([{ name: 'a', script, about }]);
    const end = ended(pod.start());
    await pod.has('tmp/asked');
    expect(existsSync(join(pod.tree, 'tmp/started'))).toBe(true);
    await ask(control(), ['stop-pod', '0']);
    await end;
  });

  test('a question without an answer has failed when its time is over', async () => {
    asked('ask', 'exec sleep 1000');
    pod.plan([{ name: 'a', script: 'exec sleep 1000', about: [probe('liveness', exec('ask'))] }]);
    expect((await pod.run()).status).toBe(143);
  });
});

describe('refused plans', () => {
  test.each<[string, Step]>([
    ['an unknown kind', ['probe', 'other', 'tcp', '1', '/', '0', '1', '1', '1', '1']],
    ['an unknown way', ['probe', 'startup', 'smoke', '1', '/', '0', '1', '1', '1', '1']],
    ['no number', ['probe', 'startup', 'tcp', 'x', '/', '0', '1', '1', '1', '1']],
    ['no period', ['probe', 'startup', 'tcp', '1', '/', '0', '0', '1', '1', '1']],
    [
      'a path with a line feed',
      ['probe', 'startup', 'http', '1', '/a\nb', '0', '1', '1', '1', '1'],
    ],
    ['too few words', ['probe', 'startup', 'tcp', '1']],
  ])('%s', async (_, step) => {
    pod.plan([{ name: 'a', script: 'true', about: [step] }]);
    expect((await pod.run()).status).toBe(254);
  });
});
