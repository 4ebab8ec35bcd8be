/** Images pushed by the built program into Debian's docker-registry, and looked at with skopeo. */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { fromLayout, useSandbox } from '../functional/sandbox.ts';
import { busybox, writeAci } from '../images/aci-writer.ts';
import { startRegistry } from '../support/registry.ts';

const use = useSandbox();
const work = mkdtempSync(join(tmpdir(), 'tspod-push-'));
let registry: Awaited<ReturnType<typeof startRegistry>>;
beforeAll(async () => {
  registry = await startRegistry(join(work, 'storage'));
});
afterAll(async () => {
  await registry.stop();
  rmSync(work, { recursive: true, force: true });
});

function inspect(name: string): { Digest: string; Layers: string[] } {
  const ended = spawnSync(
    'skopeo',
    ['inspect', '--tls-verify=false', `docker://${registry.host}/${name}`],
    { encoding: 'utf8' },
  );
  expect(ended.stderr).toBe('');
  return JSON.parse(ended.stdout);
}

async function fetched(image: string): Promise<string> {
  const ended = await use.box.run(['fetch', '--full', image]);
  expect(ended).toMatchObject({ status: 0 });
  return ended.stdout.trim();
}

test('a pushed image has the same digest, and comes back and runs', async () => {
  const id = await fetched(fromLayout('busybox'));
  const target = `docker://${registry.host}/team/busybox:1`;
  const pushed = await use.box.run(['push', id, target]);
  expect(pushed).toMatchObject({ status: 0, stderr: '' });
  expect(inspect('team/busybox:1').Digest).toBe(pushed.stdout.trim());
  expect(await use.box.run(['image', 'rm', id])).toMatchObject({ status: 0 });
  const run = await use.box.run(['run', target, '--', '-c', 'echo back']);
  expect(run).toMatchObject({ status: 0, stdout: 'back\n' });
});

test('what is there is not sent again; the same registry mounts its own blobs', async () => {
  const id = await fetched(fromLayout('python'));
  const place = (name: string) => `docker://${registry.host}/${name}`;
  expect(await use.box.run(['push', id, place('one/python:a')])).toMatchObject({ status: 0 });
  expect(await use.box.run(['push', id, place('one/python:b')])).toMatchObject({ status: 0 });
  expect(await use.box.run(['fetch', place('one/python:a')])).toMatchObject({ status: 0 });
  const other = await use.box.run(['push', '--format=json', id, place('two/python:a')]);
  expect(JSON.parse(other.stdout)).toEqual({
    name: place('two/python:a'),
    digest: inspect('two/python:a').Digest,
  });
  expect(inspect('one/python:b').Digest).toBe(inspect('two/python:a').Digest);
});

test('an ACI becomes an OCI image that others can unpack', async () => {
  const file = join(use.box.root, 'hello.aci');
  writeAci(file, 'example.com/hello', {
    rootfs: busybox,
    manifest: { app: { exec: ['/bin/sh', '-c', 'echo from an ACI'], user: '0', group: '0' } },
  });
  const id = await fetched(file);
  const target = `docker://${registry.host}/team/hello:1`;
  const pushed = await use.box.run(['push', id, target]);
  expect(pushed).toMatchObject({ status: 0, stderr: '' });
  expect(inspect('team/hello:1').Digest).toBe(pushed.stdout.trim());
  // Once more it is the same.
  const again = await use.box.run(['push', id, target]);
  expect(again.stdout).toBe(pushed.stdout);
  expect(await use.box.run(['image', 'rm', id])).toMatchObject({ status: 0 });
  const run = await use.box.run(['run', target]);
  expect(run).toMatchObject({ status: 0, stdout: 'from an ACI\n' });
  const podman = `podman --root ${use.box.root}/c --runroot ${use.box.root}/r --storage-driver=vfs --events-backend=none`;
  const script = `${podman} pull -q --tls-verify=false ${target} && ${podman} image inspect ${target.slice('docker://'.length)}`;
  const words = ['-m', '--propagation', 'private', 'sh', '-ec', script];
  const pulled = spawnSync('unshare', words, { encoding: 'utf8' });
  expect(pulled.stderr).not.toMatch(/rror/);
  expect(pulled.stdout).toContain('from an ACI');
});

describe('uploads that break off', () => {
  const digestIn = (url: string) =>
    /sha256(?::|%3A)[0-9a-f]{64}/.exec(url)?.[0].replace('%3A', ':') ?? '';

  /** Uploads in pieces, as the distribution specification has them. No blob comes whole. */
  class Pieces {
    readonly blobs = new Map<string, Buffer>();
    readonly seen: string[] = [];
    readonly #uploads: Buffer[] = [];
    readonly #least: number | undefined;
    readonly #breaks: (patch: number) => boolean;

    /** @param least OCI-Chunk-Min-Length. @param breaks whether the connection breaks in that PATCH */
    constructor(least: number | undefined, breaks: (patch: number) => boolean) {
      this.#least = least;
      this.#breaks = breaks;
    }

    answer(request: IncomingMessage, body: Buffer, response: ServerResponse): void {
      const { method = '', url = '' } = request;
      this.seen.push(method);
      const number = Number(/^\/u([0-9]+)/.exec(url)?.[1] ?? Number.NaN);
      if (method === 'HEAD') response.writeHead(this.blobs.has(digestIn(url)) ? 200 : 404).end();
      else if (method === 'POST') {
        const location = `/u${this.#uploads.push(Buffer.alloc(0)) - 1}`;
        const least =
          this.#least === undefined ? {} : { 'OCI-Chunk-Min-Length': String(this.#least) };
        response.writeHead(202, { Location: location, ...least }).end();
      } else if (Number.isNaN(number)) {
        this.blobs.set('manifest', body);
        response.writeHead(201).end();
      } else if (method === 'PUT') this.#close(number, digestIn(url), body, response);
      else if (method === 'PATCH') this.#patch(number, request, body, response);
      else this.#told(number, response, 204);
    }

    #told(number: number, response: ServerResponse, status: number): void {
      const got = this.#uploads[number]?.length ?? 0;
      const headers = { Location: `/u${number}`, Range: `0-${Math.max(0, got - 1)}` };
      response.writeHead(status, headers).end();
    }

    #patch(number: number, request: IncomingMessage, body: Buffer, response: ServerResponse) {
      const before = this.#uploads[number] ?? Buffer.alloc(0);
      const start = Number(/^([0-9]+)-/.exec(request.headers['content-range'] ?? '')?.[1]);
      if (start !== before.length) return void response.writeHead(416).end();
      const broken = this.#breaks(this.seen.filter(method => method === 'PATCH').length);
      // What broke off has come half.
      const taken = broken ? body.subarray(0, body.length >> 1) : body;
      this.#uploads[number] = Buffer.concat([before, taken]);
      if (broken) response.destroy();
      else this.#told(number, response, 202);
    }

    #close(number: number, digest: string, body: Buffer, response: ServerResponse): void {
      if (body.length > 0) return void response.writeHead(413).end();
      const blob = this.#uploads[number] ?? body;
      const isIt = `sha256:${createHash('sha256').update(blob).digest('hex')}` === digest;
      if (isIt) this.blobs.set(digest, blob);
      response.writeHead(isIt ? 201 : 400).end();
    }
  }

  async function pushedTo(pieces: Pieces): Promise<void> {
    const id = await fetched(fromLayout('busybox'));
    const server = createServer((request, response) => {
      const parts: Buffer[] = [];
      request.on('data', (part: Buffer) => parts.push(part));
      request.on('end', () => pieces.answer(request, Buffer.concat(parts), response));
    });
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
    const address = server.address();
    if (address === null || typeof address === 'string') throw new Error('no address');
    const target = `docker://127.0.0.1:${address.port}/x:1`;
    const ended = await use.box.run(['push', id, target]);
    server.closeAllConnections();
    server.close();
    expect(ended).toMatchObject({ status: 0, stderr: '' });
    const manifest = JSON.parse(pieces.blobs.get('manifest')?.toString() ?? '');
    for (const { digest, size } of [manifest.config, ...manifest.layers]) {
      expect(pieces.blobs.get(digest)?.length).toBe(size);
    }
  }

  test('a registry that takes no large body gets pieces', async () => {
    const pieces = new Pieces(undefined, () => false);
    await pushedTo(pieces);
    expect(pieces.seen).toContain('PATCH');
  });

  test('a piece that broke off goes on where the registry has got to', async () => {
    const pieces = new Pieces(500, patch => patch <= 2);
    await pushedTo(pieces);
    expect(pieces.seen).toContain('GET');
  });
});

describe('refused', () => {
  test.each([
    [['push', 'nothing'], /takes an image and where to push it/],
    [['push', 'nothing', 'oci:/tmp/x'], /no place to push to/],
    [['push', 'nothing', 'docker://h/x@sha256:'.padEnd(100, '0')], /reference|digest|no place/],
    [['push', 'nothing', 'docker://127.0.0.1:9/x:1'], /no image IDs found/],
    [['push', '--offline', 'x', 'docker://127.0.0.1:9/x:1'], /would be contacted/],
  ])('%j', async (words, message) => {
    const ended = await use.box.run(words);
    expect(ended).toMatchObject({ status: 254, stdout: '' });
    expect(ended.stderr).toMatch(message);
    expect(ended.stderr.trim().split('\n')).toHaveLength(1);
  });

  test('a registry that is not there', async () => {
    const id = await fetched(fromLayout('busybox'));
    const ended = await use.box.run(['push', id, 'docker://127.0.0.1:9/x:1']);
    expect(ended.stderr).toMatch(/127\.0\.0\.1:9.*refused/);
    expect(ended.status).toBe(254);
  });
});

describe('a registry that means ill', () => {
  /** A server that answers everything by `answer`, and keeps what it was sent. */
  async function served<T>(
    answer: (request: IncomingMessage, response: ServerResponse) => void,
    use: (host: string, seen: { url: string; authorization: string | undefined }[]) => Promise<T>,
  ): Promise<T> {
    const seen: { url: string; authorization: string | undefined }[] = [];
    const server: Server = createServer((request, response) => {
      seen.push({
        url: `${request.method} ${request.url}`,
        authorization: request.headers.authorization,
      });
      request.resume();
      request.on('end', () => answer(request, response));
    });
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
    const address = server.address();
    if (address === null || typeof address === 'string') throw new Error('no address');
    try {
      return await use(`127.0.0.1:${address.port}`, seen);
    } finally {
      server.closeAllConnections();
      server.close();
    }
  }

  test('another digest than what was pushed is an error', async () => {
    const id = await fetched(fromLayout('busybox'));
    await served(
      (request, response) => {
        if (request.method === 'HEAD') response.writeHead(200).end();
        else response.writeHead(201, { 'Docker-Content-Digest': `sha256:${'0'.repeat(64)}` }).end();
      },
      async host => {
        const ended = await use.box.run(['push', id, `docker://${host}/x:1`]);
        expect(ended.status).toBe(254);
        expect(ended.stderr).toMatch(/the registry has it under sha256:0000/);
      },
    );
  });

  test('CVE-2020-15157: an upload that goes on elsewhere gets no credentials', async () => {
    const id = await fetched(fromLayout('busybox'));
    const config = join(use.box.root, 'local', 'auth.d');
    await served(
      (_request, response) => response.writeHead(201).end(),
      async (elsewhere, seenElsewhere) => {
        await served(
          (request, response) => {
            if (request.headers.authorization === undefined) {
              response.writeHead(401, { 'WWW-Authenticate': 'Basic realm="x"' }).end();
            } else if (request.method === 'HEAD') response.writeHead(404).end();
            else if (request.method === 'POST') {
              response.writeHead(202, { Location: `http://${elsewhere}/upload?state=1` }).end();
            } else response.writeHead(201).end();
          },
          async (host, seen) => {
            spawnSync('mkdir', ['-p', config]);
            spawnSync('sh', ['-c', `cat >"$0"`, join(config, 'x.json')], {
              input: JSON.stringify({
                rktKind: 'dockerAuth',
                rktVersion: 'v1',
                registries: [host],
                credentials: { user: 'ann', password: 'secret' },
              }),
            });
            const ended = await use.box.run(['push', id, `docker://${host}/x:1`]);
            expect(ended).toMatchObject({ status: 0, stderr: '' });
            expect(seen.some(({ authorization }) => authorization !== undefined)).toBe(true);
            expect(seenElsewhere.length).toBeGreaterThan(0);
            for (const { url, authorization } of seenElsewhere) {
              expect(authorization).toBeUndefined();
              expect(url).toMatch(/^PUT \/upload\?state=1&digest=sha256/);
            }
          },
        );
      },
    );
  });
});
