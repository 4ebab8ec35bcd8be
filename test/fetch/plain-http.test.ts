/**
 * When `--insecure-options=http` really speaks plain HTTP: only where nobody listens with TLS. Everything else
 * that keeps the encrypted try from succeeding is what an attacker on the wire would do.
 */
import { randomBytes } from 'node:crypto';
import { createServer, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer } from 'node:tls';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { fetchImage } from '../../stage0/fetch/fetch.ts';
import type { Timing } from '../../stage0/fetch/retry.ts';
import { makeCertificate } from './certificates.ts';
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

const image = makeImage([randomBytes(2000)]);
let dir: string;
const closers: (() => Promise<void>)[] = [];

beforeEach(() => {
  dir = folder();
  vi.stubEnv('HOME', dir);
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await Promise.all(closers.splice(0).map(close => close()));
  removeFolder(dir);
});

/** A server of raw connections; what it got first is kept. */
async function listen(
  make: (onFirst: (socket: Socket) => void) => Server,
  answer: (socket: Socket) => void,
): Promise<{ host: string; firsts: Buffer[] }> {
  const firsts: Buffer[] = [];
  const sockets = new Set<Socket>();
  const server = make(socket => {
    socket.on('error', () => undefined);
    socket.once('data', (bytes: Buffer) => firsts.push(bytes));
    answer(socket);
  });
  server.on('connection', socket => sockets.add(socket));
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
  return { host: `127.0.0.1:${address.port}`, firsts };
}

async function get(host: string, timing: Partial<Timing> = {}) {
  const store = testStore(`${dir}/store`);
  const lease = store.lease();
  try {
    return await fetchImage(testContext(dir), store, `docker://${host}/test:1`, {
      pullPolicy: 'update',
      lease,
      timing: { ...FAST, ...timing },
    });
  } finally {
    lease.release();
    store.close();
  }
}

const isClientHello = (bytes: Buffer) => bytes[0] === 0x16;

test('a server that answers a ClientHello by HTTP is asked by HTTP', async () => {
  const server = await serve(registryOf(image));
  closers.push(server.close);
  expect((await get(server.host)).image.id).toBe(image.config.digest);
});

test('where nobody listens, HTTP is refused too, in one clear line', async () => {
  const server = await serve((_, response) => response.end());
  await server.close();
  await expect(get(server.host)).rejects.toMatchObject({
    code: 'network',
    message: `${server.host}: connection refused`,
  });
});

test('never after a certificate that is not trusted', async () => {
  const { key, cert } = makeCertificate(dir, 'other');
  const tls = await listen(
    onSocket => createTlsServer({ key, cert }, () => undefined).on('connection', onSocket),
    () => undefined,
  );
  await expect(get(tls.host)).rejects.toThrow(/TLS: its certificate is of an unknown authority/);
  expect(tls.firsts.every(isClientHello)).toBe(true);
});

test('never after a failed handshake of another kind', async () => {
  // A fatal alert, handshake_failure: it does speak TLS.
  const alert = Buffer.from([0x15, 3, 3, 0, 2, 2, 40]);
  const tls = await listen(
    onSocket => createServer(onSocket),
    socket => void socket.once('data', () => socket.end(alert)),
  );
  await expect(get(tls.host)).rejects.toMatchObject({ code: 'network' });
  expect(tls.firsts.length).toBeGreaterThan(0);
  expect(tls.firsts.every(isClientHello)).toBe(true);
});

test('never after a connection that breaks off', async () => {
  const reset = await listen(
    onSocket => createServer(onSocket),
    socket => void socket.once('data', () => socket.resetAndDestroy()),
  );
  await expect(get(reset.host)).rejects.toThrow(/the connection broke off/);
  expect(reset.firsts.length).toBeGreaterThan(0);
  expect(reset.firsts.every(isClientHello)).toBe(true);
});

test('never after a time-out', async () => {
  const silent = await listen(
    onSocket => createServer(onSocket),
    () => undefined,
  );
  await expect(get(silent.host, { connect: 100, attempts: 2 })).rejects.toThrow(
    /no connection in time/,
  );
  expect(silent.firsts.length).toBe(2);
  expect(silent.firsts.every(isClientHello)).toBe(true);
});

test('never after a proxy that refuses: it says nothing of the registry', async () => {
  const gone = await serve((_, response) => response.end());
  await gone.close();
  const plain = await serve(registryOf(image));
  closers.push(plain.close);
  vi.stubEnv('https_proxy', `http://${gone.host}`);
  vi.stubEnv('http_proxy', `http://${plain.host}`);
  vi.stubEnv('no_proxy', '');
  await expect(get('registry.test:5000')).rejects.toMatchObject({ code: 'network' });
  expect(plain.seen).toEqual([]);
});
