/**
 * Fetching, beyond one plain image: identity tokens, platforms through nested indexes, zstd layers, bombs, and
 * each time-out of its own, with times of the test's choosing.
 */
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import type { IncomingMessage, RequestListener } from 'node:http';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { MEDIA } from '../../src/image/oci.ts';
import { hostPlatform } from '../../src/image/platform.ts';
import { openStore } from '../../src/store/store.ts';
import type { LayerForm } from '../../src/store/types.ts';
import { fetchImage } from '../../stage0/fetch/fetch.ts';
import type { Timing } from '../../stage0/fetch/retry.ts';
import { DEFAULT_BOUNDS } from '../../stage0/unpack/bounds.ts';
import { makeDirectoryForm } from '../../stage0/unpack/directory.ts';
import { tar as archive, member } from '../unpack/tar-writer.ts';
import {
  FAST,
  folder,
  hashForm,
  json,
  makeImage,
  registryOf,
  removeFolder,
  serve,
  sha256,
  type TestServer,
  testContext,
} from './support.ts';

let dir: string;
const closers: (() => Promise<void>)[] = [];

beforeEach(() => {
  dir = folder();
  vi.stubEnv('HOME', dir);
  vi.stubEnv('XDG_RUNTIME_DIR', join(dir, 'none'));
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await Promise.all(closers.splice(0).map(close => close()));
  removeFolder(dir);
});

async function start(handler: RequestListener): Promise<TestServer> {
  const server = await serve(handler);
  closers.push(server.close);
  return server;
}

async function get(host: string, timing: Partial<Timing> = {}, form: LayerForm = hashForm) {
  const store = openStore(join(dir, 'store'), { forms: [form] });
  const lease = store.lease();
  try {
    const options = { pullPolicy: 'update', lease, timing: { ...FAST, ...timing } } as const;
    return (await fetchImage(testContext(dir), store, `docker://${host}/test:1`, options)).image;
  } finally {
    lease.release();
    store.close();
  }
}

async function body(request: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  for await (const part of request) parts.push(Buffer.from(part));
  return Buffer.concat(parts).toString();
}

describe('identity tokens', () => {
  const image = makeImage([randomBytes(1000)]);
  const forms: URLSearchParams[] = [];

  /** A registry whose tokens come from itself for the refresh token `long-lived`. */
  function tokenRegistry(): Promise<TestServer> {
    forms.length = 0;
    return start((request, response) => {
      if (request.url === '/token' && request.method === 'POST') {
        void body(request).then(text => {
          const form = new URLSearchParams(text);
          forms.push(form);
          const good = form.get('refresh_token') === 'long-lived';
          response.writeHead(good ? 200 : 401);
          response.end(good ? json({ access_token: 'short' }) : json({ error: 'invalid_grant' }));
        });
        return;
      }
      if (request.headers.authorization === 'Bearer short') {
        registryOf(image)(request, response);
        return;
      }
      const realm = `http://${request.headers.host}/token`;
      const challenge = `Bearer realm="${realm}",service="reg",scope="repository:test:pull,push"`;
      response.writeHead(401, { 'WWW-Authenticate': challenge }).end();
    });
  }

  function dockerConfig(host: string, token: string): void {
    mkdirSync(join(dir, '.docker'), { recursive: true });
    const auths = { [host]: { auth: '', identitytoken: token } };
    writeFileSync(join(dir, '.docker/config.json'), JSON.stringify({ auths }));
  }

  test('docker’s identitytoken buys a token by the refresh grant, for pulling only', async () => {
    const server = await tokenRegistry();
    dockerConfig(server.host, 'long-lived');
    expect((await get(server.host)).id).toBe(image.config.digest);
    expect(forms.length).toBe(1);
    expect(Object.fromEntries(forms[0] ?? [])).toEqual({
      grant_type: 'refresh_token',
      refresh_token: 'long-lived',
      client_id: 'tspod',
      scope: 'repository:test:pull',
      service: 'reg',
    });
    // It is for the token server's body only: never a header, never a URL.
    expect(JSON.stringify(server.seen)).not.toContain('long-lived');
  });

  test('one that is refused is denied, and not shown', async () => {
    const server = await tokenRegistry();
    dockerConfig(server.host, 'expired-token');
    const error: unknown = await get(server.host).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: 'denied' });
    expect(String(error)).not.toContain('expired-token');
  });
});

describe('platforms', () => {
  const mine = makeImage([randomBytes(100)]);
  const other = makeImage([randomBytes(100)]);
  const platform = hostPlatform();
  const foreign = { os: 'linux', architecture: 'riscv64' };

  /** Documents by digest, each with its type; `top` is what the tag leads to. */
  function indexes(): {
    add: (manifests: readonly object[]) => {
      mediaType: string;
      digest: string;
      size: number;
    };
    handler: (top: { digest: string }) => RequestListener;
  } {
    const documents = new Map<string, Uint8Array>();
    return {
      add(manifests) {
        const bytes = json({ schemaVersion: 2, mediaType: MEDIA.ociIndex, manifests });
        documents.set(sha256(bytes), bytes);
        return { mediaType: MEDIA.ociIndex, digest: sha256(bytes), size: bytes.length };
      },
      handler: top => (request, response) => {
        const wanted = request.url?.split('/').at(-1) ?? '';
        const index = documents.get(wanted === '1' ? top.digest : wanted);
        if (index !== undefined && request.url?.includes('/manifests/')) {
          response.setHeader('Content-Type', MEDIA.ociIndex);
          response.end(index);
          return;
        }
        const image = other.blobs.has(wanted) ? other : mine;
        registryOf(image)(request, response);
      },
    };
  }

  test('through an index in an index to this machine’s image', async () => {
    const { add, handler } = indexes();
    const inner = add([
      { ...other.manifest, platform: foreign },
      { ...other.manifest, platform: { ...platform, os: 'windows' } },
      { ...mine.manifest, platform },
    ]);
    const decoy = add([{ ...other.manifest, platform: foreign }]);
    const top = add([
      { ...decoy, platform: foreign },
      { ...inner, platform },
    ]);
    const server = await start(handler(top));
    expect((await get(server.host)).id).toBe(mine.config.digest);
    expect(JSON.stringify(server.seen)).not.toContain(decoy.digest);
  });

  test('none for this machine: what there is is named', async () => {
    const { add, handler } = indexes();
    const top = add([{ ...other.manifest, platform: foreign }]);
    const server = await start(handler(top));
    await expect(get(server.host)).rejects.toThrow(/there is linux\/riscv64/);
  });

  test('an inner index that is not what it is named by, and nesting without end', async () => {
    const { add, handler } = indexes();
    const inner = add([{ ...mine.manifest, platform }]);
    const wrong = add([{ ...inner, size: inner.size + 1, platform }]);
    const server = await start(handler(wrong));
    await expect(get(server.host)).rejects.toMatchObject({ code: 'digest' });
    const deep = Array.from({ length: 5 }).reduce<{ digest: string }>(
      level => add([{ ...level, platform }]),
      inner,
    );
    const nested = await start(handler(deep));
    await expect(get(nested.host)).rejects.toThrow(/indexes nested over \d+ deep/);
  });
});

describe.runIf(process.getuid?.() === 0)('layers as they really unpack', () => {
  const FLOOR = 1e6;
  const form = makeDirectoryForm({ bounds: { ...DEFAULT_BOUNDS, ratioFloor: FLOOR } });

  function packed(tar: Uint8Array, how: 'gzip' | 'zstd') {
    const bytes = how === 'gzip' ? gzipSync(tar) : zstdCompressSync(tar);
    const mediaType = `application/vnd.oci.image.layer.v1.tar+${how}`;
    const layer = { mediaType, digest: sha256(bytes), size: bytes.length };
    const image = makeImage([], { manifest: { layers: [layer] }, diffIds: [sha256(tar)] });
    image.blobs.set(layer.digest, bytes);
    return image;
  }

  test.each(['gzip', 'zstd'] as const)('%s, from a registry to files', async how => {
    const image = packed(archive({ name: 'etc/motd', data: 'hello\n' }), how);
    const server = await start(registryOf(image));
    const { layers } = await get(server.host, {}, form);
    const [algorithm = '', hex = ''] = layers[0]?.diffId.split(':') ?? [];
    const tree = join(dir, 'store/cas/v1/layers/directory', algorithm, hex, 'tree');
    expect(readFileSync(join(tree, 'etc/motd'), 'utf8')).toBe('hello\n');
  });

  test.each(['gzip', 'zstd'] as const)(
    'CVE-2023-25153: a %s bomb in a registry ends at the ratio and leaves nothing',
    async how => {
      const tar = Buffer.concat([member({ name: 'a', size: 64e6 }), Buffer.alloc(64e6)]);
      const server = await start(registryOf(packed(tar, how)));
      await expect(get(server.host, {}, form)).rejects.toMatchObject({ code: 'limit' });
      const cas = join(dir, 'store/cas/v1');
      expect(existsSync(join(cas, 'layers/directory'))).toBe(false);
      expect(readdirSync(join(cas, 'tmp'))).toEqual([]);
      expect(readdirSync(join(cas, 'images'))).toEqual([]);
    },
  );
});

describe('time-outs', () => {
  const image = makeImage([randomBytes(50_000)]);
  const [layer] = image.layers;
  const HOUR = 3_600_000;
  const patient = { connect: HOUR, headers: HOUR, idle: HOUR, attempts: 2 };

  test('to connect: a server that takes the connection and says nothing of TLS', async () => {
    const sockets: Socket[] = [];
    const server = createServer(socket => sockets.push(socket.on('error', () => undefined)));
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
    closers.push(
      () =>
        new Promise(resolve => {
          for (const socket of sockets) socket.destroy();
          server.close(() => resolve());
        }),
    );
    const address = server.address();
    if (address === null || typeof address === 'string') throw new Error('no port');
    await expect(get(`127.0.0.1:${address.port}`, { ...patient, connect: 50 })).rejects.toThrow(
      /no connection in time/,
    );
    expect(sockets.length).toBe(2);
  });

  test('for the head of an answer', async () => {
    const server = await start((request, response) => {
      if (request.url === '/v2/') response.end();
    });
    await expect(get(server.host, { ...patient, headers: 50 })).rejects.toThrow(
      /no answer in 0\.05 s/,
    );
    expect(server.seen.filter(({ url }) => url.includes('/manifests/')).length).toBe(2);
  });

  test('for the next byte: what came is asked for no more', async () => {
    const [half] = [25_000];
    let hung = 0;
    const server = await start(
      registryOf(image, (request, response) => {
        if (!request.url?.endsWith(layer?.digest ?? '-') || request.headers.range) return false;
        hung += 1;
        response.writeHead(200, { 'Content-Length': layer?.size });
        response.write(image.blobs.get(layer?.digest ?? '')?.subarray(0, half));
        return true;
      }),
    );
    expect((await get(server.host, { ...patient, idle: 200 })).id).toBe(image.config.digest);
    expect(hung).toBe(1);
    const ranges = server.seen.flatMap(({ headers }) => headers.range ?? []);
    expect(ranges).toEqual([`bytes=${half}-${(layer?.size ?? 0) - 1}`]);
  });

  test('for the next byte, again and again: an error that says so', async () => {
    const server = await start(
      registryOf(image, (request, response) => {
        if (!request.url?.endsWith(layer?.digest ?? '-')) return false;
        response.writeHead(200, { 'Content-Length': layer?.size });
        response.flushHeaders();
        return true;
      }),
    );
    await expect(get(server.host, { ...patient, idle: 50 })).rejects.toThrow(/no byte in 0\.05 s/);
  });
});
