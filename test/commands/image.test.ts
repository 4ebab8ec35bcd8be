import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { Context } from '../../src/context.ts';
import { writeImageUse } from '../../src/pod/folder.ts';
import { findImage } from '../../src/store/find-image.ts';
import type { ImageRecord, Store } from '../../src/store/types.ts';
import { run as catManifest } from '../../stage0/commands/image-cat-manifest.ts';
import { run as gc } from '../../stage0/commands/image-gc.ts';
import { type ImageListArgs, run as list } from '../../stage0/commands/image-list.ts';
import { run as rm } from '../../stage0/commands/image-rm.ts';
import { addTestImage, openTestStore, temporaryFolder, testImage } from '../store/support.ts';

const BUSYBOX = 'docker://127.0.0.1:5000/busybox:latest';
const REDIS = 'docker://docker.io/library/redis:7';

let folder: ReturnType<typeof temporaryFolder>;
let store: Store;
let busybox: ImageRecord;
let redis: ImageRecord;
let printed: string;

beforeEach(async () => {
  folder = temporaryFolder();
  store = openTestStore(folder.path);
  busybox = await addTestImage(store, testImage('busybox', ['b']), BUSYBOX);
  await new Promise(resolve => setTimeout(resolve, 5));
  redis = await addTestImage(store, testImage('redis', ['r'.repeat(3_000_000)]), REDIS);
  printed = '';
  vi.spyOn(process.stdout, 'write').mockImplementation(chunk => {
    printed += typeof chunk === 'string' ? chunk : Buffer.from(chunk).toString();
    return true;
  });
});

afterEach(() => {
  vi.restoreAllMocks();
  store.close();
  folder[Symbol.dispose]();
});

function context(program: Context['program'] = 'tspod'): Context {
  return {
    program,
    command: 'list',
    dir: folder.path,
    systemConfig: '/nonexistent',
    localConfig: '/nonexistent',
    userConfig: '',
    insecure: new Set(),
    trustKeysFromHttps: false,
    offline: true,
    debug: false,
  };
}

const FLAGS: ImageListArgs['flags'] = {
  fields: [],
  sort: [],
  order: 'asc',
  noLegend: false,
  full: false,
  format: undefined,
};

async function listed(
  flags: Partial<ImageListArgs['flags']> = {},
  program: Context['program'] = 'tspod',
): Promise<string> {
  printed = '';
  expect(await list(context(program), { positionals: [], flags: { ...FLAGS, ...flags } })).toBe(0);
  return printed;
}

function rows(text: string): string[][] {
  return text
    .trimEnd()
    .split('\n')
    .map(line => line.split(/\t+/));
}

describe('image list', () => {
  test('rkt’s columns, the oldest import first', async () => {
    const [header, first, second] = rows(await listed());
    expect(header).toEqual(['ID', 'NAME', 'SIZE', 'IMPORT TIME', 'LAST USED']);
    expect(first?.slice(0, 2)).toEqual([busybox.id.slice(0, 19), BUSYBOX]);
    expect(second?.slice(0, 3)).toEqual([redis.id.slice(0, 19), REDIS, '5.7MiB']);
    expect(first?.[4]).toMatch(/^(now|\d+ seconds? ago)$/);
  });

  test('--full: whole ids, bytes, long times', async () => {
    const [, , second] = rows(await listed({ full: true }));
    expect(second?.[0]).toBe(redis.id);
    expect(second?.[2]).toBe(String(redis.size));
    expect(second?.[3]).toMatch(/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,3})? [+-]\d{4} \S+$/);
  });

  test('--fields, --no-legend, --sort, --order', async () => {
    expect(await listed({ fields: ['name'], noLegend: true })).toBe(`${BUSYBOX}\n${REDIS}\n`);
    expect(await listed({ fields: ['name'], noLegend: true, order: 'desc' })).toBe(
      `${REDIS}\n${BUSYBOX}\n`,
    );
    expect(
      await listed({ fields: ['name'], noLegend: true, sort: ['size', 'name'], order: 'desc' }),
    ).toBe(`${REDIS}\n${BUSYBOX}\n`);
  });

  test('the form of the layers, and why it is not EROFS', async () => {
    expect(await listed({ fields: ['name', 'form'] })).toBe(
      `NAME\t\t\t\t\tFORM\n${BUSYBOX}\tdirectory\n${REDIS}\tdirectory\n`,
    );
    const [first] = JSON.parse(await listed({ format: 'json' }));
    expect(first).toMatchObject({ form: 'directory', why_not_erofs: expect.any(String) });
    expect(first.why_not_erofs).not.toBe('');
  });

  test.each([{ fields: ['color'] }, { sort: ['id'] }, { order: 'up' }, { format: 'yaml' }])(
    '%j is refused',
    async flags => {
      await expect(listed(flags)).rejects.toMatchObject({ code: 'usage' });
    },
  );

  test('JSON: rkt’s keys in nanoseconds, then ours', async () => {
    const text = await listed({ format: 'json' });
    expect(text.endsWith(']\n')).toBe(true);
    expect(text).toContain(`"import_time":${busybox.importedAt}000000,`);
    const [first] = JSON.parse(text);
    expect(Object.keys(first).slice(0, 5)).toEqual([
      'id',
      'name',
      'import_time',
      'last_used_time',
      'size',
    ]);
    expect(first).toMatchObject({
      id: busybox.id,
      name: BUSYBOX,
      names: [BUSYBOX],
      manifest_digest: busybox.manifestDigest,
      verdict: { admitted: true },
      layers: [{ form: 'directory' }],
    });
    expect(await listed({ format: 'json-pretty' })).toMatch(/^\[\n\t\{\n\t\t"id"/);
  });

  test('as rkt: appc’s spelling of ids, names with one colon', async () => {
    const [, , second] = rows(await listed({}, 'rkt'));
    expect(second?.[0]).toMatch(/^sha256-[0-9a-f]{12}$/);
    expect(second?.[1]).toBe('docker.io/library/redis:7');
  });

  test('no store: the header alone, and nothing is made', async () => {
    using empty = temporaryFolder();
    printed = '';
    await list({ ...context(), dir: `${empty.path}/data` }, { positionals: [], flags: FLAGS });
    expect(printed).toBe('ID\tNAME\tSIZE\tIMPORT TIME\tLAST USED\n');
  });
});

describe('image cat-manifest', () => {
  test('pretty, or the very bytes', async () => {
    await catManifest(context(), { positionals: [BUSYBOX], flags: { prettyPrint: false } });
    expect(printed).toBe(Buffer.from(store.manifest(busybox).bytes).toString());
    printed = '';
    await catManifest(context(), { positionals: ['busybox'], flags: { prettyPrint: true } });
    expect(printed).toMatch(/^\{\n\t"schemaVersion": 2/);
    expect(JSON.parse(printed).config.digest).toBe(busybox.id);
  });
});

describe('image rm and gc', () => {
  let complaints: string;

  beforeEach(() => {
    complaints = '';
    vi.spyOn(process.stderr, 'write').mockImplementation(chunk => {
      complaints += String(chunk);
      return true;
    });
  });

  const rmContext = (program: Context['program'] = 'tspod') => ({
    ...context(program),
    command: 'rm',
  });

  test('rm takes the image and all that is only its own', async () => {
    expect(await rm(rmContext(), { positionals: ['busybox'] })).toBe(0);
    expect(printed).toBe(`successfully removed image "${busybox.id}"\n`);
    expect(complaints).toBe('tspod: 1 image(s) successfully removed\n');
    expect(store.images().map(image => image.id)).toEqual([redis.id]);
    expect(store.blobs.has(busybox.manifestDigest)).toBe(false);
    expect(store.layers.has(busybox.layers[0]?.diffId ?? busybox.id)).toBe(false);
  });

  test('rm as rkt: its words, and its exit status for an unknown image', async () => {
    expect(await rm(rmContext('rkt'), { positionals: ['nothing', redis.id] })).toBe(0);
    expect(printed).toBe(`successfully removed aci for image: "${redis.id.replace(':', '-')}"\n`);
    expect(complaints).toMatch(/^rm: image "nothing": no image IDs found/);
    expect(complaints).toMatch(/^rm: 1 image\(s\) successfully removed$/m);
  });

  test('rm: an unknown image is an error, the others go all the same', async () => {
    expect(await rm(rmContext(), { positionals: ['nothing', 'busybox'] })).toBe(254);
    expect(store.images()).toHaveLength(1);
    complaints = '';
    expect(await rm(rmContext(), { positionals: ['sha256:a'] })).toBe(254);
    expect(complaints).toMatch(/^tspod: image "sha256:a": image ID too short; /);
    await expect(rm(rmContext(), { positionals: [] })).rejects.toMatchObject({ code: 'usage' });
  });

  test('what a pod uses stays: rm takes the name, gc the rest when the pod is gone', async () => {
    const pod = join(folder.path, 'pods/prepared/00000000-0000-4000-8000-000000000000');
    mkdirSync(pod, { recursive: true });
    const layers = busybox.layers.map(layer => layer.diffId);
    writeImageUse(pod, 'app', { ...busybox, name: BUSYBOX, layers });
    expect(await rm(rmContext(), { positionals: ['busybox'] })).toBe(0);
    expect(store.byName(BUSYBOX)).toBeUndefined();
    expect(layers.every(layer => store.layers.has(layer))).toBe(true);
    rmSync(join(folder.path, 'pods'), { recursive: true });
    const flags = { gracePeriod: '24h0m0s' };
    expect(await gc({ ...context(), command: 'gc' }, { positionals: [], flags })).toBe(0);
    expect(layers.some(layer => store.layers.has(layer))).toBe(false);
    expect(store.images()).toHaveLength(1);
    expect(complaints).toContain(`removed layer "${layers[0]}"`);
  });

  test('gc: the grace period decides', async () => {
    const run = (gracePeriod: string) =>
      gc({ ...context(), command: 'gc' }, { positionals: [], flags: { gracePeriod } });
    expect(await run('24h')).toBe(0);
    expect(store.images()).toHaveLength(2);
    expect(await run('0s')).toBe(0);
    expect(store.images()).toHaveLength(0);
    expect(printed.split('\n')).toHaveLength(3);
    await expect(run('soon')).rejects.toMatchObject({ code: 'usage' });
  });
});

describe('what an argument means', () => {
  test.each(['redis:7', 'library/redis:7', 'docker.io/redis:7', 'docker://redis:7', REDIS])(
    '%s',
    text => {
      expect(findImage(store, text).id).toBe(redis.id);
    },
  );

  test('ids and their digits', () => {
    for (const text of [redis.id, redis.id.replace(':', '-'), redis.id.slice(7, 19)]) {
      expect(findImage(store, text).id).toBe(redis.id);
    }
  });

  test.each([
    ['f', /image ID too short/],
    ['nothing', /no image IDs found/],
    ['redis', /no image IDs found/],
    ['../../etc', /no image IDs found/],
    ['docker://UPPER/case', /no image IDs found/],
  ])('%s is refused', (text, message) => {
    expect(() => findImage(store, text)).toThrow(message);
  });

  test('an end of two names is ambiguous', async () => {
    await addTestImage(store, testImage('other', ['o']), 'docker://quay.io/x/busybox:latest');
    expect(() => findImage(store, 'busybox')).toThrow(/fits 2 images/);
  });
});
