/**
 * Attacks on other runtimes, each by its CVE, tried on the built program: by hostile images, by flags, and from inside
 * a pod. docs/security.md lists them with those that are tried elsewhere.
 */
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { busybox, files, writeAci } from '../images/aci-writer.ts';
import { fromLayout, useSandbox } from './sandbox.ts';

const use = useSandbox();
// Cgroups of pods that have ended are gc's.
afterEach(async () => {
  await use.box.run(['gc', '--grace-period=0s']);
});

const FLAVORS = [['fly'], ['nspawn']] as const;
const flavor = (name: string) =>
  name === 'nspawn' ? ['--stage1-name=nspawn', '--net=none'] : ['--stage1-name=fly'];
const script = (text: string) => ['--exec=/bin/sh', '--', '-c', text];

/** A path of an ACI with busybox and what `more` adds. */
function hostile(more: (root: string) => void): string {
  const path = join(use.box.root, 'hostile.aci');
  writeAci(path, 'example.com/hostile', {
    rootfs: root => {
      busybox(root);
      files({
        'etc/passwd': 'root:x:0:0::/:/bin/sh\nweb:x:1000:1001::/:/bin/sh\n',
        'etc/group': 'root:x:0:\n',
      })(root);
      more(root);
    },
    manifest: { app: { exec: ['/bin/sh'], user: '0', group: '0' } },
  });
  return path;
}

describe.each(FLAVORS)('%s', name => {
  const run = (image: string, words: readonly string[], flags: readonly string[] = []) =>
    use.box.run(['run', ...flavor(name), ...flags, image, ...words]);

  test('CVE-2016-3697: a user of digits is a number, whatever the image calls so', async () => {
    const image = hostile(files({ 'etc/passwd': '1000:x:0:0::/:/bin/sh\n' }));
    const ended = await run(image, ['--user=1000', '--group=1000', ...script('id -u')]);
    expect(ended).toMatchObject({ status: 0, stdout: '1000\n' });
  });

  test.each(['4294967296', '4294967295', '-1', '1000:0', '1000abc', '0x0', ' 0', '+0'])(
    'CVE-2024-40635, CVE-2026-30892: user %j is nobody',
    async user => {
      const ended = await run(fromLayout('busybox'), [`--user=${user}`, ...script('id -u')]);
      expect(ended).toMatchObject({ status: 254, stdout: '' });
    },
  );

  test('CVE-2024-40635: a number over 2^31 stays itself', async () => {
    const words = ['--user=3000000000', '--group=0', ...script('id -u')];
    expect(await run(fromLayout('busybox'), words)).toMatchObject({ stdout: '3000000000\n' });
  });

  test('CVE-2019-14271: names are looked up without a library of the image', async () => {
    const evil = { 'etc/nsswitch.conf': 'passwd: evil\n', 'etc/ld.so.preload': '/lib/evil.so\n' };
    const libraries = ['lib', 'lib64', 'usr/lib', 'lib/x86_64-linux-gnu'].flatMap(folder =>
      ['libnss_files.so.2', 'libnss_evil.so.2', 'evil.so'].map(file => [
        `${folder}/${file}`,
        '\x7fELF garbage',
      ]),
    );
    const image = hostile(files({ ...evil, ...Object.fromEntries(libraries) }));
    const ended = await run(image, ['--user=web', ...script('id -u')]);
    expect(ended).toMatchObject({ status: 0, stdout: '1000\n' });
  });

  test("CVE-2022-1227: no program of the image is run but the app's and what is entered", async () => {
    const marker = '#!/bin/sh\necho "$0" >>/ran\n';
    const programs = [
      'nsenter',
      'launch',
      'stage2',
      'init',
      'mount',
      'umount',
      'node',
      'nft',
      'ps',
      'kill',
    ];
    const image = hostile(root => {
      for (const folder of ['bin', 'sbin', 'usr/bin', '.']) {
        for (const program of programs) {
          if (folder === 'bin' && existsSync(join(root, 'bin', program))) continue;
          files({ [join(folder, program)]: marker })(root);
          chmodSync(join(root, folder, program), 0o755);
        }
      }
    });
    const pod = use.box.start(
      ['run', ...flavor(name), '--pod-name=web', image, ...script('sleep 1000')],
      {
        env: { PATH: '/bin:/sbin:/usr/bin:/usr/sbin' },
      },
    );
    await expect
      .poll(
        async () =>
          (await use.box.run(['enter', 'web', '/bin/sh', '-c', 'ls /']).catch(() => undefined))
            ?.status,
        { timeout: 20_000 },
      )
      .toBe(0);
    await use.box.run(['list']);
    await use.box.run(['status', 'web']);
    const entered = await use.box.run(['enter', 'web', '/bin/sh', '-c', 'ls /']);
    expect(entered.stdout).not.toContain('ran');
    await use.box.run(['stop', '--force', 'web']);
    await pod.ended;
  });

  test("CVE-2025-23266: variables of the image are none of tspod's own programs", async () => {
    const result = join(use.box.root, 'result.json');
    const words = [
      '--environment=LD_PRELOAD=/evil.so',
      '--environment=NODE_OPTIONS=--require=/evil.js',
      '--environment=PATH=/evil',
    ];
    const ended = await run(
      fromLayout('busybox'),
      [...words, '--exec=/bin/true'],
      [`--result=${result}`],
    );
    expect(ended).toMatchObject({ status: 0, stderr: '' });
    expect(JSON.parse(readFileSync(result, 'utf8'))).toMatchObject({ exitCode: 0 });
  });

  test.each(['/proc', '/proc/self', '/proc/sys/kernel', '/../proc', '//proc/1'])(
    'CVE-2015-3631, CVE-2019-16884: nothing is mounted on %s',
    async target => {
      const flags = ['--volume=x,kind=empty', `--mount=volume=x,target=${target}`];
      const ended = await run(fromLayout('busybox'), script('true'), flags);
      expect(ended).toMatchObject({ status: 254, stdout: '' });
    },
  );

  test('CVE-2024-9341: what tspod writes for the app follows no link of the image', async () => {
    const victim = join(use.box.root, 'victim');
    writeFileSync(victim, 'mine');
    const image = hostile(root => {
      for (const file of ['resolv.conf', 'hosts', 'hostname'])
        symlinkSync(victim, join(root, 'etc', file));
    });
    const flags = ['--dns=9.9.9.9', '--hosts-entry=1.2.3.4=x'];
    const ended = await run(image, script('cat /etc/resolv.conf'), flags);
    expect(ended.stdout).toContain('nameserver 9.9.9.9');
    expect(readFileSync(victim, 'utf8')).toBe('mine');
  });

  test('CVE-2024-23652: taking a pod away takes nothing of the host away', async () => {
    const shared = join(use.box.root, 'shared');
    mkdirSync(shared);
    writeFileSync(join(shared, 'kept'), 'kept');
    const image = hostile(root => symlinkSync(shared, join(root, 'link')));
    const flags = [
      `--volume=s,kind=host,source=${shared}`,
      '--mount=volume=s,target=/a/b/c',
      '--volume=e,kind=empty',
      '--mount=volume=e,target=/link/x',
    ];
    expect(await run(image, script('ls /a/b/c'), flags)).toMatchObject({ stdout: 'kept\n' });
    expect(await use.box.run(['gc', '--grace-period=0s'])).toMatchObject({ status: 0 });
    expect(readdirSync(shared)).toEqual(['kept']);
  });

  test("CVE-2021-21284, CVE-2021-41091: another user finds nothing of the pods' files", async () => {
    await run(fromLayout('busybox'), script('touch /x; chmod 4755 /x'));
    const [uuid = ''] = readdirSync(join(use.box.dir, 'pods/run'));
    const place = `${use.box.dir}/pods/run/${uuid}`;
    chmodSync(use.box.root, 0o755);
    const look = spawnSync('setpriv', [
      '--reuid=65534',
      '--regid=65534',
      '--clear-groups',
      'ls',
      place,
    ]);
    expect(look.status).not.toBe(0);
    expect(look.stdout.toString()).toBe('');
  });
});

describe('from inside a pod under nspawn', () => {
  const inside = (text: string, flags: readonly string[] = [], image = fromLayout('busybox')) =>
    use.box.run(['run', ...flavor('nspawn'), ...flags, image, ...script(text)]);

  test('CVE-2015-3627, CVE-2024-21626: an app has no descriptors but its streams', async () => {
    const { stdout } = await inside('ls /proc/self/fd; ls /proc/$$/fd');
    // The third is that of the folder that ls reads.
    expect([...new Set(stdout.trim().split('\n'))].sort()).toEqual(['0', '1', '2', '3']);
  });

  test('CVE-2022-0492, CVE-2023-25809: no cgroup can be mounted, made or written to', async () => {
    const tries = [
      'mkdir /tmp/c; mount -t cgroup -o rdma c /tmp/c',
      'mount -t cgroup2 c /tmp/c',
      'mkdir /sys/fs/cgroup/x',
      'busybox unshare -U -r -C sh -c "mount -t cgroup -o rdma c /tmp/c"',
      'busybox unshare -C true',
      'echo x >/proc/self/cgroup',
    ];
    for (const one of tries) expect((await inside(`${one} 2>/dev/null`)).status, one).not.toBe(0);
    expect(
      (await inside('busybox find / -xdev -name release_agent -o -name cgroup.procs 2>/dev/null'))
        .stdout,
    ).toBe('');
  });

  test('CVE-2025-31133, CVE-2025-52881: what tells about the host or steers it is hidden or read-only', async () => {
    const files = [
      '/proc/sys/kernel/core_pattern',
      '/proc/sys/kernel/modprobe',
      '/proc/sysrq-trigger',
      '/proc/sys/vm/panic_on_oom',
      '/sys/kernel/uevent_helper',
    ];
    for (const file of files)
      expect((await inside(`echo x >${file} 2>/dev/null`)).status, file).not.toBe(0);
    expect(
      (await inside('cat /proc/kcore /proc/kallsyms /proc/keys 2>/dev/null | head -c 10')).stdout,
    ).toBe('');
  });

  test('CVE-2025-52565, CVE-2026-47766: /dev is ours, what the image has there is not there', async () => {
    const image = hostile(files({ 'dev/null': 'mine', 'dev/evil': 'mine', 'dev/console': 'mine' }));
    const { stdout } = await inside('ls /dev; cat /dev/null', [], image);
    expect(stdout.trim().split('\n').sort()).toEqual([
      'fd',
      'full',
      'mqueue',
      'null',
      'ptmx',
      'pts',
      'random',
      'shm',
      'stderr',
      'stdin',
      'stdout',
      'tty',
      'urandom',
      'zero',
    ]);
  });

  test('a device of the host, made by who may make devices, gives nothing', async () => {
    // The disk that this test's files are on.
    const [, disk = ''] =
      / (\d+:\d+) \/ \/ /.exec(readFileSync('/proc/self/mountinfo', 'utf8')) ?? [];
    const [major, minor] = disk.split(':');
    const { stdout } = await inside(
      `busybox mknod /tmp/d b ${major} ${minor}; busybox mknod /d b ${major} ${minor}; busybox mknod /m c 1 1; for f in /tmp/d /d /m; do head -c 1 $f >/dev/null 2>&1 && echo $f; done`,
    );
    expect(stdout).toBe('');
  });

  test('the way out by a second chroot leads nowhere', async () => {
    const { stdout } = await inside(
      'mkdir -p /x; busybox chroot /x /bin/true 2>/dev/null; cd /; for i in 1 2 3 4 5 6 7 8; do cd ..; done; ls -d /opt/stage2 /rkt 2>/dev/null; ls /proc/1/root/rkt 2>/dev/null; cat /proc/1/environ 2>/dev/null | head -c 1',
    );
    expect(stdout).toBe('');
  });

  test('CVE-2020-15257: nothing of a pod listens by an abstract name', async () => {
    const before = new Set(abstractSockets());
    const pod = use.box.start([
      'run',
      ...flavor('nspawn'),
      '--pod-name=web',
      fromLayout('busybox'),
      ...script('sleep 1000'),
    ]);
    await expect
      .poll(async () => (await use.box.run(['app', 'list', 'web'])).stdout, { timeout: 20_000 })
      .toContain('running');
    const { stdout } = await use.box.run(['enter', 'web', '/bin/sh', '-c', 'cat /proc/net/unix']);
    expect(stdout).not.toContain(' @');
    expect(
      abstractSockets().filter(one => !before.has(one) && /tspod|rkt|nspawn/.test(one)),
    ).toEqual([]);
    await use.box.run(['stop', '--force', 'web']);
    await pod.ended;
  });

  test('CVE-2022-1708: an app that says without end makes nobody grow', async () => {
    const pod = use.box.start(
      [
        'run',
        ...flavor('nspawn'),
        '--pod-name=loud',
        fromLayout('busybox'),
        '--stdout=log',
        '--stderr=log',
        ...script(
          'busybox yes aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa | head -c 60000000; echo end >&2; sleep 1000',
        ),
      ],
      {},
      ['ignore', 'ignore', 'ignore'],
    );
    await expect
      .poll(async () => (await use.box.run(['logs', '--tail=1', 'loud'])).stderr, {
        timeout: 60_000,
      })
      .toContain('end');
    const init = spawnSync('pgrep', [
      '-P',
      spawnSync('pgrep', ['-P', String(pod.pid)])
        .stdout.toString()
        .trim(),
    ]);
    const peak = /VmHWM:\s+(\d+) kB/.exec(
      readFileSync(`/proc/${init.stdout.toString().trim()}/status`, 'utf8'),
    )?.[1];
    expect(Number(peak)).toBeLessThan(16_384);
    await use.box.run(['stop', '--force', 'loud']);
    await pod.ended;
  });
});

function abstractSockets(): readonly string[] {
  return readFileSync('/proc/net/unix', 'latin1')
    .split('\n')
    .map(line => line.split(/\s+/)[7] ?? '')
    .filter(name => name.startsWith('@'));
}
