/** What goes wrong says so in one clear line, ends with status 254, and leaves nothing behind. */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer, type RequestListener, type Server } from 'node:http';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { writeBlob, writeImage } from '../images/oci-writer.ts';
import { freePort } from '../support/registry.ts';
import type { Ended } from '../support/tspod.ts';
import { TSPOD } from '../support/tspod.ts';
import { fromLayout, fromRegistry, shell, useSandbox } from './sandbox.ts';

const use = useSandbox();
const servers: Server[] = [];

afterEach(() => {
  for (const server of servers.splice(0)) server.close().closeAllConnections();
});

/** A registry of the test's own making. @returns `127.0.0.1:PORT` */
async function serve(answer: RequestListener): Promise<string> {
  const server = createServer(answer);
  servers.push(server);
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return `127.0.0.1:${address.port}`;
}

function refused(ended: Ended, ...words: readonly (string | RegExp)[]): void {
  const lines = ended.stderr.trimEnd().split('\n');
  expect(ended.stderr).not.toContain('internal error');
  expect({ lines, status: ended.status }).toMatchObject({
    status: 254,
    lines: [expect.stringMatching(/^tspod: /)],
  });
  for (const word of words) expect(ended.stderr).toMatch(word);
  expect(ended.stdout).toBe('');
}

/** Pods of any state, and anything half made in the store. */
function remains(): string[] {
  const found: string[] = [];
  for (const folder of ['embryo', 'prepare', 'prepared', 'run', 'garbage', 'exited-garbage'])
    found.push(...list(join(use.box.dir, 'pods', folder)).map(name => `${folder}/${name}`));
  found.push(...list(join(use.box.dir, 'cas/v1/tmp')).filter(name => !name.endsWith('.partial')));
  return found;
}

function list(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

describe('images', () => {
  test('no such image anywhere', async () => {
    refused(await use.box.run(['run', 'oci:/nonexistent:latest']), '/nonexistent');
    refused(await use.box.run(['run', `oci:${use.box.root}/none`]), 'none');
    refused(await use.box.run(['run', 'sha256:0123456789abcdef']));
    expect(remains()).toEqual([]);
  });

  test('a tag that the layout does not have', async () => {
    refused(
      await use.box.run(['fetch', fromLayout('busybox').replace('latest', 'absent')]),
      'absent',
    );
  });

  test('a reference that follows no grammar', async () => {
    refused(await use.box.run(['fetch', 'docker://UPPER/CASE:tag:tag']));
  });

  test('an image without a signature is refused unless the check is switched off by name', async () => {
    const words = [
      '-m',
      '--propagation',
      'private',
      TSPOD,
      `--dir=${use.box.dir}`,
      'run',
      fromLayout('busybox'),
    ];
    refused(await use.box.spawn('unshare', words).ended, '--insecure-options=image');
    expect(remains()).toEqual([]);
  });
});

describe('registries', () => {
  test('the registry is down', async () => {
    const host = `127.0.0.1:${await freePort()}`;
    refused(await use.box.run(['fetch', `docker://${host}/a/b:c`]), host);
  }, 120_000);

  test('404: no such name', async () => {
    const name = fromRegistry('busybox').replace('busybox', 'absent');
    refused(await use.box.run(['fetch', name]), /absent/);
  });

  test('401: no credentials; a wrong password is not shown', async () => {
    const host = await serve((_request, response) => {
      response.writeHead(401, { 'www-authenticate': 'Basic realm="test"' }).end();
    });
    refused(
      await use.box.run(['fetch', `docker://${host}/a/b:c`]),
      /401|credential|denied|unauthorized/i,
    );
    mkdirSync(join(use.box.root, 'local/auth.d'));
    const auth = {
      rktKind: 'dockerAuth',
      rktVersion: 'v1',
      registries: [host],
      credentials: { user: 'me', password: 'hunter2' },
    };
    writeFileSync(join(use.box.root, 'local/auth.d/x.json'), JSON.stringify(auth));
    const ended = await use.box.run(['fetch', `docker://${host}/a/b:c`]);
    refused(ended);
    expect(ended.stderr).not.toContain('hunter2');
  });

  test.each(['wrong digest', 'truncated', 'oversized'])(
    'a layer that is %s',
    async kind => {
      const layout = join(use.box.root, 'served');
      mkdirSync(layout);
      const tar = Buffer.alloc(10_240);
      const layer = {
        ...writeBlob(layout, tar, 'application/vnd.oci.image.layer.v1.tar'),
        diffId: sha256(tar),
      };
      const manifest = writeImage(layout, 'latest', [layer], { Cmd: ['/x'] });
      const host = await serve((request, response) => {
        const url = request.url ?? '';
        if (url === '/v2/') return response.end('{}');
        if (url.includes('/manifests/')) {
          response.writeHead(200, { 'content-type': manifest.mediaType });
          return response.end(blob(layout, manifest.digest));
        }
        const digest = url.slice(url.lastIndexOf('/') + 1);
        let bytes = blob(layout, digest);
        if (digest === layer.digest) {
          if (kind === 'wrong digest') bytes = Buffer.alloc(bytes.length, 1);
          if (kind === 'truncated') bytes = bytes.subarray(0, 4096);
          if (kind === 'oversized') bytes = Buffer.concat([bytes, Buffer.alloc(100_000)]);
        }
        return response.end(bytes);
      });
      refused(await use.box.run(['fetch', `docker://${host}/a/b:c`]));
      expect(list(join(use.box.dir, 'cas/v1/blobs/sha256'))).not.toContain(layer.digest.slice(7));
      expect((await use.box.run(['image', 'list', '--no-legend'])).stdout).toBe('');
      expect(remains()).toEqual([]);
    },
    120_000,
  );

  test('--offline names the use of the network', async () => {
    refused(await use.box.run(['--offline', 'fetch', fromRegistry('busybox')]), /offline/);
  });
});

describe('pods', () => {
  test('a mount of an unknown volume', async () => {
    refused(
      await use.box.run(['run', fromLayout('busybox'), '--mount', 'volume=absent,target=/x']),
      'absent',
    );
    expect(remains()).toEqual([]);
  });

  test('a volume whose source is not there', async () => {
    const volume = '--volume=v,kind=host,source=/nonexistent/folder';
    refused(
      await use.box.run(['run', volume, fromLayout('busybox'), '--mount', 'volume=v,target=/x']),
      '/nonexistent/folder',
    );
  });

  test('a user that the image does not have', async () => {
    refused(
      await use.box.run(['run', fromLayout('busybox'), '--user=nobodyhere', '--', '-c', 'true']),
      'nobodyhere',
    );
  });

  test('an exec that is not there', async () => {
    refused(await use.box.run(['run', fromLayout('busybox'), '--exec=/bin/absent']), '/bin/absent');
  });

  test('a flavor that does not exist, and options that fly can’t honour', async () => {
    refused(await use.box.run(['run', '--stage1-name=xen', fromLayout('busybox')]), 'xen');
    refused(
      await use.box.run(['run', '--private-users', fromLayout('busybox')]),
      /user namespace|private-users/,
    );
    refused(await use.box.run(['run', '--port=http:80', fromLayout('busybox')]), 'port');
    expect(remains()).toEqual([]);
  });

  test('an unknown pod', async () => {
    for (const command of ['status', 'enter', 'stop', 'run-prepared', 'cat-manifest'])
      expect(await use.box.run([command, 'ffffffff'])).toMatchObject({ status: 254 });
  });

  test('not root', async () => {
    const through = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'];
    const ended = await use.box.run(['run', fromLayout('busybox')], { through });
    refused(ended, /root|permission/i);
  });
});

describe('configuration', () => {
  test('a file that is no JSON is named', async () => {
    mkdirSync(join(use.box.root, 'local/auth.d'));
    writeFileSync(join(use.box.root, 'local/auth.d/broken.json'), '{');
    refused(await use.box.run(['config']), /auth\.d\/broken\.json/);
  });

  test('a key of the wrong kind is named', async () => {
    mkdirSync(join(use.box.root, 'local/paths.d'));
    const text = JSON.stringify({ rktKind: 'paths', rktVersion: 'v1', data: 7 });
    writeFileSync(join(use.box.root, 'local/paths.d/paths.json'), text);
    const words = [
      '-m',
      '--propagation',
      'private',
      TSPOD,
      ...use.box.globalFlags.slice(1),
      'list',
    ];
    refused(await use.box.spawn('unshare', words).ended, /paths\.json/, /data/);
  });
});

describe('the machine', () => {
  test('a full disk', async () => {
    const script =
      'mkdir -p "$1" && mount -t tmpfs -o size=300k,mode=755 tmpfs "$1" && shift && exec "$@"';
    const words = [
      '-m',
      '--propagation',
      'private',
      'sh',
      '-c',
      script,
      'sh',
      use.box.dir,
      TSPOD,
      ...use.box.globalFlags,
      'fetch',
      fromRegistry('busybox'),
    ];
    refused(await use.box.spawn('unshare', words).ended, /no space left/);
  });

  test.each([
    [
      'the kernel has no overlayfs',
      'grep -v overlay /proc/filesystems >fs; mount --bind fs /proc/filesystems',
    ],
    [
      'the data folder lies on an overlay',
      'mkdir -p l w "$DIR"; mount -t tmpfs tmpfs w; mkdir w/u w/w; mount -t overlay overlay -o lowerdir=l,upperdir=w/u,workdir=w/w "$DIR"',
    ],
  ])('%s: the image is copied, and a line says so', async (_name, doctor) => {
    const script = `${doctor}\nexec "$@"`;
    const run = [TSPOD, ...use.box.globalFlags, 'run', ...shell('cat /etc/motd; ls /var')];
    const words = ['-m', '--propagation', 'private', 'sh', '-ec', script, 'sh', ...run];
    const ended = await use.box.spawn('unshare', words, { env: { DIR: use.box.dir } }).ended;
    expect(ended).toMatchObject({ status: 0, stdout: 'hello from the app layer\n' });
    expect(ended.stderr).toMatch(/overlay/);
    expect(ended.stderr.trimEnd().split('\n').length).toBe(1);
  });
});

describe('--result', () => {
  const result = () =>
    JSON.parse(readFileSync(join(use.box.root, 'result'), 'utf8')) as Record<string, unknown>;
  const run = (...words: readonly string[]) =>
    use.box.run(['run', `--result=${use.box.root}/result`, ...words]);

  test('an app that ends with 254 can be told from tspod’s own failure', async () => {
    expect(await run(...shell('exit 254'))).toMatchObject({ status: 254 });
    expect(result()).toMatchObject({ reason: 'exited', exitCode: 254, error: null });
    expect(await run('oci:/nonexistent:latest')).toMatchObject({ status: 254 });
    expect(result()).toMatchObject({ reason: 'tspod-failed', exitCode: 254, uuid: null });
  });

  test('an exec that is not there', async () => {
    expect(await run(fromLayout('busybox'), '--exec=/bin/absent')).toMatchObject({ status: 254 });
    expect(result()).toMatchObject({ reason: 'launch-failed', exitCode: 254 });
  });

  test.runIf(existsSync('/sys/fs/cgroup/memory'))('an app that ran out of memory', async () => {
    const flags = ['--stage1-name=fly', '--pod-name=hog'];
    const hog = shell('dd if=/dev/zero of=/dev/null bs=200M count=1; exit 4', '--memory=24Mi');
    expect(await run(...flags, ...hog)).toMatchObject({ status: 4 });
    expect(result()).toMatchObject({ exitCode: 4, apps: [{ exitCode: 4, oomKilled: true }] });
    expect((await use.box.run(['status', '--format=json', 'hog'])).stdout).toContain(
      '"oom_killed":true',
    );
    expect(await use.box.run(['gc', '--grace-period=0s'])).toMatchObject({ status: 0 });
    expect(await run(...shell('exit 4'))).toMatchObject({ status: 4 });
    expect(result()).toMatchObject({ apps: [{ oomKilled: false }] });
  });

  test('an app that a signal ends', async () => {
    expect(await run(...shell('kill -9 $$'))).toMatchObject({ signal: 'SIGKILL' });
    expect(result()).toMatchObject({ reason: 'signaled', exitCode: null, signal: 'SIGKILL' });
  });

  test('--rm removes the pod and says nothing', async () => {
    expect(await use.box.run(['run', '--rm', ...shell('exit 3')])).toMatchObject({
      status: 3,
      stdout: '',
      stderr: '',
    });
    expect(remains()).toEqual([]);
  });
});

function sha256(bytes: Buffer): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

function blob(layout: string, digest: string): Buffer {
  return readFileSync(join(layout, 'blobs/sha256', digest.replace('sha256:', '')));
}

test('the doctored machine was a namespace of the test’s own', () => {
  expect(spawnSync('cat', ['/proc/filesystems'], { encoding: 'utf8' }).stdout).toContain('overlay');
});
