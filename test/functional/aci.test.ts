/** ACIs as a user has them: files, URLs and names, made by GNU tar and run in real pods. */

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type AciServer, startAciServer } from '../fetch/aci-server.ts';
import { busybox, files, HOST_LABELS, writeAci } from '../images/aci-writer.ts';
import { TSPOD } from '../support/tspod.ts';
import { debianRootfs } from '../unpack/debian-rootfs.ts';
import { useSandbox } from './sandbox.ts';

const use = useSandbox();
let server: AciServer;
beforeEach(async () => {
  server = await startAciServer();
});
afterEach(() => server.close());

const USERS = files({
  'etc/passwd': 'root:x:0:0::/:/bin/sh\nweb:x:1000:1001::/:/bin/sh\n',
  'etc/group': 'root:x:0:\nweb:x:1001:\n',
});

const APP = { exec: ['/bin/sh', '-c', 'id; pwd; echo $GREETING'], user: '0', group: '0' };

function shellAci(name: string, app: object = {}, manifest: object = {}) {
  return writeAci(join(use.box.root, 'x.aci'), name, {
    compression: 'gzip',
    rootfs: root => {
      busybox(root);
      USERS(root);
    },
    manifest: { app: { ...APP, ...app }, ...manifest },
  });
}

describe('a file', () => {
  test('runs as its manifest says', async () => {
    const labels = [...HOST_LABELS, { name: 'version', value: '1.0' }];
    const { path, id, manifest } = shellAci(
      'example.com/shell',
      {
        user: 'web',
        group: 'web',
        supplementaryGIDs: [7],
        workingDirectory: '/bin',
        environment: [{ name: 'GREETING', value: 'hello' }],
      },
      { labels },
    );
    const ran = await use.box.run(['run', path]);
    expect(ran).toMatchObject({ status: 0, stderr: '' });
    expect(ran.stdout).toMatch(
      /^uid=1000\(web\) gid=1001\(web\) groups=[^\n]*7[^\n]*\n\/bin\nhello\n$/,
    );
    const list = await use.box.run(['image', 'list', '--no-legend', '--fields=id,name', '--full']);
    expect(list.stdout).toBe(`${id.slice(0, 71)}\texample.com/shell:1.0\n`);
    const shown = await use.box.run([
      'image',
      'cat-manifest',
      '--pretty-print=false',
      'example.com/shell',
    ]);
    expect(JSON.parse(shown.stdout)).toEqual(manifest);
    for (const text of [id, id.slice(0, 40), 'example.com/shell', 'example.com/shell:1.0']) {
      const again = await use.box.run(['run', text, '--exec=/bin/echo', '--', 'by', 'name']);
      expect(again).toMatchObject({ status: 0, stdout: 'by name\n' });
    }
    expect(await use.box.run(['fetch', './x.aci'])).toMatchObject({
      stdout: `${id.slice(0, 39)}\n`,
    });
    expect(await use.box.run(['image', 'rm', id.slice(0, 40)])).toMatchObject({ status: 0 });
  });

  test('user and group as the owner of a file; a mount point without a volume', async () => {
    const { path } = shellAci('example.com/shell', {
      exec: ['/bin/sh', '-c', 'id -u; echo x > /data/x; cat /data/x'],
      user: '/etc/passwd',
      group: '/etc/passwd',
      mountPoints: [{ name: 'data', path: '/data' }],
    });
    const ran = await use.box.run(['run', path]);
    expect(ran).toMatchObject({ status: 0, stdout: '0\nx\n' });
    expect(ran.stderr).toMatch(/no volume specified for mount point "data"/);
  });

  test('without an app there is --exec', async () => {
    const { path } = shellAci('example.com/shell', {}, { app: undefined });
    expect(await use.box.run(['run', path])).toMatchObject({
      status: 254,
      stderr: expect.stringMatching(/empty "exec" \(try --exec=BINARY\)/),
    });
    const ran = await use.box.run(['run', path, '--exec=/bin/echo', '--', 'fine']);
    expect(ran).toMatchObject({ status: 0, stdout: 'fine\n' });
  });

  test.each([
    [[{ name: 'arch', value: 'amd64' }], /missing os label in the image manifest/],
    [[{ name: 'os', value: 'linux' }], /missing arch label in the image manifest/],
    [
      [
        { name: 'os', value: 'freebsd' },
        { name: 'arch', value: 'amd64' },
      ],
      /bad os "freebsd" \(must be one of: /,
    ],
  ])('labels %j are refused in rkt’s words', async (labels, message) => {
    const { path } = shellAci('example.com/shell', {}, { labels });
    expect(await use.box.run(['run', path])).toMatchObject({
      status: 254,
      stderr: expect.stringMatching(message),
    });
  });

  test('CVE-2026-53488: annotations of the image are no orders', async () => {
    const annotations = [
      { name: 'coreos.com/rkt/stage1/run', value: '/x' },
      { name: 'tspod/groups', value: 'of-user' },
    ];
    const { path } = shellAci('example.com/shell', {}, { annotations });
    expect(await use.box.run(['run', path])).toMatchObject({ status: 0 });
  });

  test('Debian with Python', async () => {
    const { path } = writeAci(join(use.box.root, 'python.aci'), 'example.com/python', {
      compression: 'gzip',
      base: debianRootfs(['python3']),
      manifest: {
        app: { exec: ['/usr/bin/python3', '-c', 'print(sum(range(10)))'], user: '0', group: '0' },
      },
    });
    expect(await use.box.run(['run', path], { timeout: 280_000 })).toMatchObject({
      status: 0,
      stdout: '45\n',
      stderr: '',
    });
  }, 300_000);
});

test('a name: discovered, with a chain of dependencies and a whitelist', async () => {
  const offer = (path: string, name: string) => {
    const host = name.split('/')[0] ?? '';
    server.files.set(`${host}/`, {
      body: `<html><head><meta name="ac-discovery" content="${host} http://${host}/{name}-{version}.{ext}"></head>`,
    });
    server.files.set(`${host}/${name}-latest.aci`, { body: readFileSync(path) });
  };
  const base = writeAci(join(use.box.root, 'base.aci'), 'base.test/busybox', {
    compression: 'bzip2',
    rootfs: busybox,
  });
  offer(base.path, 'base.test/busybox');
  const middle = writeAci(join(use.box.root, 'middle.aci'), 'middle.test/conf', {
    rootfs: files({ 'etc/conf': 'from the middle', 'etc/hidden': 'x' }),
    manifest: { dependencies: [{ imageName: 'base.test/busybox', imageID: base.id }] },
  });
  offer(middle.path, 'middle.test/conf');
  const top = writeAci(join(use.box.root, 'top.aci'), 'top.test/app', {
    compression: 'xz',
    rootfs: files({ 'etc/top': 'from the top' }),
    manifest: {
      dependencies: [{ imageName: 'middle.test/conf' }],
      pathWhitelist: ['/bin/busybox', '/bin/cat', '/bin/sh', '/bin/ls', '/etc/conf', '/etc/top'],
      app: { exec: ['/bin/sh', '-c', 'cat /etc/conf /etc/top; ls /bin'], user: '0', group: '0' },
    },
  });
  offer(top.path, 'top.test/app');
  const ran = await use.box.run(['run', 'top.test/app'], { env: server.environment });
  expect(ran).toMatchObject({
    status: 0,
    stderr: '',
    stdout: 'from the middlefrom the topbusybox\ncat\nls\nsh\n',
  });
  const asked = server.seen.length;
  await use.box.run(['run', '--offline', 'top.test/app'], { env: server.environment });
  expect(server.seen).toHaveLength(asked);
});

test('nothing comes in but by name of a check that is off', async () => {
  const { path } = shellAci('example.com/shell');
  const url = 'http://files.test/x.aci';
  server.files.set('files.test/x.aci', { body: readFileSync(path) });
  const flags = use.box.globalFlags.filter(flag => !flag.startsWith('--insecure-options'));
  for (const [text, options, message] of [
    [path, [], /has no accepted signature|is not trusted|no signature|signature/],
    [url, ['--insecure-options=image'], /refused to fetch over plain HTTP/],
  ] as const) {
    const command = ['-m', '--propagation', 'private', TSPOD, ...flags, ...options, 'run', text];
    const refused = await use.box.spawn('unshare', command, { env: server.environment }).ended;
    expect(refused).toMatchObject({
      status: 254,
      stdout: '',
      stderr: expect.stringMatching(message),
    });
  }
  writeFileSync(join(use.box.root, 'bad.aci'), 'no archive');
  expect(await use.box.run(['run', './bad.aci'])).toMatchObject({ status: 254 });
  expect((await use.box.run(['image', 'list', '--no-legend'])).stdout).toBe('');
});
