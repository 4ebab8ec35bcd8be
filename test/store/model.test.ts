/**
 * The store against a model that fits on a page: random sequences of everything that commands do, with a
 * reopened store, a lost database and a reboot thrown in; after each step both must say the same.
 */
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Digest } from '../../src/image/digest.ts';
import { ensureLayers } from '../../src/store/ensure-layers.ts';
import type { Lease, PodImageUse, Store } from '../../src/store/types.ts';
import { cases, fuzzTimeout } from '../support/fuzz.ts';
import { IMAGES, imageNumber } from './images.ts';
import { addTestImage, assertWhole, openTestStore, temporaryFolder, VERDICT } from './support.ts';

const NAMES = ['a', 'b', 'c'];

interface Model {
  readonly images: Set<number>;
  readonly names: Map<string, number>;
  readonly pods: Set<number>;
  readonly leases: Map<number, Lease>;
}

interface Real {
  store: Store;
  readonly dir: string;
}

type Step = readonly [what: string, image: number, name: number];

const STEPS: fc.Arbitrary<Step[]> = fc.array(
  fc.tuple(
    fc.constantFrom(
      'add',
      'add',
      'rm',
      'gc',
      'gc all',
      'pod',
      'unpod',
      'lease',
      'release',
      'reopen',
      'lose database',
      'reboot',
      'settle',
      'damage',
    ),
    fc.integer({ min: 0, max: 4 }),
    fc.integer({ min: 0, max: NAMES.length - 1 }),
  ),
  { minLength: 3, maxLength: 30 },
);

test('random sequences', { timeout: fuzzTimeout(120_000) }, async () => {
  await fc.assert(
    fc.asyncProperty(STEPS, async steps => {
      using folder = temporaryFolder();
      const real: Real = { store: openTestStore(folder.path), dir: folder.path };
      const model: Model = {
        images: new Set(),
        names: new Map(),
        pods: new Set(),
        leases: new Map(),
      };
      try {
        for (const step of steps) {
          await apply(model, real, step);
          compare(model, real.store);
        }
      } finally {
        for (const lease of model.leases.values()) lease.release();
        real.store.close();
      }
    }),
    { numRuns: cases(60) },
  );
});

async function apply(model: Model, real: Real, [what, number, nameNumber]: Step): Promise<void> {
  const { store, dir } = real;
  const image = imageNumber(number % IMAGES);
  const name = NAMES[nameNumber] ?? 'a';
  const id = image.config.digest;
  switch (what) {
    case 'add':
      await addTestImage(store, image, name);
      model.images.add(number);
      model.names.set(name, number);
      return;
    case 'rm':
      if (!model.images.has(number)) {
        expect(() => store.removeImage(id)).toThrow(/not in the store/);
        return;
      }
      store.removeImage(id);
      forget(model, number);
      return;
    case 'gc':
    case 'gc all': {
      // The grace period is over for all images or for none: the clock has no part in this.
      const graceMs = what === 'gc' ? 3_600_000 : -3_600_000;
      store.gc({ graceMs, inUse: () => [...model.pods].map(use) });
      if (what === 'gc all') {
        for (const each of model.images) {
          if (!model.pods.has(each) && !model.leases.has(each)) forget(model, each);
        }
      }
      expect(contents(dir)).toEqual(expectedContents(model));
      return;
    }
    case 'pod':
      if (model.images.has(number)) model.pods.add(number);
      return;
    case 'unpod':
      model.pods.delete(number);
      return;
    case 'lease': {
      if (!model.images.has(number) || model.leases.has(number)) return;
      const lease = store.lease();
      lease.add(...image.digests);
      model.leases.set(number, lease);
      return;
    }
    case 'release':
      model.leases.get(number)?.release();
      model.leases.delete(number);
      return;
    case 'settle':
      store.settle();
      return;
    case 'reopen':
      dropLeases(model);
      store.close();
      real.store = openTestStore(dir);
      return;
    case 'lose database':
      dropLeases(model);
      store.close();
      rmSync(join(dir, 'cas/v1/store.db'), { force: true });
      real.store = openTestStore(dir);
      return;
    case 'reboot':
      // A reboot ends pods and leases, and with them what only they kept; layers not settled are lost.
      dropLeases(model);
      model.pods.clear();
      reboot(dir);
      for (const record of store.images()) await ensureLayers(store, record);
      return;
    case 'damage':
      if (!model.images.has(number)) return;
      writeFileSync(store.blobs.path(id), 'damaged');
      expect(() => store.blobs.read(id, 1e6)).toThrow(/damaged/);
      await addTestImage(store, image);
      return;
    default:
      throw new Error(what);
  }
}

function compare(model: Model, store: Store): void {
  const ids = (numbers: Iterable<number>) =>
    [...numbers].map(number => imageNumber(number).config.digest).sort();
  expect(
    store
      .images()
      .map(image => image.id)
      .sort(),
  ).toEqual(ids(model.images));
  for (const name of NAMES) {
    const number = model.names.get(name);
    const id = number === undefined ? undefined : imageNumber(number).config.digest;
    expect(store.byName(name)?.id, name).toBe(id);
  }
  assertWhole(store);
  for (const number of [...model.pods, ...model.leases.keys()]) {
    for (const diffId of use(number).layers) expect(store.layers.has(diffId)).toBe(true);
  }
}

function forget(model: Model, number: number): void {
  model.images.delete(number);
  for (const [name, image] of model.names) if (image === number) model.names.delete(name);
}

function dropLeases(model: Model): void {
  for (const lease of model.leases.values()) lease.release();
  model.leases.clear();
}

function use(number: number): PodImageUse {
  const { config, manifest } = imageNumber(number);
  return {
    id: config.digest,
    manifestDigest: manifest.digest,
    name: 'x',
    layers: config.value.diffIds,
    verdict: VERDICT,
  };
}

/** What lies in the store after a gc: exactly what images, pods and leases name. */
function expectedContents(model: Model): { blobs: string[]; layers: string[] } {
  const hex = (digests: Iterable<Digest>) =>
    [...new Set(digests)].map(digest => digest.slice(7)).sort();
  const whole = [...model.images, ...model.leases.keys()].map(imageNumber);
  const pods = [...model.pods].map(use);
  return {
    blobs: hex([
      ...whole.flatMap(image => image.digests),
      // The blob of a layer has the layer's own digest here, so a pod keeps it too.
      ...pods.flatMap(pod => [pod.id, pod.manifestDigest, ...pod.layers]),
    ]),
    layers: hex([
      ...whole.flatMap(image => image.config.value.diffIds),
      ...pods.flatMap(pod => pod.layers),
    ]),
  };
}

function contents(dir: string): { blobs: string[]; layers: string[] } {
  return {
    blobs: names(join(dir, 'cas/v1/blobs/sha256')),
    layers: names(join(dir, 'cas/v1/layers/directory/sha256')),
  };
}

function reboot(dir: string): void {
  const layers = join(dir, 'cas/v1/layers/directory/sha256');
  for (const name of names(layers)) {
    const record = join(layers, name, 'layer.json');
    writeFileSync(
      record,
      readFileSync(record, 'utf8').replace(/"boot":"[^"]*"/, '"boot":"an earlier one"'),
    );
  }
}

function names(folder: string): string[] {
  try {
    return readdirSync(folder).sort();
  } catch {
    return [];
  }
}
