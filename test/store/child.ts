/**
 * A process of its own that uses a store, for tests that run many at once or kill them:
 *   node child.ts MODE DATA-FOLDER [ARGUMENT]
 * Ends with 0 when all laws held.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isDigest } from '../../src/image/digest.ts';
import { imageDigests } from '../../src/store/digests.ts';
import type { PodImageUse } from '../../src/store/types.ts';
import { IMAGES, imageNumber } from './images.ts';
import { addTestImage, openTestStore, plainTree, VERDICT } from './support.ts';

const [mode = '', dir = '', argument = '0'] = process.argv.slice(2);
const store = openTestStore(dir);
const number = Number(argument);

switch (mode) {
  case 'scenario':
    await scenario();
    break;
  case 'fetch':
    await addTestImage(store, imageNumber(0), 'same');
    break;
  case 'fetch-some':
    await fetchSome();
    break;
  case 'prepare-loop':
    await prepareLoop();
    break;
  case 'gc-loop':
    await gcLoop();
    break;
  case 'loop':
    for (;;) await scenario();
  default:
    throw new Error(`unknown mode ${mode}`);
}
store.close();

/** Passes every fault point of the store. */
async function scenario(): Promise<void> {
  const [a, b] = [imageNumber(0), imageNumber(1)];
  const first = await addTestImage(store, a, 'name');
  await addTestImage(store, b, 'name');
  store.settle();
  if (store.byIdPrefix(first.id) !== undefined) {
    try {
      store.removeImage(first.id);
    } catch (error) {
      // Another process of the same test was faster.
      if (!(error instanceof Error && /is not in the store/.test(error.message))) throw error;
    }
  }
  store.gc({ graceMs: 0, inUse: () => [] });
}

async function fetchSome(): Promise<void> {
  for (let i = 0; i < 5; i++) {
    const image = imageNumber((number + i) % IMAGES);
    const lease = store.lease();
    const record = await addTestImage(store, image, `name-${number}`, lease);
    for (const layer of record.layers) {
      if (!store.layers.has(layer.diffId)) throw new Error(`layer ${layer.diffId} was lost`);
    }
    store.manifest(record);
    lease.release();
  }
}

/** What prepare does: lease, look, write down in a pod's folder, let go; the layers stay with the pod. */
async function prepareLoop(): Promise<void> {
  const pods = join(dir, 'pods');
  mkdirSync(pods, { recursive: true });
  for (let i = 0; i < 12; i++) {
    const lease = store.lease();
    const record = await addTestImage(
      store,
      imageNumber((number * 7 + i) % IMAGES),
      undefined,
      lease,
    );
    lease.add(...imageDigests(record));
    const use: PodImageUse = {
      id: record.id,
      manifestDigest: record.manifestDigest,
      name: 'x',
      layers: record.layers.map(layer => layer.diffId),
      verdict: VERDICT,
    };
    const pod = join(pods, `${number}-${i}`);
    writeFileSync(pod, JSON.stringify(use));
    lease.release();
    for (let look = 0; look < 3; look++) {
      await new Promise(resolve => setTimeout(resolve, 5));
      for (const diffId of use.layers) {
        if (!existsSync(join(plainTree(store, diffId), 'content'))) {
          throw new Error(`layer ${diffId} of a pod was lost`);
        }
      }
    }
    rmSync(pod);
  }
}

async function gcLoop(): Promise<void> {
  const end = Date.now() + number;
  while (Date.now() < end) {
    const { failures } = store.gc({ graceMs: 0, inUse: podUses });
    if (failures.length > 0) throw new Error(failures.join('; '));
    await new Promise(resolve => setTimeout(resolve, 1));
  }
}

function* podUses(): Generator<PodImageUse> {
  const pods = join(dir, 'pods');
  if (!existsSync(pods)) return;
  for (const name of readdirSync(pods)) {
    let value: { id: unknown; manifestDigest: unknown; layers: unknown[] };
    try {
      value = JSON.parse(readFileSync(join(pods, name), 'utf8'));
    } catch {
      // Being written by a process that holds a lease, or just removed.
      continue;
    }
    const { id, manifestDigest, layers } = value;
    if (!isDigest(id) || !isDigest(manifestDigest)) throw new Error('bad pod');
    yield { id, manifestDigest, name, layers: layers.filter(isDigest), verdict: VERDICT };
  }
}
