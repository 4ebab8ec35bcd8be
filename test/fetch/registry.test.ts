/** Fetching from a registry that behaves, and from ones that do not. */
import { randomBytes } from 'node:crypto';
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { TspodError } from '../../src/errors.ts';
import { MEDIA } from '../../src/image/oci.ts';
import type { Store } from '../../src/store/types.ts';
import { type FetchOptions, fetchImage } from '../../stage0/fetch/fetch.ts';
import {
  FAST,
  folder,
  json,
  type MadeImage,
  makeImage,
  registryOf,
  removeFolder,
  serve,
  sha256,
  type TestServer,
  testContext,
  testStore,
} from './support.ts';

let dir: string;
let store: Store;
const servers: TestServer[] = [];
const image: MadeImage = makeImage([randomBytes(300_000), randomBytes(2000)]);

beforeEach(() => {
  dir = folder();
  store = testStore(dir);
});

afterEach(async () => {
  store.close();
  await Promise.all(servers.splice(0).map(server => server.close()));
  removeFolder(dir);
});

async function start(handler: Parameters<typeof serve>[0]): Promise<TestServer> {
  const server = await serve(handler);
  servers.push(server);
  return server;
}

function get(text: string, changes = {}, policy: FetchOptions['pullPolicy'] = 'update') {
  const lease = store.lease();
  return fetchImage(testContext(dir, changes), store, text, {
    pullPolicy: policy,
    lease,
    timing: FAST,
  }).finally(() => lease.release());
}

async function failure(promise: Promise<unknown>): Promise<TspodError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof TspodError) return error;
    throw error;
  }
  throw new Error('it did not fail');
}

const name = (server: TestServer) => `docker://${server.host}/test:1`;

describe('a registry that behaves', () => {
  test('its image is fetched, and found by name, id, and again without the network', async () => {
    const server = await start(registryOf(image));
    const { image: record, name: canonical } = await get(name(server));
    expect(canonical).toBe(name(server));
    expect(record.id).toBe(image.config.digest);
    const before = server.seen.length;
    const offline = { offline: true, insecure: new Set() };
    expect((await get(name(server), offline, 'new')).image.id).toBe(record.id);
    expect((await get(record.id, offline, 'new')).image.id).toBe(record.id);
    expect((await get(record.id.slice(7, 20), offline, 'never')).image.id).toBe(record.id);
    expect((await get('test:1', offline, 'never')).image.id).toBe(record.id);
    expect(server.seen.length).toBe(before);
    await get(name(server));
    expect(
      server.seen
        .slice(before)
        .some(({ url }) => url.includes('/blobs/') && url.includes(image.layers[0]?.digest ?? '')),
    ).toBe(false);
  });

  test('an image without a signature is refused before a layer is asked for', async () => {
    const server = await start(registryOf(image));
    const error = await failure(get(name(server), { insecure: new Set(['http']) }));
    expect(error.code).toBe('trust');
    expect(error.line).toContain('--insecure-options=image');
    expect(server.seen.some(({ url }) => url.includes('/blobs/'))).toBe(false);
  });

  test('offline names what would be contacted; never says that it is not there', async () => {
    const server = await start(registryOf(image));
    const error = await failure(get(name(server), { offline: true }));
    expect(error.code).toBe('offline');
    expect(error.line).toContain(server.host);
    expect((await failure(get(name(server), {}, 'never'))).code).toBe('not-found');
    expect(server.seen).toEqual([]);
  });

  test('without --insecure-options=http plain HTTP is refused with a hint', async () => {
    const server = await start(registryOf(image));
    const error = await failure(get(name(server), { insecure: new Set(['image']) }));
    expect(error.code).toBe('network');
    expect(error.line).toContain('--insecure-options=http');
  });

  test('the same layer twice, an empty list of layers', async () => {
    const layer = randomBytes(1000);
    const twice = makeImage([layer, layer]);
    const server = await start(registryOf(twice));
    expect((await get(name(server))).image.layers.length).toBe(2);
  });
});

describe('interruptions', () => {
  test('a truncated body is taken up again by Range in the same run', async () => {
    const [layer] = image.layers;
    let cut = 0;
    const server = await start(
      registryOf(image, (request, response) => {
        if (layer === undefined || !request.url?.endsWith(layer.digest) || cut++ > 0) return false;
        response.writeHead(200, { 'Content-Length': layer.size });
        response.write(image.blobs.get(layer.digest)?.subarray(0, 100_000), () =>
          response.destroy(),
        );
        return true;
      }),
    );
    await get(name(server));
    expect(server.seen.some(({ headers }) => headers.range?.startsWith('bytes='))).toBe(true);
  });

  for (const how of ['range', 'ignored', '416'] as const) {
    test(`a partial blob of a former run is completed (${how})`, async () => {
      const [layer] = image.layers;
      if (layer === undefined) throw new Error('no layer');
      const writer = await store.blobs.open(layer);
      writer?.write(image.blobs.get(layer.digest)?.subarray(0, 150_000) ?? new Uint8Array());
      writer?.suspend();
      const server = await start(
        registryOf(image, (request, response) => {
          if (how === 'range' || request.headers.range === undefined) return false;
          if (how === '416') response.writeHead(416).end();
          else response.end(image.blobs.get(layer.digest));
          return true;
        }),
      );
      const { image: record } = await get(name(server));
      expect(record.layers.length).toBe(2);
      const asked = server.seen.find(({ headers }) => headers.range !== undefined);
      expect(asked?.headers.range).toBe(`bytes=150000-${layer.size - 1}`);
    });
  }

  test('a partial blob with other content is fetched anew', async () => {
    const [layer] = image.layers;
    if (layer === undefined) throw new Error('no layer');
    const writer = await store.blobs.open(layer);
    writer?.write(randomBytes(1000));
    writer?.suspend();
    const server = await start(registryOf(image));
    expect((await get(name(server))).image.layers.length).toBe(2);
  });

  for (const status of [429, 500, 503]) {
    test(`status ${status} is asked again, then gives up`, async () => {
      let left = 2;
      const server = await start(
        registryOf(image, (request, response) => {
          if (request.url === '/v2/' || left-- <= 0) return false;
          response.writeHead(status, { 'Retry-After': '0' }).end();
          return true;
        }),
      );
      await get(name(server));
      const dead = await start((_request, response) => void response.writeHead(status).end());
      expect((await failure(get(name(dead)))).code).toBe('network');
      expect(dead.seen.length).toBeLessThan(10);
    });
  }
});

describe('attacks', () => {
  async function refused(
    evil: Parameters<typeof registryOf>[1],
    made: MadeImage = image,
  ): Promise<{ error: TspodError; server: TestServer }> {
    const server = await start(registryOf(made, evil));
    const error = await failure(get(name(server)));
    expect(store.images()).toEqual([]);
    expect(error.line).not.toContain('\n');
    return { error, server };
  }

  test('CVE-2020-15157: urls of a foreign layer are not followed', async () => {
    const lure = await start((_request, response) => void response.end('x'));
    const made = makeImage(['tar'], {});
    const [layer] = made.layers;
    const evil = makeImage(['tar'], {
      manifest: { layers: [{ ...layer, urls: [`http://${lure.host}/layer`] }] },
    });
    const server = await start(
      registryOf(evil, (request, response) => {
        if (!request.url?.endsWith(layer?.digest ?? '-')) return false;
        response.writeHead(404).end();
        return true;
      }),
    );
    expect((await failure(get(name(server)))).code).toBe('not-found');
    expect(lure.seen).toEqual([]);
  });

  test('CVE-2021-41190: a manifest that is also an index, or is served as one', async () => {
    const both = makeImage(['tar'], { manifest: { manifests: [] } });
    expect((await refused(undefined, both)).error.message).toContain('both');
    const { error } = await refused((request, response) => {
      if (!request.url?.includes('/manifests/')) return false;
      response.setHeader('Content-Type', MEDIA.ociIndex);
      response.end(image.blobs.get(image.manifest.digest));
      return true;
    });
    expect(error.code).toBe('protocol');
  });

  test('CVE-2023-25153: an endless manifest is cut off', async () => {
    const { error } = await refused((request, response) => {
      if (!request.url?.includes('/manifests/')) return false;
      const pump = () => {
        while (!response.destroyed && response.write('x'.repeat(65_536)));
      };
      response.on('drain', pump);
      pump();
      return true;
    });
    expect(error.code).toBe('limit');
  });

  test('an endless blob is cut off at the size of its descriptor', async () => {
    const { error } = await refused((request, response) => {
      if (!request.url?.endsWith(image.layers[0]?.digest ?? '-')) return false;
      const pump = () => {
        while (!response.destroyed && response.write(randomBytes(65_536)));
      };
      response.on('drain', pump);
      pump();
      return true;
    });
    expect(error.code).toBe('limit');
  });

  test('CVE-2024-3727: a digest that is a path', async () => {
    const evil = makeImage(['tar'], {
      manifest: {
        layers: [{ mediaType: 'x/y', digest: 'sha256:../../../etc/passwd', size: 1 }],
      },
    });
    const { error, server } = await refused(undefined, evil);
    expect(error.message).toContain('layers[0].digest');
    expect(server.seen.some(({ url }) => url.includes('passwd'))).toBe(false);
  });

  test('a layer of another digest, and one of another diff-id', async () => {
    const [layer] = image.layers;
    const { error } = await refused((request, response) => {
      if (!request.url?.endsWith(layer?.digest ?? '-')) return false;
      response.end(randomBytes(layer?.size ?? 0));
      return true;
    });
    expect(error.code).toBe('digest');
    const lying = makeImage(['tar'], { diffIds: [sha256('other')] });
    expect((await refused(undefined, lying)).error.code).toBe('digest');
    expect(store.layers.has(sha256('other'))).toBe(false);
    expect(readdirSync(join(dir, 'cas/v1/blobs/sha256'))).toEqual([]);
  });

  test('Docker schema 1 is refused by name', async () => {
    const { error } = await refused((request, response) => {
      if (!request.url?.includes('/manifests/')) return false;
      response.setHeader(
        'Content-Type',
        'application/vnd.docker.distribution.manifest.v1+prettyjws',
      );
      response.end(json({ schemaVersion: 1, fsLayers: [] }));
      return true;
    });
    expect(error.message).toContain('schema 1');
  });

  test('a redirect to the local link, one that never ends, one to a file', async () => {
    const redirect = (location: string) =>
      refused((request, response) => {
        if (!request.url?.includes('/blobs/')) return false;
        response.writeHead(307, { Location: location }).end();
        return true;
      });
    expect((await redirect('http://169.254.169.254/latest')).error.message).toContain('local link');
    expect((await redirect('http://[::ffff:169.254.169.254]/')).error.message).toContain(
      'local link',
    );
    expect((await redirect('http://[fe80::1]/')).error.message).toContain('local link');
    expect((await redirect('file:///etc/passwd')).error.code).toBe('protocol');
    expect((await redirect('/v2/test/blobs/again')).error.code).toBe('limit');
  });

  test('a WWW-Authenticate header that breaks the grammar; a realm over plain HTTP elsewhere', async () => {
    for (const header of [
      'Bearer realm="',
      'Bearer realm=x realm=y',
      `Bearer ${'a'.repeat(9000)}`,
    ]) {
      const { error } = await refused((request, response) => {
        if (request.url === '/v2/') return false;
        response.writeHead(401, { 'WWW-Authenticate': header }).end();
        return true;
      });
      expect(['protocol', 'denied', 'network']).toContain(error.code);
    }
  });
});

describe('credentials', () => {
  function withAuth(host: string): { localConfig: string } {
    mkdirSync(join(dir, 'etc/auth.d'), { recursive: true });
    writeFileSync(
      join(dir, 'etc/auth.d/a.json'),
      json({
        rktKind: 'dockerAuth',
        rktVersion: 'v1',
        registries: [host],
        credentials: { user: 'me', password: 'secret' },
      }),
    );
    return { localConfig: join(dir, 'etc') };
  }
  const BASIC = `Basic ${Buffer.from('me:secret').toString('base64')}`;

  test('basic: only after a challenge, never to the host of a redirect', async () => {
    const other = await start((request, response) => {
      response.end(image.blobs.get(request.url?.slice(1) ?? ''));
    });
    const server = await start(
      registryOf(image, (request, response) => {
        if (request.url === '/v2/') return false;
        if (request.headers.authorization !== BASIC) {
          response.writeHead(401, { 'WWW-Authenticate': 'Basic realm="x"' }).end();
          return true;
        }
        if (!request.url?.includes('/blobs/')) return false;
        const digest = request.url.split('/').at(-1);
        response.writeHead(307, { Location: `http://${other.host}/${digest}` }).end();
        return true;
      }),
    );
    await get(name(server), withAuth(server.host));
    expect(other.seen.length).toBeGreaterThan(0);
    expect(other.seen.every(({ headers }) => headers.authorization === undefined)).toBe(true);
  });

  test('bearer: token server asked for pull only; token reused; expired token renewed', async () => {
    let tokens = 0;
    const server = await start(
      registryOf(image, (request, response) => {
        if (request.url === '/v2/') return false;
        if (request.url?.startsWith('/token')) {
          tokens += 1;
          response.end(JSON.stringify({ token: `t${tokens}`, expires_in: 300 }));
          return true;
        }
        // The first token is good for the manifest only.
        const good = request.url?.includes('/manifests/') ? /^Bearer t/ : /^Bearer t[2-9]/;
        if (good.test(request.headers.authorization ?? '')) return false;
        response.writeHead(401, {
          'WWW-Authenticate': `Bearer realm="http://${request.headers.host}/token",service="s",scope="repository:*:push"`,
        });
        response.end();
        return true;
      }),
    );
    await get(name(server), withAuth(server.host));
    const asked = server.seen.filter(({ url }) => url.startsWith('/token'));
    expect(asked.length).toBe(2);
    expect(asked[0]?.url).toContain('scope=repository%3Atest%3Apull');
    expect(asked[0]?.headers.authorization).toBe(BASIC);
  });

  test('a 401 from the host of a redirect gets no credentials', async () => {
    const thief = await start((_request, response) => {
      response.writeHead(401, { 'WWW-Authenticate': 'Basic realm="give"' }).end();
    });
    const server = await start(
      registryOf(image, (request, response) => {
        if (!request.url?.includes('/manifests/')) return false;
        response.writeHead(302, { Location: `http://${thief.host}/` }).end();
        return true;
      }),
    );
    const error = await failure(get(name(server), withAuth(server.host)));
    expect(error.code).toBe('denied');
    expect(thief.seen.every(({ headers }) => headers.authorization === undefined)).toBe(true);
  });

  test('wrong credentials: denied once, and nothing of them in the message', async () => {
    const server = await start((request, response) => {
      if (request.url === '/v2/') return void response.writeHead(401).end();
      response.writeHead(401, { 'WWW-Authenticate': 'Basic realm="x"' });
      response.end(
        JSON.stringify({
          errors: [{ code: 'DENIED', message: `you sent ${request.headers.authorization}` }],
        }),
      );
    });
    const error = await failure(get(name(server), withAuth(server.host)));
    expect(error.code).toBe('denied');
    expect(error.line).not.toContain(BASIC.slice(6));
    expect(error.line).not.toContain('secret');
    expect(server.seen.length).toBeLessThan(6);
  });
});

test('connection refused and unknown host are told by cause', async () => {
  const server = await serve((_request, response) => void response.end());
  await server.close();
  const error = await failure(get(`docker://${server.host}/x`));
  expect(error.line).toContain(`${server.host}: connection refused`);
});
