/**
 * Killed at every step and at random instants: the next command works, no state is wrong, nothing leaks.
 * The fault points are read from the sources, so that a new one is tried as soon as it exists.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { fromLayout, shell, useSandbox } from './sandbox.ts';

const use = useSandbox();
const ROOT = fileURLToPath(new URL('../..', import.meta.url));

function faultPoints(): string[] {
  const found = new Set([
    'pod-to-prepare',
    'pod-to-prepared',
    'pod-to-run',
    'pod-in-prepare',
    'pod-in-prepared',
    'pod-in-run',
  ]);
  for (const folder of ['src', 'stage0'])
    for (const entry of readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' }))
      if (entry.endsWith('.ts'))
        // those of `app` are apps.test.ts's
        for (const match of readFileSync(join(ROOT, folder, entry), 'utf8').matchAll(
          /faultPoint\('([a-z-]+)'\)/g,
        ))
          if (match[1] !== undefined && !match[1].startsWith('app-')) found.add(match[1]);
  for (const name of [
    'lock-taken',
    'before-exec',
    ...Array.from({ length: 12 }, (_, step) => `step-${step}`),
  ])
    found.add(name);
  return [...found].sort();
}

/** After a crash: no pod is believed to run, the next run works, and gc takes everything away. */
async function recovers(): Promise<void> {
  const listed = await use.box.run(['list', '--format=json']);
  expect(listed).toMatchObject({ status: 0 });
  expect(listed.stdout).not.toMatch(/"running"|"preparing"/);
  expect(await use.box.run(['run', ...shell('echo alive')])).toMatchObject({
    status: 0,
    stdout: 'alive\n',
    stderr: '',
  });
  expect(await use.box.run(['gc', '--grace-period=0s', '--expire-prepared=0s'])).toMatchObject({
    status: 0,
  });
  expect(await use.box.run(['image', 'gc', '--grace-period=0s'])).toMatchObject({ status: 0 });
  expect(podFolders()).toEqual([]);
  expect(readdirSync(join(use.box.dir, 'cas/v1/tmp'))).toEqual([]);
  expect(readdirSync(join(use.box.dir, 'cas/v1/leases'))).toEqual([]);
}

function podFolders(): string[] {
  const pods = join(use.box.dir, 'pods');
  return ['embryo', 'prepare', 'prepared', 'run', 'exited-garbage', 'garbage'].flatMap(folder => {
    try {
      return readdirSync(join(pods, folder)).map(name => `${folder}/${name}`);
    } catch {
      return [];
    }
  });
}

describe('kill -9 at a fault point', () => {
  test.each(faultPoints())('%s', async point => {
    const env = { TSPOD_FAULT: point };
    await use.box.run(['run', ...shell('true')], { env });
    if (point.includes('gc') || point.includes('remove') || point.includes('settle')) {
      await use.box.run(['run', ...shell('true')]);
      await use.box.run(['gc', '--grace-period=0s'], { env });
      await use.box.run(['image', 'gc', '--grace-period=0s'], { env });
    }
    await recovers();
  });
});

describe('kill -9 at random instants', () => {
  test.each(['fetch', 'run', 'prepare', 'gc'])(
    '%s',
    async command => {
      const words =
        command === 'fetch'
          ? ['fetch', fromLayout('python')]
          : command === 'gc'
            ? ['gc', '--grace-period=0s']
            : [command, ...shell('true')];
      for (let round = 0; round < 8; round++) {
        if (command === 'gc') await use.box.run(['run', ...shell('true')]);
        const started = use.box.start(words);
        await new Promise(resolve =>
          setTimeout(resolve, 20 + Math.random() * (command === 'fetch' ? 900 : 130)),
        );
        started.child.kill('SIGKILL');
        await started.ended;
      }
      await recovers();
    },
    120_000,
  );
});
