/** pre-start and post-stop of an app (appc 0.8.11, "eventHandlers"), run by the init of a pod under nspawn. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { fromLayout, useSandbox } from './sandbox.ts';

const use = useSandbox();
afterEach(async () => {
  expect(await use.box.run(['gc', '--grace-period=0s'])).toMatchObject({ status: 0 });
});

async function run(
  flavor: string,
  app: object,
): Promise<{ status: number | null; stderr: string }> {
  const { stdout } = await use.box.run(['fetch', '--full', fromLayout('busybox')]);
  const file = join(use.box.root, 'pod.json');
  const manifest = {
    acVersion: '0.8.11',
    acKind: 'PodManifest',
    apps: [
      {
        name: 'app',
        image: { id: stdout.trim().replace(':', '-') },
        app: { user: '1000', group: '1001', workingDirectory: '/', ...app },
        mounts: [{ volume: 'work', path: '/work' }],
      },
    ],
    volumes: [{ name: 'work', kind: 'host', source: use.box.root }],
    isolators: [],
    annotations: [],
    ports: [],
  };
  writeFileSync(file, JSON.stringify(manifest));
  const words = [`--stage1-name=${flavor}`, '--net=host', `--pod-manifest=${file}`];
  return use.box.run(['run', ...words]);
}

const say = (text: string) => ['/bin/sh', '-c', `echo ${text} $(id -u) >>/work/said`];
const said = () => readFileSync(join(use.box.root, 'said'), 'utf8');

test('before and after the app, as root; the status is the app’s', async () => {
  const { status } = await run('nspawn', {
    exec: ['/bin/sh', '-c', 'exit 7'],
    eventHandlers: [
      { name: 'pre-start', exec: say('before') },
      { name: 'post-stop', exec: say('after') },
    ],
  });
  expect(status).toBe(7);
  expect(said()).toBe('before 0\nafter 0\n');
});

test('an app whose pre-start fails is not started', async () => {
  const ended = await run('nspawn', {
    exec: say('never'),
    eventHandlers: [{ name: 'pre-start', exec: ['/bin/sh', '-c', 'echo no >>/work/said; exit 9'] }],
  });
  expect(ended.status).toBe(9);
  expect(ended.stderr).toMatch(/pre-start ended with 9/);
  expect(said()).toBe('no\n');
});

test('fly refuses them by name', async () => {
  const ended = await run('fly', {
    exec: ['/bin/true'],
    eventHandlers: [{ name: 'pre-start', exec: ['/bin/true'] }],
  });
  expect(ended.status).toBe(254);
  expect(ended.stderr).toMatch(/event handler pre-start/);
});
