/**
 * `kill -9` at every step of a pod's life: afterwards `list` tells the state that the pod is truly in, gc
 * takes everything away at once, and the next run works. Each fault point must have been reached, so that
 * none is tested in name only.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { shell, useSandbox } from '../functional/sandbox.ts';
import { type Ended, TSPOD } from '../support/tspod.ts';

const use = useSandbox();
/** More than any plan has. */
const MOST_STEPS = 100;

async function states(): Promise<readonly string[]> {
  const listed = await use.box.run(['list', '--format=json']);
  expect(listed).toMatchObject({ status: 0, stderr: '' });
  const pods: readonly { state: string }[] = JSON.parse(listed.stdout);
  return pods.map(({ state }) => state);
}

/** gc leaves nothing of any pod, and the next run works. */
async function recovers(point: string): Promise<void> {
  const collected = await use.box.run(['gc', '--grace-period=0s', '--expire-prepared=0s']);
  expect(collected.status, `${point}: ${collected.stderr}`).toBe(0);
  expect(await states(), point).toEqual([]);
  const pods = join(use.box.dir, 'pods');
  // Killed early it has made nothing at all.
  const folders = existsSync(pods)
    ? readdirSync(pods, { withFileTypes: true }).filter(entry => entry.isDirectory())
    : [];
  for (const { name } of folders)
    expect(readdirSync(join(pods, name)), `${point}: ${name}`).toEqual([]);
  const next = await use.box.run(['run', '--rm', ...shell('echo alive')]);
  expect(next, point).toMatchObject({ status: 0, stdout: 'alive\n', stderr: '' });
}

function faulty(point: string, words: readonly string[]): Promise<Ended> {
  return use.box.run(words, { env: { TSPOD_FAULT: point } });
}

async function prepare(): Promise<string> {
  const ended = await use.box.run(['prepare', ...shell('true')]);
  expect(ended.status).toBe(0);
  return ended.stdout.trim();
}

async function exited(): Promise<string> {
  const file = join(use.box.root, 'exited');
  expect((await use.box.run(['run', `--uuid-file-save=${file}`, ...shell('true')])).status).toBe(0);
  return readFileSync(file, 'utf8');
}

/** Fault points in the order in which they are passed, each with the state that the pod is left in. */
type Points = readonly (readonly [point: string, state: string])[];

const PREPARING: Points = [
  ['pod-made', 'embryo'],
  ['pod-created', 'embryo'],
  ['pod-to-prepare', 'embryo'],
  ['pod-in-prepare', 'aborted prepare'],
  ['prepare-written', 'aborted prepare'],
  ['prepare-rootfs', 'aborted prepare'],
  ['prepare-plan', 'aborted prepare'],
];

const STARTING: Points = [
  ['pod-in-run', 'exited'],
  ['run-handoff', 'exited'],
  ['lock-taken', 'exited'],
  ['step-1', 'exited'],
  ['before-exec', 'exited'],
];

const CASES: readonly (readonly [
  what: string,
  words: () => Promise<readonly string[]>,
  points: Points,
])[] = [
  [
    'prepare',
    async () => ['prepare', ...shell('true')],
    [...PREPARING, ['pod-to-prepared', 'aborted prepare'], ['pod-in-prepared', 'prepared']],
  ],
  [
    'prepare --no-overlay --pod-name',
    async () => ['prepare', '--no-overlay', '--pod-name=web', ...shell('true')],
    [...PREPARING, ['pod-to-prepared', 'aborted prepare'], ['pod-in-prepared', 'prepared']],
  ],
  [
    'run',
    async () => ['run', ...shell('true')],
    [...PREPARING, ['pod-to-run', 'aborted prepare'], ...STARTING],
  ],
  [
    'run-prepared',
    async () => ['run-prepared', await prepare()],
    [['pod-to-run', 'prepared'], ...STARTING],
  ],
  [
    'rm of an exited pod',
    async () => ['rm', await exited()],
    [
      ['pod-to-exited-garbage', 'exited'],
      ['pod-in-exited-garbage', 'exited garbage'],
      ['pod-remove', 'exited garbage'],
    ],
  ],
  [
    'rm of a prepared pod',
    async () => ['rm', await prepare()],
    [
      ['pod-to-garbage', 'prepared'],
      ['pod-in-garbage', 'garbage'],
      ['pod-remove', 'garbage'],
    ],
  ],
  [
    'gc',
    async () => {
      await exited();
      return ['gc', '--grace-period=0s'];
    },
    [
      ['pod-to-exited-garbage', 'exited'],
      ['pod-in-exited-garbage', 'exited garbage'],
      ['gc-remove', 'exited garbage'],
      ['pod-remove', 'exited garbage'],
    ],
  ],
];

describe.each(CASES)('kill -9 in %s', (_, words, points) => {
  test('at every fault point', async () => {
    await use.box.run(['fetch', shell('')[0] ?? '']);
    for (const [point, state] of points) {
      const killed = await faulty(point, await words());
      expect(killed.signal, `${point} was not reached: ${killed.stderr}`).toBe('SIGKILL');
      expect(await states(), point).toEqual([state]);
      await recovers(point);
    }
  });
});

describe('kill -9 of the launcher', () => {
  test('at every step of a plan', async () => {
    let step = 1;
    for (; step < MOST_STEPS; step++) {
      const ended = await faulty(`step-${step}`, ['run', ...shell('true')]);
      expect(await states(), `step ${step}`).toEqual(['exited']);
      if (ended.status === 0) break;
      expect(ended.signal).toBe('SIGKILL');
      await recovers(`step ${step}`);
    }
    expect(step).toBeGreaterThan(3);
    await recovers('steps');
  });

  test('started alone, without Node', async () => {
    const launch = join(TSPOD, '../../dist/launch');
    const points: Points = [
      ['locked', 'prepared'],
      ['renamed', 'exited'],
      ['lock-taken', 'exited'],
      ['before-exec', 'exited'],
    ];
    for (const [point, state] of points) {
      const folder = join(use.box.dir, 'pods/prepared', await prepare());
      const words = ['-m', '--propagation', 'private', launch, folder];
      const ended = await use.box.spawn('unshare', words, { env: { TSPOD_FAULT: point } }).ended;
      expect(ended.signal, point).toBe('SIGKILL');
      expect(await states(), point).toEqual([state]);
      await recovers(point);
    }
  });

  test('with --rm and --result: killed as parent it leaves an ended pod; killed as child it cleans up', async () => {
    const result = join(use.box.root, 'result');
    const words = ['run', '--rm', `--result=${result}`, ...shell('true')];
    for (let step = 1; step < MOST_STEPS; step++) {
      const ended = await faulty(`step-${step}`, words);
      if (ended.status === 0) break;
      if (ended.signal === 'SIGKILL') {
        expect(await states(), `step ${step}`).toEqual(['exited']);
        await recovers(`step ${step}`);
        continue;
      }
      expect(ended.status, ended.stderr).toBe(254);
      expect(await states(), `step ${step}`).toEqual([]);
      expect(JSON.parse(readFileSync(result, 'utf8'))).toMatchObject({ reason: 'launch-failed' });
    }
    await recovers('steps');
  });
});

describe('kill -9 at random instants', () => {
  const ROUNDS = 8;
  const REST = ['prepared', 'exited', 'exited garbage', 'garbage', 'embryo', 'aborted prepare'];

  test.each([
    ['run', async () => ['run', ...shell('true')]],
    ['run --rm', async () => ['run', '--rm', ...shell('true')]],
    ['run-prepared', async () => ['run-prepared', await prepare()]],
    ['rm', async () => ['rm', await exited()]],
    [
      'gc',
      async () => {
        await exited();
        await exited();
        return ['gc', '--grace-period=0s'];
      },
    ],
  ] as const)('%s', async (name, words) => {
    await use.box.run(['fetch', shell('')[0] ?? '']);
    for (let round = 0; round < ROUNDS; round++) {
      const started = use.box.start(await words());
      await new Promise(resolve => setTimeout(resolve, 10 + Math.random() * 90));
      started.child.kill('SIGKILL');
      await started.ended;
    }
    // what `run --rm` left behind to clean up may still be at it
    await expect
      .poll(async () => (await states()).filter(state => !REST.includes(state)))
      .toEqual([]);
    await recovers(name);
  });
});
