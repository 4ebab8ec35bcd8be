/**
 * ACIs by file, URL and discovered name: what is asked of servers, what is refused, what ends in the store.
 * Images are written by GNU tar; layers are really unpacked.
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { Context } from '../../src/context.ts';
import { ensureLayers } from '../../src/store/ensure-layers.ts';
import { removeTree } from '../../src/store/remove-tree.ts';
import { openStore } from '../../src/store/store.ts';
import type { ImageRecord, Lease, Store } from '../../src/store/types.ts';
import { fetchImage, type PullPolicy } from '../../stage0/fetch/fetch.ts';
import { directoryForm } from '../../stage0/unpack/directory.ts';
import {
  type AciOptions,
  files,
  HOST_LABELS,
  hasProgram,
  type WrittenAci,
  writeAci,
} from '../images/aci-writer.ts';
import { listTree } from '../unpack/tree.ts';
import { type AciServer, startAciServer, useServer } from './aci-server.ts';
import { makeCertificate } from './certificates.ts';
import { startProxy } from './proxy-server.ts';
import { FAST, folder, removeFolder, testContext } from './support.ts';

let dir: string;
let store: Store;
let lease: Lease;
let server: AciServer;

beforeEach(async () => {
  dir = folder();
  store = openStore(join(dir, 'data'), { forms: [directoryForm] });
  lease = store.lease();
  server = await startAciServer();
  useServer(server);
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await server.close();
  lease.release();
  store.close();
  removeTree(join(dir, 'data'));
  removeFolder(dir);
});

async function get(
  text: string,
  pullPolicy: PullPolicy = 'new',
  changes: Partial<Context> = {},
): Promise<ImageRecord> {
  const context = testContext(join(dir, 'data'), changes);
  const { image } = await fetchImage(context, store, text, { pullPolicy, lease, timing: FAST });
  return image;
}

const version = (value: string) => [...HOST_LABELS, { name: 'version', value }];

let written = 0;
function aci(name: string, options: AciOptions = {}): WrittenAci {
  written += 1;
  return writeAci(join(dir, `${written}.aci`), name, options);
}

/** Serves the image under its name by discovery from its host. */
function offer(
  image: WrittenAci,
  name: string,
  tag = 'latest',
  headers: Record<string, string> = {},
): string {
  const host = name.split('/')[0] ?? '';
  server.files.set(`${host}/`, {
    body: `<meta name="ac-discovery" content="${host} http://${host}/get/{name}-{version}-{os}-{arch}.{ext}">`,
  });
  const url = `${host}/get/${name}-${tag}-${HOST_LABELS[0]?.value}-${HOST_LABELS[1]?.value}.aci`;
  server.files.set(url, { body: readFileSync(image.path), headers });
  return url;
}

/** Paths with content, upper layers over lower ones. */
function content(image: ImageRecord): Record<string, string> {
  const found: Record<string, string> = {};
  for (const { diffId } of image.layers) {
    const tree = store.layers.tree(diffId);
    if (tree.form !== 'directory') throw new Error('not the directory form');
    for (const [name, entry] of listTree(tree.path)) {
      if (entry.type === 8) found[name] = readFileSync(join(tree.path, name), 'utf8');
    }
  }
  return found;
}

/** What of the store is not an image's: blobs, layers and leftovers. */
const tmp = () => readdirSync(join(dir, 'data/cas/v1/tmp'));

describe('a file', () => {
  test.each(['none', 'gzip'] as const)(
    '%s: its ids, names, layers and manifest',
    async compression => {
      const made = aci('example.com/app', {
        compression,
        manifest: { labels: version('1.2') },
        rootfs: files({ 'etc/a': 'a' }),
      });
      const image = await get(made.path);
      expect(image.appc?.id).toBe(made.id.replace('-', ':'));
      expect(image.names).toContain('example.com/app:1.2');
      expect(content(image)).toEqual({ 'etc/a': 'a' });
      expect(JSON.parse(Buffer.from(store.appcManifest(image)?.bytes ?? []).toString())).toEqual(
        made.manifest,
      );
      const file = createHash('sha256').update(readFileSync(made.path)).digest('hex');
      expect(image.layers[0]?.blob.digest).toBe(`sha256:${file}`);
      for (const text of [
        'example.com/app',
        'example.com/app:1.2',
        made.id,
        made.id.slice(0, 20),
      ]) {
        expect((await get(text, 'never')).id).toBe(image.id);
      }
      expect((await get(made.path)).id).toBe(image.id);
      expect(store.images()).toHaveLength(1);
      expect(tmp()).toEqual([]);
    },
  );

  test('known by its content, whatever it is called', async () => {
    const made = aci('example.com/app');
    const other = join(dir, 'no-suffix');
    writeFileSync(other, readFileSync(made.path));
    expect((await get(other)).appc?.id).toBe(made.id.replace('-', ':'));
    expect((await get(`file://${made.path}`)).appc?.id).toBe(made.id.replace('-', ':'));
  });

  test('a layer that was lost is made again from the blob', async () => {
    const made = aci('example.com/app', {
      rootfs: files({ keep: 'k', drop: 'd' }),
      manifest: { pathWhitelist: ['/keep'] },
    });
    const image = await get(made.path);
    const tree = store.layers.tree(image.layers[0]?.diffId ?? image.id);
    if (tree.form !== 'directory') throw new Error('not the directory form');
    removeTree(join(tree.path, '..'));
    await ensureLayers(store, image);
    expect(content(image)).toEqual({ keep: 'k' });
  });

  test('gc keeps all of it, and takes all of it', async () => {
    const made = aci('example.com/app');
    const image = await get(made.path);
    lease.release();
    lease = store.lease();
    store.gc({ graceMs: 60_000, inUse: () => [] });
    expect(store.appcManifest(image)?.value.name).toBe('example.com/app');
    const taken = store.gc({ graceMs: -1000, inUse: () => [] });
    expect(taken.images).toEqual([image.id]);
    expect(taken.blobs).toHaveLength(4);
  });

  test('refused: no signature, no ACI, another file, nothing', async () => {
    const made = aci('example.com/app');
    await expect(get(made.path, 'new', { insecure: new Set() })).rejects.toMatchObject({
      code: 'trust',
    });
    expect(store.images()).toEqual([]);
    expect(existsSync(join(dir, 'data/cas/v1/blobs/sha256'))).toBe(true);
    expect(readdirSync(join(dir, 'data/cas/v1/blobs/sha256'))).toEqual([]);
    const text = join(dir, 'text.aci');
    writeFileSync(text, 'no archive at all'.repeat(100));
    await expect(get(text)).rejects.toMatchObject({ code: 'unpack' });
    await expect(get(join(dir, 'none.aci'))).rejects.toMatchObject({ code: 'not-found' });
    expect(tmp()).toEqual([]);
  });

  test.each([
    [{ acKind: 'PodManifest' }, /acKind/],
    [{ name: '../up' }, /name/],
    [{ name: 'Upper.com/x' }, /name/],
    [{ acVersion: 'x' }, /acVersion/],
    [{ labels: [{ name: 'name', value: 'x' }] }, /invalid label name/],
    [{ labels: [...HOST_LABELS, ...HOST_LABELS] }, /duplicate labels/],
    [{ pathWhitelist: ['/a/../b'] }, /pathWhitelist/],
    [{ dependencies: [{ imageName: 'x', imageID: 'sha256-00' }] }, /imageID/],
    [{ app: { exec: [], user: '0', group: '0', surprise: true } }, /no such field/],
  ])('a manifest with %j is refused by the field', async (fields, message) => {
    await expect(get(aci('example.com/app', { manifest: fields }).path)).rejects.toMatchObject({
      code: 'protocol',
      message: expect.stringMatching(message),
    });
  });
});

describe('a URL', () => {
  test('with an ETag it is asked for again only when it may have changed', async () => {
    const one = aci('example.com/app', { manifest: { labels: version('1') } });
    const two = aci('example.com/app', { manifest: { labels: version('2') } });
    const url = 'http://files.test/app.aci';
    server.files.set('files.test/app.aci', {
      body: readFileSync(one.path),
      headers: { ETag: '"one"' },
    });
    const first = await get(url);
    expect((await get(url)).id).toBe(first.id);
    expect(server.seen).toHaveLength(1);
    expect((await get(url, 'update')).id).toBe(first.id);
    expect(server.seen.map(({ status }) => status)).toEqual([200, 304]);
    server.files.set('files.test/app.aci', {
      body: readFileSync(two.path),
      headers: { ETag: '"two"' },
    });
    const second = await get(url, 'update');
    expect(second.appc?.id).toBe(two.id.replace('-', ':'));
    expect((await get('example.com/app', 'never')).id).toBe(second.id);
    expect((await get('example.com/app:1', 'never')).id).toBe(first.id);
  });

  test('within max-age nobody is asked', async () => {
    const made = aci('example.com/app');
    server.files.set('files.test/app.aci', {
      body: readFileSync(made.path),
      headers: { 'Cache-Control': 'public, max-age=3600' },
    });
    await get('http://files.test/app.aci', 'update');
    await get('http://files.test/app.aci', 'update');
    expect(server.seen).toHaveLength(1);
  });

  test('a connection that breaks is taken up by Range, in one process and the next', async () => {
    const made = aci('example.com/app', { rootfs: files({ big: 'x'.repeat(3_000_000) }) });
    const body = readFileSync(made.path);
    server.files.set('files.test/app.aci', {
      body,
      headers: { ETag: '"v"' },
      breakAfter: 1_000_000,
    });
    await get('http://files.test/app.aci');
    expect(server.seen.map(({ status }) => status)).toContain(206);

    server.seen.length = 0;
    server.files.set('files.test/b.aci', { body, headers: { ETag: '"v"' }, breakAfter: 1_000_000 });
    const impatient = { ...FAST, attempts: 1 };
    const context = testContext(join(dir, 'data'));
    const options = { pullPolicy: 'new', lease, timing: impatient } as const;
    await expect(
      fetchImage(context, store, 'http://files.test/b.aci', options),
    ).rejects.toMatchObject({ code: 'network' });
    expect(tmp().filter(name => name.endsWith('.partial'))).toHaveLength(1);
    await get('http://files.test/b.aci');
    expect(server.seen.at(-1)).toMatchObject({ status: 206 });
    expect(tmp()).toEqual([]);
  });

  test('a part of what has changed meanwhile is not gone on with', async () => {
    const one = aci('example.com/app', { rootfs: files({ big: 'x'.repeat(3_000_000) }) });
    const two = aci('example.com/app', { rootfs: files({ big: 'y'.repeat(3_000_000) }) });
    server.files.set('files.test/b.aci', {
      body: readFileSync(one.path),
      headers: { ETag: '"one"' },
      breakAfter: 1_000_000,
    });
    const context = testContext(join(dir, 'data'));
    const options = { pullPolicy: 'new', lease, timing: { ...FAST, attempts: 1 } } as const;
    await expect(
      fetchImage(context, store, 'http://files.test/b.aci', options),
    ).rejects.toMatchObject({ code: 'network' });
    server.files.set('files.test/b.aci', {
      body: readFileSync(two.path),
      headers: { ETag: '"two"' },
    });
    expect((await get('http://files.test/b.aci')).appc?.id).toBe(two.id.replace('-', ':'));
  });

  test('what follows the ? is neither kept nor shown, and tells two URLs apart', async () => {
    for (const id of ['1', '2']) {
      const made = aci('example.com/app', { manifest: { labels: version(id) } });
      server.files.set('files.test/app.aci', { body: readFileSync(made.path) });
      const image = await get(`http://files.test/app.aci?secret=${id}`);
      expect(image.appc?.id).toBe(made.id.replace('-', ':'));
      expect((await get(`http://files.test/app.aci?secret=${id}`, 'never')).id).toBe(image.id);
    }
    expect(JSON.stringify(store.images())).not.toContain('secret');
    server.files.clear();
    await expect(get('http://files.test/app.aci?secret=3')).rejects.toMatchObject({
      message: expect.not.stringContaining('secret'),
    });
  });

  test('refused: plain HTTP, no such file, access denied, offline, never, credentials in it', async () => {
    const url = 'http://files.test/app.aci';
    await expect(get(url, 'new', { insecure: new Set(['image']) })).rejects.toMatchObject({
      code: 'usage',
    });
    await expect(get(url)).rejects.toMatchObject({ code: 'not-found' });
    await expect(get(url, 'never')).rejects.toMatchObject({ code: 'not-found' });
    await expect(get(url, 'new', { offline: true })).rejects.toMatchObject({ code: 'offline' });
    await expect(get('http://u:secret@files.test/app.aci')).rejects.toMatchObject({
      code: 'reference',
      message: expect.not.stringContaining('secret'),
    });
    server.fallback = (_, response) => {
      response.writeHead(403).end();
      return true;
    };
    await expect(get(url)).rejects.toMatchObject({ code: 'denied' });
  });

  test('credentials of auth.d never go over plain HTTP', async () => {
    const made = aci('example.com/app');
    server.files.set('files.test/app.aci', { body: readFileSync(made.path) });
    const local = join(dir, 'config/auth.d');
    mkdirSync(local, { recursive: true });
    writeFileSync(
      join(local, 'a.json'),
      JSON.stringify({
        rktKind: 'auth',
        rktVersion: 'v1',
        domains: ['files.test'],
        type: 'basic',
        credentials: { user: 'u', password: 'p' },
      }),
    );
    await get('http://files.test/app.aci', 'new', { localConfig: join(dir, 'config') });
    expect(server.seen[0]?.headers.authorization).toBeUndefined();
  });
});

describe('https', () => {
  test('auth.d and registries.d hold; a redirect to another host takes no credentials along', async () => {
    const certificate = makeCertificate(dir, 'registry.test');
    const made = aci('example.com/app');
    const seen: { url: string; host: string | undefined; authorization: string | undefined }[] = [];
    const tls = createServer(
      { key: certificate.key, cert: certificate.cert },
      (request, response) => {
        const { url = '', headers } = request;
        seen.push({ url, host: headers.host, authorization: headers.authorization });
        if (url === '/moved.aci')
          response.writeHead(302, { Location: 'https://localhost/x.aci' }).end();
        else if (url === '/down.aci')
          response.writeHead(302, { Location: 'http://registry.test/x.aci' }).end();
        else response.end(readFileSync(made.path));
      },
    );
    await new Promise<void>(done => tls.listen(0, '127.0.0.1', done));
    const address = tls.address();
    const port = typeof address === 'object' ? address?.port : undefined;
    // `localhost` never goes through a proxy: the other host's name leads here by its port.
    const proxy = await startProxy(() => `127.0.0.1:${port}`);
    vi.stubEnv('https_proxy', `http://${proxy.host}`);
    try {
      const write = (kind: string, object: object) => {
        mkdirSync(join(dir, `config/${kind}.d`), { recursive: true });
        writeFileSync(
          join(dir, `config/${kind}.d/a.json`),
          JSON.stringify({ rktKind: kind, rktVersion: 'v1', ...object }),
        );
      };
      write('registries', { registries: ['registry.test'], caCertificate: certificate.certFile });
      write('auth', {
        domains: ['registry.test'],
        type: 'basic',
        credentials: { user: 'u', password: 'p' },
      });
      const config = { localConfig: join(dir, 'config'), insecure: new Set(['image'] as const) };
      await get('https://registry.test/x.aci', 'new', config);
      expect(seen).toEqual([
        {
          url: '/x.aci',
          host: 'registry.test',
          authorization: `Basic ${Buffer.from('u:p').toString('base64')}`,
        },
      ]);
      seen.length = 0;
      await expect(get('https://registry.test/moved.aci', 'new', config)).rejects.toThrow();
      for (const { host, authorization } of seen) {
        if (host !== 'registry.test') expect(authorization).toBeUndefined();
      }
      await expect(get('https://registry.test/down.aci', 'new', config)).rejects.toMatchObject({
        code: 'protocol',
      });
      await expect(
        get('https://registry.test/y.aci', 'new', { insecure: new Set(['image']) }),
      ).rejects.toMatchObject({
        code: 'network',
        message: expect.stringMatching(/TLS/),
      });
      write('auth', {
        domains: ['registry.test'],
        type: 'aws',
        credentials: { accessKeyID: 'a', secretAccessKey: 's' },
      });
      await expect(get('https://registry.test/z.aci', 'new', config)).rejects.toMatchObject({
        code: 'unsupported',
      });
    } finally {
      await proxy.close();
      await new Promise(done => {
        tls.closeAllConnections();
        tls.close(done);
      });
    }
  });
});

describe('a name', () => {
  test('is discovered, checked, and then known', async () => {
    const made = aci('app.test/web', {
      manifest: { labels: version('1.0') },
      rootfs: files({ a: 'a' }),
    });
    offer(made, 'app.test/web', '1.0');
    const image = await get('app.test/web:1.0');
    expect(image.appc?.id).toBe(made.id.replace('-', ':'));
    const asked = server.seen.length;
    await get('app.test/web:1.0');
    await get('app.test/web');
    expect(server.seen).toHaveLength(asked);
    await expect(get('app.test/web:2.0', 'never')).rejects.toMatchObject({ code: 'not-found' });
  });

  test('latest is what the server says it is', async () => {
    offer(aci('app.test/web', { manifest: { labels: version('7') } }), 'app.test/web', 'latest', {
      ETag: '"7"',
    });
    expect((await get('app.test/web')).names).toContain('app.test/web:7');
    await get('app.test/web', 'update');
    expect(server.seen.at(-1)).toMatchObject({ status: 304 });
  });

  test('what answers to it under another name or label is refused', async () => {
    offer(aci('app.test/other'), 'app.test/web');
    await expect(get('app.test/web')).rejects.toMatchObject({
      code: 'protocol',
      message: expect.stringMatching(/another image/),
    });
    offer(aci('app.test/web', { manifest: { labels: version('1') } }), 'app.test/web', '2');
    await expect(get('app.test/web:2')).rejects.toMatchObject({ code: 'protocol' });
    offer(aci('app.test/web'), 'app.test/web');
    await expect(get('app.test/web,env=canary')).rejects.toMatchObject({
      code: 'protocol',
      message: expect.stringMatching(/label env/),
    });
    expect(store.images()).toEqual([]);
    expect(tmp()).toEqual([]);
  });

  test('a template without a version leads all to one place: it is still looked at', async () => {
    server.files.set('app.test/', {
      body: '<meta name="ac-discovery" content="app.test http://app.test/{name}.{ext}">',
    });
    const one = aci('app.test/web', { manifest: { labels: version('1') } });
    const two = aci('app.test/web', { manifest: { labels: version('2') } });
    const headers = { 'Cache-Control': 'max-age=3600', ETag: '"1"' };
    server.files.set('app.test/app.test/web.aci', { body: readFileSync(one.path), headers });
    await get('app.test/web:1');
    await expect(get('app.test/web:2')).rejects.toMatchObject({ code: 'protocol' });
    server.files.set('app.test/app.test/web.aci', { body: readFileSync(two.path), headers });
    expect((await get('app.test/web:2')).appc?.id).toBe(two.id.replace('-', ':'));
  });

  test('a template that leads to the local link or nowhere', async () => {
    for (const template of [
      'http://169.254.169.254/{name}.{ext}',
      'hdfs://x/{name}.{ext}',
      'http://x/{nonsense}',
    ]) {
      server.files.set('app.test/', {
        body: `<meta name="ac-discovery" content="app.test ${template}">`,
      });
      await expect(get('app.test/web')).rejects.toMatchObject({ code: 'protocol' });
    }
  });
});

describe('dependencies', () => {
  /** top -> middle -> base */
  function chain(whitelist: readonly string[] = []) {
    const base = aci('base.test/os', {
      rootfs: files({ 'etc/os': 'os', 'etc/both': 'base', 'bin/tool': 'tool' }),
    });
    offer(base, 'base.test/os');
    const middle = aci('mid.test/lib', {
      manifest: { dependencies: [{ imageName: 'base.test/os', imageID: base.id }] },
      rootfs: files({ 'lib/a': 'a', 'etc/both': 'middle' }),
    });
    offer(middle, 'mid.test/lib');
    const top = aci('top.test/app', {
      manifest: {
        pathWhitelist: whitelist,
        dependencies: [{ imageName: 'mid.test/lib', size: readFileSync(middle.path).length }],
        app: { exec: ['/app'], user: '0', group: '0' },
      },
      rootfs: files({ app: 'app', 'lib/b': 'b' }),
    });
    return { base, middle, top };
  }

  test('three deep, each an image of its own, the upper over the lower', async () => {
    const { top } = chain();
    const image = await get(top.path);
    expect(image.layers).toHaveLength(3);
    expect(content(image)).toEqual({
      app: 'app',
      'bin/tool': 'tool',
      'etc/both': 'middle',
      'etc/os': 'os',
      'lib/a': 'a',
      'lib/b': 'b',
    });
    expect(store.images()).toHaveLength(3);
  });

  test('a whitelist cuts the whole', async () => {
    const { top } = chain(['/app', '/etc/both', '/bin/tool']);
    const image = await get(top.path);
    expect(content(image)).toEqual({ app: 'app', 'bin/tool': 'tool', 'etc/both': 'middle' });
    for (const { diffId } of image.layers) {
      const tree = store.layers.tree(diffId);
      if (tree.form === 'directory') removeTree(join(tree.path, '..'));
    }
    await ensureLayers(store, image);
    expect(content(image)).toEqual({ app: 'app', 'bin/tool': 'tool', 'etc/both': 'middle' });
  });

  test('one that two images have in common is one layer', async () => {
    chain();
    offer(
      aci('other.test/x', {
        manifest: { dependencies: [{ imageName: 'base.test/os' }] },
        rootfs: files({ x: 'x' }),
      }),
      'other.test/x',
    );
    const both = aci('top.test/both', {
      manifest: { dependencies: [{ imageName: 'mid.test/lib' }, { imageName: 'other.test/x' }] },
      rootfs: files({ top: 'top' }),
    });
    const image = await get(both.path);
    expect(new Set(image.layers.map(({ diffId }) => diffId)).size).toBe(image.layers.length);
    expect(image.layers).toHaveLength(4);
  });

  test('refused: another id, another size, a circle, one that is not there', async () => {
    const { base } = chain();
    const needs = (dependency: object) =>
      aci('top.test/app', {
        manifest: { dependencies: [{ imageName: 'base.test/os', ...dependency }] },
      }).path;
    await expect(get(needs({ imageID: `sha512-${'0'.repeat(128)}` }))).rejects.toMatchObject({
      code: 'digest',
    });
    expect((await get(needs({ imageID: base.id.slice(0, 71) }))).layers).toHaveLength(2);
    await expect(get(needs({ imageName: 'none.test/x' }))).rejects.toMatchObject({
      code: 'not-found',
    });
    const size = readFileSync(base.path).length;
    await expect(get(needs({ size: size - 1 }), 'update')).rejects.toMatchObject({ code: 'limit' });
    await expect(get(needs({ size: size + 1 }), 'update')).rejects.toMatchObject({
      code: 'digest',
    });
    for (const [one, other] of [
      ['a', 'b'],
      ['b', 'a'],
    ]) {
      const image = aci(`${one}.test/x`, {
        manifest: { dependencies: [{ imageName: `${other}.test/x` }] },
      });
      offer(image, `${one}.test/x`);
    }
    await expect(get('a.test/x')).rejects.toMatchObject({
      code: 'protocol',
      message: expect.stringMatching(/a\.test\/x -> b\.test\/x -> a\.test\/x/),
    });
    expect(tmp()).toEqual([]);
  });
});

test('two at the same time get one image', async () => {
  const made = aci('example.com/app', { rootfs: files({ a: 'a'.repeat(2_000_000) }) });
  server.files.set('files.test/app.aci', { body: readFileSync(made.path) });
  const other = openStore(join(dir, 'data'), { forms: [directoryForm] });
  const context = testContext(join(dir, 'data'));
  const url = 'http://files.test/app.aci';
  try {
    const fetched = await Promise.all(
      [store, other].map(each => {
        const options = { pullPolicy: 'new', lease: each.lease(), timing: FAST } as const;
        return fetchImage(context, each, url, options);
      }),
    );
    expect(new Set(fetched.map(({ image }) => image.id)).size).toBe(1);
    expect(store.images()).toHaveLength(1);
    expect(tmp()).toEqual([]);
  } finally {
    other.close();
  }
});

test('CVE-2018-15664, a file that changes between the look and the import is not taken', async () => {
  const made = aci('example.com/app', { rootfs: files({ a: 'good' }) });
  const evil = aci('example.com/app', { rootfs: files({ a: 'evil' }) });
  offer(aci('base.test/os'), 'base.test/os');
  const top = aci('top.test/app', { manifest: { dependencies: [{ imageName: 'base.test/os' }] } });
  expect(existsSync(made.path)).toBe(true);
  // The dependency is asked for after the file was read and before it is taken in.
  const page = server.files.get('base.test/');
  server.files.delete('base.test/');
  server.fallback = (_, response) => {
    writeFileSync(top.path, readFileSync(evil.path));
    response.end(page?.body);
    return true;
  };
  await expect(get(top.path)).rejects.toMatchObject({
    code: expect.stringMatching(/^(digest|limit)$/),
  });
  expect(store.byName('top.test/app')).toBeUndefined();
  expect(store.byName('example.com/app')).toBeUndefined();
});

test('bzip2 and xz', async () => {
  for (const compression of ['bzip2', 'xz'] as const) {
    if (!hasProgram(compression)) continue;
    const made = aci('example.com/app', { compression, rootfs: files({ a: 'a'.repeat(100_000) }) });
    expect((await get(made.path)).appc?.id).toBe(made.id.replace('-', ':'));
  }
});
