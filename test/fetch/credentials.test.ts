/** Whose credentials go where, and mirrors: against servers on loopback that say what they were asked. */
import { randomBytes } from 'node:crypto';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { fetchImage } from '../../stage0/fetch/fetch.ts';
import {
  FAST,
  folder,
  makeImage,
  registryOf,
  removeFolder,
  serve,
  type TestServer,
  testContext,
  testStore,
} from './support.ts';

const image = makeImage([randomBytes(20_000)]);
const BASIC = `Basic ${Buffer.from('me:secret').toString('base64')}`;
let dir: string;
const servers: TestServer[] = [];

beforeEach(() => {
  dir = folder();
  vi.stubEnv('HOME', dir);
  vi.stubEnv('XDG_RUNTIME_DIR', join(dir, 'none'));
});

afterEach(async () => {
  vi.unstubAllEnvs();
  await Promise.all(servers.splice(0).map(server => server.close()));
  removeFolder(dir);
});

async function start(handler: Parameters<typeof serve>[0]): Promise<TestServer> {
  const server = await serve(handler);
  servers.push(server);
  return server;
}

/** A registry that wants `me` and `secret`. */
const guarded = () =>
  start(
    registryOf(image, (request, response) => {
      if (request.headers.authorization === BASIC) return false;
      response.writeHead(401, { 'WWW-Authenticate': 'Basic realm="test"' }).end();
      return true;
    }),
  );

async function get(text: string) {
  const store = testStore(join(dir, 'store'));
  const lease = store.lease();
  try {
    const context = testContext(dir, { localConfig: join(dir, 'etc') });
    const fetched = await fetchImage(context, store, text, {
      pullPolicy: 'update',
      lease,
      timing: FAST,
    });
    return fetched.image.id;
  } finally {
    lease.release();
    store.close();
  }
}

function dockerConfig(config: unknown): void {
  mkdirSync(join(dir, '.docker'), { recursive: true });
  writeFileSync(join(dir, '.docker/config.json'), JSON.stringify(config));
}

test('credentials of docker config.json', async () => {
  const server = await guarded();
  dockerConfig({ auths: { [server.host]: { auth: Buffer.from('me:secret').toString('base64') } } });
  expect(await get(`docker://${server.host}/test:1`)).toBe(image.config.digest);
});

test('credentials of REGISTRY_AUTH_FILE, and a wrong password is one clear error', async () => {
  const server = await guarded();
  const file = join(dir, 'auth.json');
  const auth = (text: string) =>
    writeFileSync(
      file,
      JSON.stringify({ auths: { [server.host]: { auth: Buffer.from(text).toString('base64') } } }),
    );
  vi.stubEnv('REGISTRY_AUTH_FILE', file);
  auth('me:wrong');
  const refused = await get(`docker://${server.host}/test:1`).catch((error: unknown) => error);
  expect(refused).toMatchObject({ code: 'denied' });
  expect(String(refused)).not.toContain('wrong');
  auth('me:secret');
  expect(await get(`docker://${server.host}/test:1`)).toBe(image.config.digest);
});

test('a credential helper is asked for its registry, and for no other', async () => {
  const server = await guarded();
  const bin = join(dir, 'bin');
  mkdirSync(bin);
  const program = join(bin, 'docker-credential-test');
  writeFileSync(
    program,
    `#!/bin/sh\ncat >> ${dir}/asked\necho >> ${dir}/asked\necho '{"ServerURL":"x","Username":"me","Secret":"secret"}'\n`,
  );
  chmodSync(program, 0o755);
  vi.stubEnv('PATH', `${bin}:/usr/bin:/bin`);
  dockerConfig({ credHelpers: { [server.host]: 'test' } });
  expect(await get(`docker://${server.host}/test:1`)).toBe(image.config.digest);
  const other = await guarded();
  await expect(get(`docker://${other.host}/test:1`)).rejects.toMatchObject({ code: 'denied' });
});

test('mirrors are asked in order, then the registry; none gets the credentials of another', async () => {
  const registry = await guarded();
  const broken = await start((_, response) => response.writeHead(404).end());
  const mirror = await start(registryOf(image));
  dockerConfig({
    auths: { [registry.host]: { auth: Buffer.from('me:secret').toString('base64') } },
  });
  const configure = (...mirrors: readonly string[]) => {
    mkdirSync(join(dir, 'etc/registries.d'), { recursive: true });
    writeFileSync(
      join(dir, 'etc/registries.d/test.json'),
      JSON.stringify({
        rktKind: 'registries',
        rktVersion: 'v1',
        registries: [registry.host],
        mirrors,
        insecure: ['http'],
      }),
    );
  };
  configure(broken.host, mirror.host);
  expect(await get(`docker://${registry.host}/test:1`)).toBe(image.config.digest);
  expect(broken.seen.length).toBeGreaterThan(0);
  expect(registry.seen).toEqual([]);
  for (const { headers } of [...broken.seen, ...mirror.seen]) {
    expect(headers.authorization).toBeUndefined();
  }
  configure(broken.host);
  expect(await get(`docker://${registry.host}/test:2`)).toBe(image.config.digest);
  expect(registry.seen.length).toBeGreaterThan(0);
});
