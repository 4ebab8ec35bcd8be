import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { IMAGES, imageNumber } from './images.ts';
import { addTestImage, assertWhole, openTestStore, temporaryFolder } from './support.ts';

const CHILD = fileURLToPath(new URL('child.ts', import.meta.url));

function start(args: readonly string[], env: Record<string, string> = {}): ChildProcess {
  return spawn(process.execPath, [CHILD, ...args], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...process.env, ...env },
  });
}

/** Waits for the end. @throws with the child's own words when it failed */
async function succeed(child: ChildProcess): Promise<void> {
  const { code, signal, stderr } = await end(child);
  if (code !== 0) throw new Error(`child ended with ${code ?? signal}: ${stderr}`);
}

async function end(child: ChildProcess) {
  let stderr = '';
  child.stderr?.on('data', chunk => {
    stderr += String(chunk);
  });
  const [code, signal]: [number | null, string | null] = await once(child, 'close').then(
    ([code, signal]) => [code, signal],
  );
  return { code, signal, stderr };
}

/** After this nothing may be left of images, nor of whoever was killed. */
function assertEmptiesOut(dir: string): void {
  const store = openTestStore(dir);
  const { failures } = store.gc({ graceMs: -1, inUse: () => [] });
  expect(failures).toEqual([]);
  expect(store.images()).toEqual([]);
  store.close();
  const root = join(dir, 'cas/v1');
  for (const folder of ['tmp', 'leases', 'images', 'blobs/sha256', 'layers/directory/sha256']) {
    let names: string[] = [];
    try {
      names = readdirSync(join(root, folder));
    } catch {
      // Killed before it was made.
    }
    expect(names, folder).toEqual([]);
  }
}

describe('many processes at once', () => {
  test('30 fetch the same image into a store that is not there yet', async () => {
    using folder = temporaryFolder();
    const dir = join(folder.path, 'data');
    await Promise.all(Array.from({ length: 30 }, () => succeed(start(['fetch', dir]))));
    const store = openTestStore(dir);
    expect(store.images()).toHaveLength(1);
    expect(store.byName('same')?.id).toBe(imageNumber(0).config.digest);
    assertWhole(store);
    store.close();
    expect(readdirSync(join(dir, 'cas/v1/tmp'))).toEqual([]);
    expect(readdirSync(join(dir, 'cas/v1/leases'))).toEqual([]);
    assertEmptiesOut(dir);
  });

  test('20 fetch images that share layers', async () => {
    using folder = temporaryFolder();
    await Promise.all(
      Array.from({ length: 20 }, (_, i) => succeed(start(['fetch-some', folder.path, String(i)]))),
    );
    const store = openTestStore(folder.path);
    expect(store.images()).toHaveLength(IMAGES);
    assertWhole(store);
    store.close();
    assertEmptiesOut(folder.path);
  });

  test('gc beside fetch and prepare loses nothing', async () => {
    using folder = temporaryFolder();
    const collectors = [1, 2, 3].map(() => start(['gc-loop', folder.path, '6000']));
    const workers = Array.from({ length: 12 }, (_, i) =>
      start([i % 2 === 0 ? 'prepare-loop' : 'fetch-some', folder.path, String(i)]),
    );
    await Promise.all([...collectors, ...workers].map(succeed));
    assertEmptiesOut(folder.path);
  });
});

/** Every fault point of the store, as docs/store.md lists them. */
const POINTS = [
  ...readFileSync(new URL('../../docs/store.md', import.meta.url), 'utf8').matchAll(
    /^\| `(store-[a-z-]+)` \|/gm,
  ),
].map(match => match[1] ?? '');

describe('killed', () => {
  test('the documentation lists fault points', () => {
    expect(POINTS.length).toBeGreaterThan(15);
  });

  test.each(POINTS)('at %s: the next process finds a whole store', async point => {
    using folder = temporaryFolder();
    const dir = join(folder.path, 'data');
    const { signal, stderr } = await end(start(['scenario', dir], { TSPOD_FAULT: point }));
    expect(signal, stderr).toBe('SIGKILL');
    const store = openTestStore(dir);
    assertWhole(store);
    for (const index of [0, 1]) await addTestImage(store, imageNumber(index), 'name');
    assertWhole(store);
    store.close();
    await succeed(start(['scenario', dir]));
    assertEmptiesOut(dir);
  });

  test('at random instants, several at once', async () => {
    using folder = temporaryFolder();
    const dir = join(folder.path, 'data');
    for (let round = 0; round < 15; round++) {
      const children = [0, 1, 2].map(() => start(['loop', dir]));
      const ends = children.map(child => end(child));
      await new Promise(resolve => setTimeout(resolve, 120 + Math.random() * 250));
      for (const child of children) child.kill('SIGKILL');
      for (const { signal, stderr } of await Promise.all(ends))
        expect(signal, stderr).toBe('SIGKILL');
      const store = openTestStore(dir);
      assertWhole(store);
      store.close();
    }
    await succeed(start(['scenario', dir]));
    assertEmptiesOut(dir);
  });
});
