/** Archives of `docker save`: the shapes that tools write, and what a hostile one may try. */
import { mkdirSync, readdirSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { TspodError } from '../../src/errors.ts';
import { hostPlatform } from '../../src/image/platform.ts';
import { findImage } from '../../src/store/find-image.ts';
import type { Lease, Store } from '../../src/store/types.ts';
import { chooseSavedImage, parseSavedImages } from '../../stage0/fetch/docker-manifest.ts';
import { type FetchedImage, fetchImage, type PullPolicy } from '../../stage0/fetch/fetch.ts';
import { cases } from '../support/fuzz.ts';
import { type Member, tar } from '../unpack/tar-writer.ts';
import { folder, json, removeFolder, sha256, testContext, testStore } from './support.ts';

let dir: string;
let store: Store;
let lease: Lease;

beforeEach(() => {
  dir = folder();
  mkdirSync(join(dir, 'data'));
  store = testStore(join(dir, 'data'));
  lease = store.lease();
});

afterEach(() => {
  lease.release();
  store.close();
  removeFolder(dir);
});

const LAYER = tar({ name: 'hello', data: 'hello\n' });
const OTHER = tar({ name: 'other', data: 'other\n' });

function configOf(layers: readonly (Uint8Array | string)[], extra: object = {}): Buffer {
  const { os, architecture } = hostPlatform();
  const rootfs = { type: 'layers', diff_ids: layers.map(sha256) };
  return Buffer.from(json({ os, architecture, config: { Cmd: ['/x'] }, rootfs, ...extra }));
}

const CONFIG = configOf([LAYER]);
const CONFIG_NAME = `${sha256(CONFIG).slice(7)}.json`;

function manifest(...images: readonly object[]): Member {
  return { name: 'manifest.json', data: Buffer.from(json(images)) };
}

const IMAGE = { Config: CONFIG_NAME, RepoTags: ['busybox:1'], Layers: ['a/layer.tar'] };
const FILES: readonly Member[] = [
  { name: CONFIG_NAME, data: CONFIG },
  { name: 'a/layer.tar', data: LAYER },
];

function save(name: string, bytes: Uint8Array): string {
  const path = join(dir, name);
  writeFileSync(path, bytes);
  return path;
}

function get(text: string, pullPolicy: PullPolicy = 'update'): Promise<FetchedImage> {
  return fetchImage(testContext(join(dir, 'data')), store, text, { pullPolicy, lease });
}

async function failure(...members: readonly Member[]): Promise<TspodError> {
  const error: unknown = await get(`docker-archive:${save('bad.tar', tar(...members))}`).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof TspodError)) throw new Error(`not refused: ${String(error)}`);
  expect(store.images()).toEqual([]);
  return error;
}

/** Open files below the test's folder, but for the store's own. */
function openBelow(): string[] {
  return readdirSync('/proc/self/fd')
    .flatMap(fd => {
      try {
        return [readlinkSync(`/proc/self/fd/${fd}`)];
      } catch {
        return []; // the one that listed them
      }
    })
    .filter(path => path.startsWith(dir) && !/\/leases\/|store\.db/.test(path));
}

describe('shapes', () => {
  const whole = tar(manifest(IMAGE), ...FILES);

  test.each([
    ['plain', whole],
    ['gzip', gzipSync(whole)],
    [
      'two gzip members',
      Buffer.concat([gzipSync(whole.subarray(0, 600)), gzipSync(whole.subarray(600))]),
    ],
    ['zstd', zstdCompressSync(whole)],
  ])('%s, by its content and not by its name', async (_, bytes) => {
    const path = save('image.bin', bytes);
    const { image, name } = await get(path);
    expect(image).toMatchObject({ id: sha256(CONFIG), names: [`docker-archive:${path}`] });
    expect(name).toBe(`docker-archive:${path}`);
    expect((await get(path, 'never')).image.id).toBe(image.id);
    expect(readdirSync(join(dir, 'data/cas/v1/tmp'))).toEqual([]);
  });

  test('members of blobs/, a list beside a layout, and no tags', async () => {
    const config = `blobs/sha256/${sha256(CONFIG).slice(7)}`;
    const layer = `blobs/sha256/${sha256(LAYER).slice(7)}`;
    const members = [
      { name: './oci-layout', data: '{"imageLayoutVersion":"1.0.0"}' },
      { name: `./${config}`, data: CONFIG },
      { name: `./${layer}`, data: LAYER },
      manifest({ Config: config, RepoTags: null, Layers: [layer] }),
    ];
    const { image } = await get(`docker-archive:${save('x.tar', tar(...members))}`);
    expect(image.layers).toMatchObject([{ diffId: sha256(LAYER) }]);
  });

  test('a layer may be compressed, and a link to one of another image', async () => {
    const config = configOf([LAYER, LAYER, OTHER]);
    const members: Member[] = [
      { name: 'c.json', data: config },
      { name: 'a/layer.tar', data: gzipSync(LAYER) },
      { name: 'b/layer.tar', type: '2', link: '../a/layer.tar' },
      { name: 'c/layer.tar', type: '1', link: 'd/layer.tar' },
      { name: 'd/layer.tar', data: OTHER },
      manifest({ Config: 'c.json', Layers: ['a/layer.tar', 'b/layer.tar', 'c/layer.tar'] }),
    ];
    const { image } = await get(`docker-archive:${save('x.tar', tar(...members))}`);
    expect(image.layers.map(({ diffId }) => diffId)).toEqual([LAYER, LAYER, OTHER].map(sha256));
    expect(image.layers[0]?.blob.digest).toBe(sha256(gzipSync(LAYER)));
  });

  test('several images are chosen by tag or number, and listed when nobody chose', async () => {
    const config = configOf([LAYER], { author: 'two' });
    const two = { Config: 'two.json', RepoTags: ['example.com/a/b:2'], Layers: ['a/layer.tar'] };
    const nameless = { Config: 'two.json', Layers: ['a/layer.tar'] };
    const path = save(
      'x.tar',
      tar(manifest(IMAGE, two, nameless), ...FILES, { name: 'two.json', data: config }),
    );
    const hint = 'there is docker.io/library/busybox:1, example.com/a/b:2, @2';
    await expect(get(path)).rejects.toMatchObject({ code: 'ambiguous', hint });
    await expect(get(`docker-archive:${path}:busybox`)).rejects.toMatchObject({
      code: 'not-found',
      hint,
    });
    const first = await get(`docker-archive:${path}:busybox:1`);
    expect(first).toMatchObject({
      image: { id: sha256(CONFIG) },
      name: `docker-archive:${path}:docker.io/library/busybox:1`,
    });
    expect((await get(`docker-archive:${path}:example.com/a/b:2`)).image.id).toBe(sha256(config));
    expect((await get(`docker-archive:${path}:@2`)).image.id).toBe(sha256(config));
  });
});

describe('attacks', () => {
  test('CVE-2026-50195: tags name nothing in the store', async () => {
    const image = {
      ...IMAGE,
      RepoTags: ['docker.io/library/nginx:latest', '/etc/passwd', 'a\u001b[2J'],
    };
    await get(`docker-archive:${save('x.tar', tar(manifest(image), ...FILES))}:nginx`);
    for (const name of [
      'nginx',
      'library/nginx',
      'docker://nginx',
      'docker.io/library/nginx:latest',
    ]) {
      expect(() => findImage(store, name), name).toThrow(TspodError);
    }
  });

  test.each([
    ['/etc/passwd', 'a link out of the archive'],
    ['../../etc/passwd', 'a link out of the archive'],
    ['../missing', 'is missing'],
    ['../a/layer.tar', 'links in a row'],
  ])('CVE-2014-9356: a layer that links to %s', async (link, why) => {
    const error = await failure(
      manifest(IMAGE),
      { name: CONFIG_NAME, data: CONFIG },
      { name: 'a/layer.tar', type: '2', link },
    );
    expect(error.message).toContain(why);
  });

  test.each(['../../../../etc/hostname', '/etc/hostname', 'nowhere', '__proto__'])(
    'CVE-2014-6407: a config at %s',
    async Config => {
      const error = await failure(manifest({ ...IMAGE, Config }), ...FILES);
      expect(error).toMatchObject({ code: 'protocol' });
      expect(error.message).toContain('is missing');
    },
  );

  test('CVE-2024-3727: a diff-id that is no digest', async () => {
    const bad = configOf([], { rootfs: { type: 'layers', diff_ids: ['sha256:../../x'] } });
    const error = await failure(
      manifest({ ...IMAGE, Config: 'c.json' }),
      { name: 'c.json', data: bad },
      { name: 'a/layer.tar', data: LAYER },
    );
    expect(error.code).toBe('protocol');
  });

  test.each([
    [
      'a layer that is another',
      [
        { name: CONFIG_NAME, data: CONFIG },
        { name: 'a/layer.tar', data: OTHER },
      ],
      'digest',
    ],
    [
      'a compressed layer that is another',
      [
        { name: CONFIG_NAME, data: CONFIG },
        { name: 'a/layer.tar', data: gzipSync(OTHER) },
      ],
      'digest',
    ],
    [
      'a config that its name denies',
      [
        { name: CONFIG_NAME, data: configOf([LAYER, OTHER]) },
        { name: 'a/layer.tar', data: LAYER },
      ],
      'digest',
    ],
    ['a layer twice', [...FILES, { name: './a/layer.tar', data: OTHER }], 'protocol'],
    [
      'a link beside the file',
      [...FILES, { name: 'a/layer.tar', type: '2', link: CONFIG_NAME }],
      'protocol',
    ],
    ['no layer', [{ name: CONFIG_NAME, data: CONFIG }], 'protocol'],
  ] satisfies readonly [string, readonly Member[], string][])('%s', async (_, members, code) => {
    expect(await failure(manifest(IMAGE), ...members)).toMatchObject({ code });
  });

  test('more or fewer layers than the config has', async () => {
    const error = await failure(manifest({ ...IMAGE, Layers: [] }), ...FILES);
    expect(error.message).toContain('manifest.json has 0 layers and the config 1');
  });

  test('CVE-2023-25153: a huge manifest.json, config, list of images', async () => {
    const huge = Buffer.alloc(5 * 1024 * 1024, ' ');
    expect((await failure({ name: 'manifest.json', data: huge })).code).toBe('limit');
    const config = await failure(manifest({ ...IMAGE, Config: 'c' }), { name: 'c', data: huge });
    expect(config.code).toBe('limit');
    const many = Array.from({ length: 1001 }, () => IMAGE);
    expect((await failure(manifest(...many), ...FILES)).code).toBe('limit');
  });

  test('a bomb of zeros is refused before it fills the disk', async () => {
    const path = save('bomb.gz', gzipSync(Buffer.alloc(300 * 1024 * 1024)));
    await expect(get(`docker-archive:${path}`)).rejects.toMatchObject({ code: 'limit' });
    expect(readdirSync(join(dir, 'data/cas/v1/tmp'))).toEqual([]);
  });

  test.each([
    ['nothing', Buffer.alloc(0)],
    ['an empty tar', tar()],
    ['text', Buffer.from('hello '.repeat(200))],
    ['half a tar', tar(manifest(IMAGE), ...FILES).subarray(0, 1400)],
    ['half a gzip', gzipSync(tar(manifest(IMAGE), ...FILES)).subarray(0, 200)],
  ])('%s is no archive', async (_, bytes) => {
    const path = save('x', bytes);
    for (const text of [path, `docker-archive:${path}`, `oci-archive:${path}`]) {
      await expect(get(text)).rejects.toThrow(TspodError);
    }
    // A stream that was destroyed closes its descriptor a moment later.
    await expect.poll(openBelow).toEqual([]);
  });
});

test('manifest.json: any bytes give images or a TspodError', () => {
  const item = fc.oneof(
    fc.jsonValue(),
    fc.record({
      Config: fc.string(),
      RepoTags: fc.array(fc.string()),
      Layers: fc.array(fc.string()),
    }),
  );
  const text = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc.array(item, { maxLength: 4 }).map(list => json(list)),
  );
  fc.assert(
    fc.property(
      text,
      fc.option(fc.constantFrom('@0', '@3', 'docker.io/library/a:b')),
      (bytes, ref) => {
        try {
          const images = parseSavedImages(bytes, 'image x');
          const chosen = chooseSavedImage(images, ref ?? undefined, 'image x');
          expect(images).toContain(chosen);
        } catch (error) {
          expect(error).toBeInstanceOf(TspodError);
          expect(error instanceof Error && /\p{Cc}/u.test(error.message)).toBe(false);
        }
      },
    ),
    { numRuns: cases(500) },
  );
});
