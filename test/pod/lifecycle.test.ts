/** States from folders and locks; real locks of real processes. */
import { spawn, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { TspodError } from '../../src/errors.ts';
import {
  createPod,
  findPod,
  listPods,
  lockPod,
  type PodFolder,
  type PodState,
  podProcess,
  viewPod,
  whileNobodyMakesPods,
} from '../../src/pod/lifecycle.ts';
import { bootId, processStat } from '../../src/sys/process.ts';
import { ended, PodsFolder } from './pods-folder.ts';

const READER = fileURLToPath(new URL('reader.ts', import.meta.url));
let house: PodsFolder;

beforeEach(() => {
  house = new PodsFolder();
});
afterEach(() => house.close());

function stateOf(uuid: string): PodState | undefined {
  return listPods(house.dir).find(pod => pod.uuid === uuid)?.state;
}

/** The `pid` file of a live process. */
function pidFile(pid: number, changed: { startTime?: string; boot?: string } = {}): string {
  const startTime = changed.startTime ?? processStat(pid)?.startTime;
  return `${pid} ${startTime} ${changed.boot ?? bootId()}\n`;
}

function refusal(action: () => unknown): TspodError {
  try {
    action();
  } catch (error) {
    if (error instanceof TspodError) return error;
    throw error;
  }
  throw new Error('was not refused');
}

describe('state by folder and lock', () => {
  const TABLE: readonly (readonly [PodFolder, free: PodState, held: PodState])[] = [
    ['embryo', 'embryo', 'embryo'],
    ['prepare', 'aborted prepare', 'preparing'],
    ['prepared', 'prepared', 'prepared'],
    ['run', 'exited', 'running'],
    ['exited-garbage', 'exited garbage', 'exited deleting'],
    ['garbage', 'garbage', 'deleting'],
  ];

  test.each(TABLE)(
    '%s: free "%s", held "%s", after kill -9 free again',
    async (folder, free, held) => {
      const uuid = house.add(folder);
      expect(stateOf(uuid)).toBe(free);
      const holder = await house.hold(folder, uuid);
      expect(stateOf(uuid)).toBe(held);
      expect(viewPod(house.dir, uuid)?.state).toBe(held);
      await ended(holder);
      expect(stateOf(uuid)).toBe(free);
    },
  );

  test('a pod that was made half, without a lock, is free', () => {
    const uuid = house.add('prepare');
    rmSync(join(house.path('prepare', uuid), 'lock'));
    expect(stateOf(uuid)).toBe('aborted prepare');
    const handle = lockPod(house.dir, uuid);
    expect(stateOf(uuid)).toBe('preparing');
    handle?.close();
  });

  test('probing takes nothing from anybody: many readers, one writer', async () => {
    const uuid = house.add('run');
    const readers = Array.from({ length: 3 }, () =>
      spawn(process.execPath, [READER, house.dir], { stdio: ['ignore', 'pipe', 'inherit'] }),
    );
    for (const { stdout } of readers) await new Promise(resolve => stdout.once('data', resolve));
    try {
      for (let round = 0; round < 200; round++) {
        const handle = lockPod(house.dir, uuid);
        expect(handle).toBeDefined();
        handle?.close();
      }
    } finally {
      for (const reader of readers) await ended(reader);
    }
  });
});

describe('a process that lost the lock', () => {
  test('a pod in run with a free lock runs while its process lives', async () => {
    const app = spawn('sleep', ['60'], { stdio: 'ignore' });
    const uuid = house.add('run', { pid: pidFile(app.pid ?? 0) });
    expect(stateOf(uuid)).toBe('running');
    expect(podProcess(house.path('run', uuid))?.pid).toBe(app.pid);
    expect(lockPod(house.dir, uuid)).toBeUndefined();
    await ended(app);
    expect(stateOf(uuid)).toBe('exited');
    const handle = lockPod(house.dir, uuid);
    expect(handle).toBeDefined();
    handle?.close();
  });

  test('a zombie has ended', async () => {
    // nobody waits for the shell's child once the shell has become cat
    const parent = spawn('sh', ['-c', 'sleep 1000 & echo $!; exec cat'], {
      stdio: ['pipe', 'pipe', 'ignore'],
    });
    const pid = Number(await new Promise(resolve => parent.stdout.once('data', resolve)));
    await expect
      .poll(() => readFileSync(`/proc/${parent.pid}/comm`, 'latin1'), { timeout: 10_000 })
      .toBe('cat\n');
    process.kill(pid, 'SIGKILL');
    while (processStat(pid)?.state !== 'Z') await new Promise(resolve => setTimeout(resolve, 5));
    const uuid = house.add('run', { pid: pidFile(pid) });
    expect(stateOf(uuid)).toBe('exited');
    await ended(parent);
  });

  test.each([
    ['another start time', pidFile(process.pid, { startTime: '1' })],
    ['another boot', pidFile(process.pid, { boot: '00000000-0000-0000-0000-000000000000' })],
    ['a number alone', `${process.pid}\n`],
    ['half a line', pidFile(process.pid).slice(0, -5)],
    ['no number', 'x y z\n'],
    ['nothing', ''],
    ['init, by another time', pidFile(1, { startTime: '99999999' })],
  ])('a number that belongs to somebody else by now: %s', (_, text) => {
    expect(stateOf(house.add('run', { pid: text }))).toBe('exited');
  });
});

describe('what does not belong there', () => {
  test('breaks nothing: list, find, lock see the other pods', () => {
    const good = house.add('run', { 'pod-created': '' });
    const pods = join(house.dir, 'pods');
    const uuid = () => readFileSync('/proc/sys/kernel/random/uuid', 'latin1').trim();
    mkdirSync(join(pods, 'run', 'no-uuid'));
    mkdirSync(join(pods, 'run', uuid().toUpperCase()));
    mkdirSync(join(pods, 'foreign'));
    writeFileSync(join(pods, 'run', uuid()), 'a file');
    symlinkSync('/etc', join(pods, 'run', uuid()));
    writeFileSync(join(pods, 'prepare'), 'no folder');
    const damaged = [
      (path: string) => symlinkSync('/etc/passwd', join(path, 'lock')),
      (path: string) => symlinkSync('/nowhere', join(path, 'lock')),
      (path: string) => mkdirSync(join(path, 'lock')),
      (path: string) => spawnSync('mkfifo', [join(path, 'lock')]),
      (path: string) => mkdirSync(join(path, 'pid')),
      (path: string) => mkdirSync(join(path, 'name')),
      (path: string) => writeFileSync(join(path, 'pod'), '{'),
    ].map(damage => {
      const path = join(pods, 'run', uuid());
      mkdirSync(path);
      damage(path);
      return path.split('/').at(-1) ?? '';
    });
    const listed = listPods(house.dir).map(pod => pod.uuid);
    expect(listed).toEqual([good, ...damaged].sort());
    expect(listPods(house.dir).every(pod => pod.state === 'exited')).toBe(true);
    expect(findPod(house.dir, good).state).toBe('exited');
    lockPod(house.dir, good)?.close();
  });

  test('a data folder that is not there has no pods', () => {
    expect(listPods(join(house.dir, 'none'))).toEqual([]);
    expect(refusal(() => findPod(join(house.dir, 'none'), 'ab')).code).toBe('not-found');
  });
});

describe('naming a pod', () => {
  const A = 'aaaaaaaa-0000-4000-8000-000000000001';
  const B = 'aaaaaaab-0000-4000-8000-000000000002';

  test('by UUID, by its beginning, with space around', () => {
    house.add('run', {}, A);
    house.add('prepared', {}, B);
    for (const text of [A, 'aaaaaaaa', `${A}\n`, ' aaaaaaaa- '])
      expect(findPod(house.dir, text).uuid).toBe(A);
  });

  test('nothing, nobody, several', () => {
    house.add('run', {}, A);
    house.add('exited-garbage', {}, B);
    expect(refusal(() => findPod(house.dir, ' '))).toMatchObject({
      code: 'usage',
      message: 'UUID cannot be empty',
    });
    expect(refusal(() => findPod(house.dir, 'bbbb'))).toMatchObject({
      code: 'not-found',
      message: 'no matches found for "bbbb"',
    });
    expect(refusal(() => findPod(house.dir, 'aaaa'))).toMatchObject({
      code: 'ambiguous',
      message: 'ambiguous uuid, 2 matches',
    });
  });

  test('garbage and embryos can’t be named', () => {
    house.add('garbage', {}, A);
    house.add('embryo', {}, B);
    expect(refusal(() => findPod(house.dir, 'aaaa')).code).toBe('not-found');
    expect(viewPod(house.dir, A)?.state).toBe('garbage');
  });

  test('by name; the living before those that lost it', () => {
    house.add('prepare', { name: 'web' }, A);
    expect(findPod(house.dir, 'web').uuid).toBe(A);
    house.add('run', { name: 'web' }, B);
    expect(findPod(house.dir, 'web').uuid).toBe(B);
    expect(refusal(() => findPod(house.dir, 'we')).code).toBe('not-found');
  });
});

describe('making a pod', () => {
  test('it is locked from the instant that it can be seen as dead', async () => {
    const uuid = readFileSync('/proc/sys/kernel/random/uuid', 'latin1').trim();
    const handle = createPod(house.dir, uuid);
    expect(lockPod(house.dir, uuid)).toBeUndefined();
    handle.moveTo('prepare');
    expect(stateOf(uuid)).toBe('preparing');
    expect(lockPod(house.dir, uuid)).toBeUndefined();
    handle.moveToPrepared();
    handle.moveTo('run');
    expect(stateOf(uuid)).toBe('running');
    handle.close();
    expect(stateOf(uuid)).toBe('exited');
    expect(readdirSync(house.path('run', uuid)).sort()).toEqual(['lock', 'pod-created']);
  });

  test('the same UUID twice is refused', () => {
    const uuid = house.add('embryo');
    expect(refusal(() => createPod(house.dir, uuid)).code).toBe('system');
  });

  test('whoever clears embryos waits for whoever is making one', async () => {
    mkdirSync(join(house.dir, 'pods'));
    const lock = join(house.dir, 'pods/embryo.lock');
    const made = join(house.dir, 'made');
    const maker = spawn('flock', ['-s', lock, 'sh', '-c', `echo held; sleep 0.2; echo >${made}`], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    await new Promise(resolve => maker.stdout.once('data', resolve));
    let called = false;
    whileNobodyMakesPods(house.dir, () => {
      called = true;
      expect(existsSync(made)).toBe(true);
    });
    expect(called).toBe(true);
    await ended(maker);
  });
});
