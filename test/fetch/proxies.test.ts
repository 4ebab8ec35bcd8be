/** Proxies of the environment, by absolute URL and by CONNECT, and client certificates. */
import { randomBytes } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { createServer as createHttpsServer } from 'node:https';
import { join } from 'node:path';
import type { TLSSocket } from 'node:tls';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { Context } from '../../src/context.ts';
import { fetchImage } from '../../stage0/fetch/fetch.ts';
import { type Certificate, makeCertificate } from './certificates.ts';
import { type ProxyServer, startProxy } from './proxy-server.ts';
import {
  FAST,
  folder,
  makeImage,
  registryOf,
  removeFolder,
  serve,
  testContext,
  testStore,
} from './support.ts';

const image = makeImage([randomBytes(20_000)]);
const NAME = 'docker://registry.test:5000/test:1';
let dir: string;
const closers: (() => Promise<void>)[] = [];

beforeEach(() => {
  dir = folder();
  vi.stubEnv('HOME', dir);
  for (const name of ['http_proxy', 'https_proxy', 'no_proxy']) {
    vi.stubEnv(name, '');
    vi.stubEnv(name.toUpperCase(), '');
  }
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await Promise.all(closers.splice(0).map(close => close()));
  removeFolder(dir);
});

async function get(text: string, changes: Partial<Context> = {}) {
  const store = testStore(join(dir, 'store'));
  const lease = store.lease();
  try {
    const context = testContext(dir, { localConfig: join(dir, 'etc'), ...changes });
    const options = { pullPolicy: 'update', lease, timing: FAST } as const;
    return (await fetchImage(context, store, text, options)).image.id;
  } finally {
    lease.release();
    store.close();
  }
}

function configure(registry: string, settings: object): void {
  mkdirSync(join(dir, 'etc/registries.d'), { recursive: true });
  writeFileSync(
    join(dir, 'etc/registries.d/test.json'),
    JSON.stringify({
      rktKind: 'registries',
      rktVersion: 'v1',
      registries: [registry],
      ...settings,
    }),
  );
}

async function plainRegistry(): Promise<string> {
  const server = await serve(registryOf(image));
  closers.push(server.close);
  return server.host;
}

/** The CN of each client's certificate; undefined for one without. */
const clients: (string | undefined)[] = [];

async function tlsRegistry(own: Certificate, clientCa?: Certificate): Promise<string> {
  clients.length = 0;
  const { key, cert } = own;
  const asking =
    clientCa === undefined
      ? {}
      : { ca: clientCa.cert, requestCert: true, rejectUnauthorized: true };
  const server = createHttpsServer({ key, cert, ...asking }, registryOf(image));
  server.on('secureConnection', (socket: TLSSocket) => {
    const name: unknown = socket.getPeerCertificate().subject?.CN;
    clients.push(typeof name === 'string' ? name : undefined);
  });
  server.on('tlsClientError', () => undefined);
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  closers.push(
    () =>
      new Promise(resolve => {
        server.closeAllConnections();
        server.close(() => resolve());
      }),
  );
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return `127.0.0.1:${address.port}`;
}

async function proxyTo(upstream: string | undefined): Promise<ProxyServer> {
  const proxy = await startProxy(() => upstream);
  closers.push(proxy.close);
  return proxy;
}

test('CONNECT for https, with the proxy’s own credentials and never the registry’s', async () => {
  const own = makeCertificate(dir, 'registry');
  const proxy = await proxyTo(await tlsRegistry(own));
  configure('registry.test:5000', { caCertificate: own.certFile });
  vi.stubEnv('https_proxy', `http://me:p%40ss@${proxy.host}`);
  expect(await get(NAME, { insecure: new Set(['image']) })).toBe(image.config.digest);
  expect(new Set(proxy.asked)).toEqual(new Set(['CONNECT registry.test:5000']));
  const expected = `Basic ${Buffer.from('me:p@ss').toString('base64')}`;
  expect(new Set(proxy.authorized)).toEqual(new Set([expected]));
});

test('a tunnel ends at a server of another name: its certificate is refused', async () => {
  const proxy = await proxyTo(await tlsRegistry(makeCertificate(dir, 'other')));
  vi.stubEnv('https_proxy', `http://${proxy.host}`);
  await expect(get(NAME)).rejects.toThrow(/TLS: its certificate is of an unknown authority/);
});

test('the registry’s own TLS settings hold behind the tunnel', async () => {
  const own = makeCertificate(dir, 'registry');
  const client = makeCertificate(dir, 'client');
  const proxy = await proxyTo(await tlsRegistry(own, client));
  vi.stubEnv('https_proxy', `http://${proxy.host}`);
  configure('registry.test:5000', {
    clientCertificate: client.certFile,
    clientKey: client.keyFile,
  });
  expect(await get(NAME, { insecure: new Set(['image', 'tls']) })).toBe(image.config.digest);
  expect(clients).toContain('client');
});

test('a registry without TLS is found through the tunnel, then asked by absolute URLs', async () => {
  const proxy = await proxyTo(await plainRegistry());
  vi.stubEnv('http_proxy', `http://${proxy.host}`);
  vi.stubEnv('https_proxy', `http://${proxy.host}`);
  expect(await get(NAME)).toBe(image.config.digest);
  expect(proxy.asked[0]).toBe('CONNECT registry.test:5000');
  expect(proxy.asked).toContain('GET http://registry.test:5000/v2/test/manifests/1');
});

test('a proxy that fails is named, and its password is not', async () => {
  const proxy = await proxyTo(undefined);
  vi.stubEnv('https_proxy', `http://me:secret@${proxy.host}`);
  const error: unknown = await get(NAME).catch((reason: unknown) => reason);
  expect(error).toMatchObject({ code: 'network' });
  expect(String(error)).toContain('502');
  await proxy.close();
  const gone: unknown = await get(NAME).catch((reason: unknown) => reason);
  expect(String(gone)).toContain(`by proxy ${proxy.host}: connection refused`);
  expect(`${String(error)}${String(gone)}`).not.toContain('secret');
});

test('no_proxy and loopback go straight, the upper-case names count too', async () => {
  const proxy = await proxyTo(await plainRegistry());
  vi.stubEnv('HTTPS_PROXY', `http://${proxy.host}`);
  vi.stubEnv('HTTP_PROXY', `http://${proxy.host}`);
  const own = await plainRegistry();
  await get(`docker://${own}/test:2`);
  expect(proxy.asked).toEqual([]);
  await get(NAME);
  expect(proxy.asked.length).toBeGreaterThan(0);
  const before = proxy.asked.length;
  vi.stubEnv('NO_PROXY', 'example.com,.test');
  await expect(get('docker://registry.test:5000/test:3')).rejects.toMatchObject({
    code: 'network',
  });
  expect(proxy.asked.length).toBe(before);
});

test('httpoxy: under CGI a client’s Proxy header does not name the proxy', async () => {
  const proxy = await proxyTo(await plainRegistry());
  vi.stubEnv('HTTP_PROXY', `http://${proxy.host}`);
  vi.stubEnv('REQUEST_METHOD', 'GET');
  await expect(get(NAME)).rejects.toMatchObject({ code: 'network' });
  expect(proxy.asked).toEqual([]);
});

test('a proxy variable that is no URL is one clear line without its content', async () => {
  vi.stubEnv('https_proxy', 'socks5://me:secret@x:1');
  await expect(get(NAME)).rejects.toThrow(
    /^environment variable https_proxy: not an http or https URL$/,
  );
});

test('client certificates: shown to their registry, and to no mirror', async () => {
  const own = makeCertificate(dir, 'registry');
  const client = makeCertificate(dir, 'client');
  const host = await tlsRegistry(own, client);
  const name = `docker://${host}/test:1`;
  const insecure: Partial<Context> = { insecure: new Set(['image']) };
  configure(host, { caCertificate: own.certFile });
  await expect(get(name, insecure)).rejects.toMatchObject({ code: 'network' });
  const files = { clientCertificate: client.certFile, clientKey: client.keyFile };
  configure(host, { caCertificate: own.certFile, ...files });
  expect(await get(name, insecure)).toBe(image.config.digest);
  expect(clients).toContain('client');
  // As a mirror of another registry that has a certificate of its own it is shown none.
  const open = await tlsRegistry(own);
  configure('registry.test:5000', { mirrors: [open], ...files });
  expect(await get(NAME, { insecure: new Set(['image', 'tls']) })).toBe(image.config.digest);
  expect(clients.length).toBeGreaterThan(0);
  expect(clients.every(each => each === undefined)).toBe(true);
});

test('a client certificate that can’t be read names file and reason', async () => {
  configure('registry.test:5000', {
    clientCertificate: join(dir, 'none.pem'),
    clientKey: join(dir, 'none.key'),
  });
  await expect(get(NAME)).rejects.toThrow(/can't read .*none\.pem: .*ENOENT/);
});
