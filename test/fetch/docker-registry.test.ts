/** Debian's docker-registry on loopback, with TLS and a password, filled by skopeo; and OCI layouts. */
import { execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Context } from '../../src/context.ts';
import { fetchImage } from '../../stage0/fetch/fetch.ts';
import {
  FAST,
  folder,
  json,
  makeImage,
  removeFolder,
  testContext,
  testStore,
  writeLayout,
} from './support.ts';

let dir: string;
beforeEach(() => {
  dir = folder();
});
afterEach(() => removeFolder(dir));

async function get(text: string, changes: Partial<Context> = {}) {
  const store = testStore(join(dir, 'store'));
  const lease = store.lease();
  try {
    const context = testContext(dir, changes);
    return await fetchImage(context, store, text, { pullPolicy: 'update', lease, timing: FAST });
  } finally {
    lease.release();
    store.close();
  }
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise(resolve => server.close(resolve));
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

const run = (program: string, ...args: string[]) =>
  execFileSync(program, args, { cwd: dir, stdio: ['ignore', 'pipe', 'pipe'], encoding: 'utf8' });

test('a layout, as folder and as tar: by tag, alone, by bare path', async () => {
  const one = makeImage([randomBytes(5000)]);
  const two = makeImage([randomBytes(5000)]);
  writeLayout(join(dir, 'two'), { one, two });
  writeLayout(join(dir, 'alone'), { one });
  run('tar', 'cf', 'two.tar', '-C', 'two', '.');
  expect((await get(`oci:${dir}/two:two`)).image.id).toBe(two.config.digest);
  expect((await get(`oci-archive:${dir}/two.tar:one`)).image.id).toBe(one.config.digest);
  expect((await get(`${dir}/alone`)).image.id).toBe(one.config.digest);
  await expect(get(`oci:${dir}/two:three`)).rejects.toThrow(/no image of this name/);
});

test('a layout that did not change writes nothing; one that did, or whose layer is gone, does', async () => {
  const one = makeImage([randomBytes(5000)]);
  const two = makeImage([randomBytes(5000)]);
  const record = (id: string) =>
    statSync(join(dir, 'store/cas/v1/images', `${id.replace(':', '-')}.json`));
  writeLayout(join(dir, 'layout'), { one });
  const id = (await get(`oci:${dir}/layout:one`)).image.id;
  const before = record(id);
  expect((await get(`oci:${dir}/layout:one`)).image.id).toBe(id);
  expect(record(id).ino).toBe(before.ino);
  rmSync(join(dir, 'store/cas/v1/layers'), { recursive: true });
  expect((await get(`oci:${dir}/layout:one`)).image.id).toBe(id);
  expect(readdirSync(join(dir, 'store/cas/v1/layers'))).not.toEqual([]);
  // The same name for another image, and another name for the same.
  writeLayout(join(dir, 'layout'), { one: two });
  expect((await get(`oci:${dir}/layout:one`)).image.id).toBe(two.config.digest);
  writeLayout(join(dir, 'layout'), { one: two, other: two });
  expect((await get(`oci:${dir}/layout:other`)).image.names.length).toBe(2);
});

test('a layout whose blobs are a link elsewhere is refused', async () => {
  const image = makeImage(['tar']);
  writeLayout(join(dir, 'real'), { one: image });
  mkdirSync(join(dir, 'evil'));
  run('cp', 'real/index.json', 'real/oci-layout', 'evil');
  symlinkSync('../real/blobs', join(dir, 'evil/blobs'));
  await expect(get(`oci:${dir}/evil`)).rejects.toThrow(/symbolic link/);
});

test('docker-registry with TLS and htpasswd', async () => {
  const image = makeImage([randomBytes(200_000), randomBytes(100)]);
  writeLayout(join(dir, 'layout'), { one: image });
  const openssl =
    'req -x509 -newkey rsa:2048 -nodes -days 2 -keyout key.pem -out cert.pem -subj /CN=x';
  run('openssl', ...openssl.split(' '), '-addext', 'subjectAltName=IP:127.0.0.1');
  // "secret", by bcrypt
  const port = await freePort();
  const hash = run(
    'python3',
    '-c',
    "import crypt; print(crypt.crypt('secret', crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=16)), end='')",
  );
  writeFileSync(join(dir, 'htpasswd'), `me:${hash.replace(/^\$2b/, '$2y')}\n`);
  writeFileSync(
    join(dir, 'registry.yml'),
    json({
      version: 0.1,
      log: { level: 'error' },
      storage: { filesystem: { rootdirectory: join(dir, 'registry') } },
      auth: { htpasswd: { realm: 'test', path: join(dir, 'htpasswd') } },
      http: {
        addr: `127.0.0.1:${port}`,
        tls: { certificate: join(dir, 'cert.pem'), key: join(dir, 'key.pem') },
      },
    }),
  );
  const registry = spawn('docker-registry', ['serve', 'registry.yml'], {
    cwd: dir,
    stdio: 'ignore',
  });
  try {
    const target = `docker://127.0.0.1:${port}/a/b:1`;
    for (let tries = 0; ; tries += 1) {
      try {
        run(
          'skopeo',
          'copy',
          '--insecure-policy',
          '--dest-tls-verify=false',
          '--dest-creds=me:secret',
          'oci:layout:one',
          target,
        );
        break;
      } catch (error) {
        if (tries > 50) throw error;
        await new Promise(resolve => setTimeout(resolve, 100));
      }
    }
    await expect(get(target, { insecure: new Set(['image']) })).rejects.toThrow(
      /unknown authority/,
    );
    await expect(get(target, { insecure: new Set(['image', 'tls']) })).rejects.toThrow(
      /credentials/,
    );
    const etc = join(dir, 'etc');
    mkdirSync(join(etc, 'auth.d'), { recursive: true });
    mkdirSync(join(etc, 'registries.d'));
    const head = { rktVersion: 'v1', registries: [`127.0.0.1:${port}`] };
    writeFileSync(
      join(etc, 'auth.d/a.json'),
      json({ ...head, rktKind: 'dockerAuth', credentials: { user: 'me', password: 'secret' } }),
    );
    writeFileSync(
      join(etc, 'registries.d/r.json'),
      json({ ...head, rktKind: 'registries', caCertificate: join(dir, 'cert.pem') }),
    );
    const context = { insecure: new Set(['image'] as const), localConfig: etc };
    expect((await get(target, context)).image.id).toBe(image.config.digest);
    await expect(get(`docker://127.0.0.1:${port}/a/none:1`, context)).rejects.toThrow(
      /no such image/,
    );
  } finally {
    registry.kill('SIGTERM');
    await new Promise(resolve => registry.once('exit', resolve));
  }
});
