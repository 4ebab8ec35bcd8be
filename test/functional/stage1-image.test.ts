/** Pods that a stage1 image runs, by rkt's interface: a small one of the tests' own that notes how it was called. */
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { HOST_LABELS, type WrittenAci, writeAci } from '../images/aci-writer.ts';
import type { Started } from '../support/tspod.ts';
import { fromLayout, useSandbox } from './sandbox.ts';

const use = useSandbox();
const PREFIX = 'coreos.com/rkt/stage1/';
const ENTRIES = ['run', 'enter', 'gc', 'stop'];

/** Notes outlive the pod: they lie in the data folder. */
const NOTE = (kind: string) => `#!/bin/sh
{ for word in "$@"; do echo "$word"; done; } > ../../../called-${kind}
pwd > ../../../cwd-${kind}
`;
const SCRIPT = `sed -n 's/.*"exec":\\["\\/bin\\/sh","-c","\\([^"]*\\)"\\].*/\\1/p' pod`;
const PROGRAMS: Record<string, string> = {
  run: `${NOTE('run')}
readlink /proc/self/fd/$RKT_LOCK_FD > ../../../lock
app=$(ls stage1/rootfs/opt/stage2)
cat appsinfo/$app/manifest > ../../../app-manifest
script=$(${SCRIPT})
echo $$ > pid
exec chroot stage1/rootfs/opt/stage2/$app/rootfs /bin/sh -c "$script"
`,
  // as one that has an init below it
  'run-ppid': `${NOTE('run')}
app=$(ls stage1/rootfs/opt/stage2)
script=$(${SCRIPT})
echo $$ > ppid
chroot stage1/rootfs/opt/stage2/$app/rootfs /bin/sh -c "$script" &
wait $!
status=$?
mkdir -p stage1/rootfs/rkt/status
echo $status > stage1/rootfs/rkt/status/$app
exit $status
`,
  enter: `${NOTE('enter')}
pid=\${1#--pid=}; shift 3
exec chroot /proc/$pid/root "$@"
`,
  gc: NOTE('gc'),
  stop: `${NOTE('stop')}
case $1 in --force) kill -KILL $(cat pid);; *) kill -TERM $(cat pid);; esac
`,
};

interface Making {
  readonly version?: string | undefined;
  readonly without?: readonly string[];
  readonly run?: string;
  readonly annotations?: readonly { name: string; value: string }[];
  readonly programs?: Record<string, string>;
  readonly rootfs?: (root: string) => void;
}

function stage1({
  version,
  without = [],
  run = 'run',
  annotations = [],
  programs = {},
  rootfs,
}: Making = {}): WrittenAci {
  return writeAci(join(use.box.root, 'stage1.aci'), 'example.com/tiny-stage1', {
    rootfs: root => {
      mkdirSync(join(root, 'ex'));
      for (const [name, text] of Object.entries({ ...PROGRAMS, ...programs }))
        writeFileSync(join(root, 'ex', name), text, { mode: 0o755 });
      rootfs?.(root);
    },
    manifest: {
      labels: [...HOST_LABELS, { name: 'version', value: '1.0' }],
      annotations: [
        ...ENTRIES.filter(name => !without.includes(name)).map(name => ({
          name: `${PREFIX}${name}`,
          value: `/ex/${name === 'run' ? run : name}`,
        })),
        ...(version === undefined ? [] : [{ name: `${PREFIX}interface-version`, value: version }]),
        ...annotations,
      ],
    },
  });
}

const app = (script: string) => [
  fromLayout('busybox'),
  '--name=one',
  '--exec=/bin/sh',
  '--',
  '-c',
  script,
];

function called(kind: string): string[] | undefined {
  const path = join(use.box.dir, `called-${kind}`);
  return existsSync(path) ? readFileSync(path, 'utf8').split('\n').slice(0, -1) : undefined;
}

async function until<T>(look: () => T | undefined | false): Promise<T> {
  for (let tries = 0; tries < 1000; tries++) {
    const found = look();
    if (found !== undefined && found !== false) return found;
    await new Promise(resolve => setTimeout(resolve, 20));
  }
  throw new Error('it never came');
}

async function running(
  script: string,
  ...flags: string[]
): Promise<{ uuid: string; started: Started }> {
  const file = join(use.box.root, 'uuid');
  const started = use.box.start(['run', `--uuid-file-save=${file}`, ...flags, ...app(script)]);
  const uuid = await until(() => existsSync(file) && readFileSync(file, 'utf8'));
  const pod = join(use.box.dir, 'pods/run', uuid);
  await until(() => existsSync(join(pod, 'pid')) || existsSync(join(pod, 'ppid')));
  return { uuid, started };
}

const collect = () => use.box.run(['gc', '--grace-period=0s']);

describe('a stage1 image', { timeout: 60_000 }, () => {
  test('runs the pod in its folder, keeps its lock, and is its exit status; gc is told', async () => {
    const { path } = stage1();
    const ran = await use.box.run([
      'run',
      `--stage1-path=${path}`,
      '--net=none',
      ...app('echo hello; ls /; exit 7'),
    ]);
    expect(ran.stderr).toBe('');
    expect(ran.stdout).toMatch(/^hello\nbin\n/);
    expect(ran.status).toBe(7);
    const words = called('run') ?? [];
    const uuid = words.at(-1) ?? '';
    expect(words).toEqual(['--net=none', `--local-config=${use.box.root}/local`, uuid]);
    expect(readFileSync(join(use.box.dir, 'cwd-run'), 'utf8')).toBe(
      `${use.box.dir}/pods/run/${uuid}\n`,
    );
    expect(readFileSync(join(use.box.dir, 'lock'), 'utf8')).toBe(
      `${use.box.dir}/pods/run/${uuid}/lock\n`,
    );
    expect(JSON.parse(readFileSync(join(use.box.dir, 'app-manifest'), 'utf8'))).toMatchObject({
      acKind: 'ImageManifest',
      app: { exec: ['/bin/sh'] },
    });
    expect(await use.box.run(['status', uuid])).toMatchObject({
      stdout: expect.stringMatching(/^state=exited\n/),
    });
    expect(await collect()).toMatchObject({ status: 0 });
    expect(called('gc')).toEqual([uuid]);
    expect(existsSync(join(use.box.dir, 'pods/exited-garbage', uuid))).toBe(false);
  });

  test.each<[string | undefined, string[], string[]]>([
    [undefined, [], ['--net=default']],
    ['1', ['--debug'], ['--debug', '--net=default']],
    ['2', ['--hostname=box'], ['--net=default', '--hostname=box']],
    [
      '3',
      ['--hostname=box', '--insecure-options=all-run'],
      [
        '--net=default',
        '--hostname=box',
        '--disable-capabilities-restriction',
        '--disable-paths',
        '--disable-seccomp',
      ],
    ],
    [
      '4',
      ['--dns=9.9.9.9', '--hosts-entry=host', '--net=none'],
      ['--net=none', '--dns-conf-mode=resolv=stage0,hosts=host'],
    ],
    ['5', ['--net'], ['--net=default']],
    [
      '6',
      ['--ipc=private', '--interactive', '--net=host'],
      ['--net=host', '--interactive', '--ipc=private'],
    ],
  ])('interface version %s with %j', async (version, flags, expected) => {
    const { path } = stage1({ version });
    const ran = await use.box.run(['run', `--stage1-path=${path}`, ...flags, ...app('true')]);
    expect(ran.status).toBe(0);
    const words = called('run') ?? [];
    expect(words.filter(word => !word.startsWith('--local-config=')).slice(0, -1)).toEqual(
      expected,
    );
    expect(await collect()).toMatchObject({ status: 0 });
    const local = Number(version ?? 1) >= 5 ? ['--local-config', `${use.box.root}/local`] : [];
    const debug = flags.includes('--debug') ? ['--debug'] : [];
    expect(called('gc')).toEqual([...debug, ...local, words.at(-1)]);
  });

  test.each([
    [
      '1',
      ['--hostname=box'],
      /--hostname: stage1 example.com\/tiny-stage1 has interface version 1/,
    ],
    ['2', ['--insecure-options=seccomp'], /--insecure-options=seccomp: .* version 2/],
    ['3', ['--dns=none'], /--dns=none: .* version 3/],
    ['5', ['--ipc=parent'], /--ipc=parent: .* version 5/],
    ['6', ['--private-users', '--no-overlay'], /--private-users: /],
    [
      '6',
      ['--volume=v,kind=tmpfs', '--mount=volume=v,target=/v'],
      /volume "v": stage1 images know no kind=tmpfs/,
    ],
    ['7', [], /its interface version is "7", not 1 to 6/],
    ['x', [], /its interface version is "x"/],
  ])('interface version %s refuses %j by name', async (version, flags, why) => {
    const { path } = stage1({ version });
    const ran = await use.box.run(['run', `--stage1-path=${path}`, ...flags, ...app('true')]);
    expect(ran.stderr).toMatch(why);
    expect(ran.status).toBe(254);
    expect(called('run')).toBeUndefined();
    expect((await use.box.run(['list', '--no-legend'])).stdout).toBe('');
  });

  test('enter and stop are its own programs', async () => {
    const { path } = stage1({ version: '6' });
    const { uuid, started } = await running(
      "trap 'exit 5' TERM; echo mark > /mark; while :; do sleep 0.02; done",
      `--stage1-path=${path}`,
    );
    await until(() => existsSync(join(use.box.dir, 'pods/run', uuid, 'overlay/one/upper/mark')));
    const status = await use.box.run(['status', uuid]);
    expect(status.stdout).toContain(`state=running\n`);
    expect(status.stdout).toContain(`pid=${started.pid}\n`);
    const entered = await use.box.run(['enter', uuid, '/bin/cat', '/mark']);
    expect(entered).toMatchObject({ stdout: 'mark\n', status: 0 });
    expect(called('enter')).toEqual([
      `--pid=${started.pid}`,
      '--appname=one',
      '--',
      '/bin/cat',
      '/mark',
    ]);
    expect((await use.box.run(['enter', '--app=two', uuid, '/bin/true'])).stderr).toContain(
      'it has no app "two"',
    );
    expect(await use.box.run(['stop', uuid])).toMatchObject({ status: 0, stdout: `"${uuid}"\n` });
    expect(called('stop')).toEqual([uuid]);
    expect(await started.ended).toMatchObject({ status: 5 });
    expect(await collect()).toMatchObject({ status: 0 });
  });

  test('with ppid the process is its only child; statuses that it writes are told', async () => {
    const { path } = stage1({ version: '5', run: 'run-ppid' });
    const { uuid, started } = await running(
      'while :; do sleep 0.02; [ -e /end ] && exit 3; done',
      `--stage1-path=${path}`,
    );
    const entered = await until(() => true).then(() =>
      use.box.run(['enter', uuid, '/bin/touch', '/end']),
    );
    expect(entered.status).toBe(0);
    const pid = Number(called('enter')?.[0]?.slice('--pid='.length));
    expect(pid).toBeGreaterThan(started.pid);
    expect(await started.ended).toMatchObject({ status: 3 });
    expect((await use.box.run(['status', uuid])).stdout).toMatch(/state=exited\n.*app-one=3\n/s);
    await collect();
  });

  test('one that is killed leaves a pod that has ended; --force; what it can not do is refused', async () => {
    const { path } = stage1({ version: '6', without: ['enter', 'gc'] });
    const { uuid, started } = await running('while :; do sleep 1; done', `--stage1-path=${path}`);
    expect((await use.box.run(['enter', uuid, '/bin/true'])).stderr).toMatch(
      /stage1 example.com\/tiny-stage1 has no program for enter/,
    );
    expect((await use.box.run(['app', 'stop', '--app=one', uuid])).stderr).toContain(
      'flavor foreign',
    );
    expect(await use.box.run(['stop', '--force', uuid])).toMatchObject({ status: 0 });
    expect(called('stop')).toEqual(['--force', uuid]);
    expect(await started.ended).toMatchObject({ signal: 'SIGKILL' });
    expect((await use.box.run(['status', uuid])).stdout).toMatch(/^state=exited\n/);
    expect(await collect()).toMatchObject({ status: 0 });
    expect(called('gc')).toBeUndefined();
  });

  test('prepare and run-prepared; --rm and --result', async () => {
    const { path } = stage1({ version: '4' });
    const prepared = await use.box.run(['prepare', `--stage1-path=${path}`, ...app('exit 9')]);
    expect(prepared.status).toBe(0);
    const uuid = prepared.stdout.trim();
    const result = join(use.box.root, 'result.json');
    const ran = await use.box.run([
      'run-prepared',
      '--rm',
      `--result=${result}`,
      '--dns=none',
      uuid,
    ]);
    expect(ran.status).toBe(9);
    expect(called('run')).toContain('--dns-conf-mode=resolv=none,hosts=default');
    expect(JSON.parse(readFileSync(result, 'utf8'))).toMatchObject({
      flavor: 'foreign',
      reason: 'exited',
      exitCode: 9,
    });
    expect(called('gc')).toEqual([uuid]);
    expect((await use.box.run(['list', '--no-legend'])).stdout).toBe('');
  });

  test('a gc that fails keeps the pod for the next one', async () => {
    const { path } = stage1({ programs: { gc: '#!/bin/sh\n[ -e ../../../mended ]\n' } });
    await use.box.run(['run', `--stage1-path=${path}`, ...app('true')]);
    const failed = await collect();
    expect(failed.stderr).toContain('gc of stage1 example.com/tiny-stage1 ended with 1');
    expect(failed.status).toBe(254);
    writeFileSync(join(use.box.dir, 'mended'), '');
    expect(await collect()).toMatchObject({ status: 0 });
    expect((await use.box.run(['list', '--no-legend'])).stdout).toBe('');
  });
});

describe('a sandbox of a stage1 image', { timeout: 60_000 }, () => {
  const CROSSING = (kind: string) => `#!/bin/sh
{ for word in "$@"; do echo "$word"; done; echo "$RKT_STAGE1_ENTERCMD $RKT_STAGE1_ENTERPID $RKT_STAGE1_ENTERAPP"; } > ../../../called-${kind}
`;
  const programs = {
    run: `${NOTE('run')}
echo $$ > pid
while :; do sleep 0.05; done
`,
    add: `${CROSSING('add')}
cat pod > ../../../pod-at-add
cat stage1/rootfs/rkt/env/$RKT_STAGE1_ENTERAPP > ../../../env
[ ! -e ../../../refuse ]
`,
    start: `${CROSSING('start')}
chroot stage1/rootfs/opt/stage2/$RKT_STAGE1_ENTERAPP/rootfs /bin/sh -c 'echo ran > /ran; exit 4'
echo $? > stage1/rootfs/rkt/status/$RKT_STAGE1_ENTERAPP
`,
    'app-stop': `${CROSSING('app-stop')}
exit 5
`,
    rm: CROSSING('rm'),
  };
  const annotations = [
    ['app/add', 'add'],
    ['app/start', 'start'],
    ['app/stop', 'app-stop'],
    ['app/rm', 'rm'],
  ].map(([name, file]) => ({ name: `${PREFIX}${name}`, value: `/ex/${file}` }));

  test('its programs add, start, stop and remove apps', async () => {
    await use.box.run(['fetch', fromLayout('busybox')]);
    const { path } = stage1({ version: '5', programs, annotations });
    const file = join(use.box.root, 'uuid');
    const started = use.box.start([
      'app',
      'sandbox',
      `--stage1-path=${path}`,
      `--uuid-file-save=${file}`,
    ]);
    const uuid = await until(() => existsSync(file) && readFileSync(file, 'utf8'));
    const dir = join(use.box.dir, 'pods/run', uuid);
    await until(() => existsSync(join(dir, 'pid')));
    expect(called('run')).toEqual([
      '--net=default',
      `--local-config=${use.box.root}/local`,
      '--mutable',
      uuid,
    ]);
    const add = ['app', 'add', uuid, fromLayout('busybox'), '--name=one', '--environment=A=b'];
    writeFileSync(join(use.box.dir, 'refuse'), '');
    expect((await use.box.run(add)).stderr).toContain(
      'app/add of stage1 example.com/tiny-stage1 ended with 1',
    );
    expect((await use.box.run(['app', 'list', uuid])).stdout).toBe('\n');
    rmSync(join(use.box.dir, 'refuse'));
    expect(await use.box.run(add)).toMatchObject({ status: 0, stderr: '' });
    const crossed = `${dir}/stage1/rootfs/ex/enter ${started.pid} one`;
    expect(called('add')).toEqual(['--debug=false', `--uuid=${uuid}`, '--app=one', crossed]);
    expect(JSON.parse(readFileSync(join(use.box.dir, 'pod-at-add'), 'utf8'))).toMatchObject({
      apps: [{ name: 'one' }],
    });
    expect(readFileSync(join(use.box.dir, 'env'), 'utf8')).toMatch(
      /^A=b\nAC_APP_NAME=one\n$|A=b\n.*AC_APP_NAME=one\n$/s,
    );
    expect((await use.box.run(['app', 'list', '--no-legend', uuid])).stdout).toMatch(
      /^one\s+created\n$/,
    );
    expect(await use.box.run(['app', 'start', '--app=one', uuid])).toMatchObject({
      status: 0,
      stderr: '',
    });
    expect(called('start')).toEqual(['--debug=false', '--app=one', crossed]);
    expect(readFileSync(join(dir, 'stage1/rootfs/opt/stage2/one/rootfs/ran'), 'utf8')).toBe(
      'ran\n',
    );
    expect((await use.box.run(['app', 'status', '--app=one', uuid])).stdout).toMatch(
      /state=exited\n.*exit_code=4\n/s,
    );
    expect((await use.box.run(['app', 'stop', '--app=one', uuid])).stderr).toContain(
      'app/stop of stage1 example.com/tiny-stage1 ended with 5',
    );
    expect(await use.box.run(['app', 'rm', '--app=one', uuid])).toMatchObject({
      status: 0,
      stderr: '',
    });
    expect(called('rm')).toEqual(['--debug=false', '--app=one', crossed]);
    expect((await use.box.run(['app', 'list', uuid])).stdout).toBe('\n');
    expect(existsSync(join(dir, 'stage1/rootfs/opt/stage2/one'))).toBe(false);
    expect(existsSync(join(dir, 'stage1/rootfs/rkt/env/one'))).toBe(false);
    expect((await use.box.run(['stop', '--force', uuid])).status).toBe(0);
    await started.ended;
    await collect();
  });

  test('without one of them it is refused', async () => {
    const { path } = stage1({ version: '5', programs, annotations: annotations.slice(1) });
    const refused = await use.box.run(['app', 'sandbox', `--stage1-path=${path}`]);
    expect(refused.stderr).toContain(
      'example.com/tiny-stage1 does not support mutable pods: it has no app/add',
    );
    expect(refused.status).toBe(1);
  });
});

describe('where it comes from', { timeout: 60_000 }, () => {
  const ok = async (...flags: string[]) => {
    const ran = await use.box.run(['run', ...flags, ...app('echo ran')]);
    expect(ran).toMatchObject({ stdout: 'ran\n', stderr: '', status: 0 });
    await collect();
  };

  test('a hash or a name of the store, a file by its URL, and one listed', async () => {
    const { path, id } = stage1({ version: '6' });
    expect((await use.box.run(['fetch', path])).status).toBe(0);
    await ok(`--stage1-hash=${id}`);
    await ok(`--stage1-hash=${id.slice(0, 30)}`);
    await ok('--stage1-name=example.com/tiny-stage1:1.0');
    await ok(`--stage1-url=file://${path}`);
    const list = await use.box.run(['stage1', 'list', '--format=json']);
    expect(JSON.parse(list.stdout)).toEqual([
      { name: 'fly', kind: 'built-in', interface_version: 5, default: true },
      { name: 'nspawn', kind: 'built-in', interface_version: 6 },
      { name: 'kvm', kind: 'built-in', interface_version: 6 },
      {
        name: 'example.com/tiny-stage1:1.0',
        kind: 'image',
        id: expect.stringMatching(/^sha512-/),
        interface_version: 6,
      },
    ]);
    expect((await use.box.run(['stage1', 'list'])).stdout).toMatch(
      /^NAME\s+KIND\s+INTERFACE\s+ID\s+NOTE\n/,
    );
  });

  test('a web server', async () => {
    const { path } = stage1();
    const server = createServer((_, response) => response.end(readFileSync(path)));
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
    const address = server.address();
    try {
      if (address === null || typeof address === 'string') throw new Error('it has no port');
      await ok(`--stage1-url=http://127.0.0.1:${address.port}/stage1.aci`);
    } finally {
      server.close();
    }
  });

  test('the folder of stage1 images and the configuration; without a signature there, and only there', async () => {
    const { path } = stage1();
    const flags = use.box.globalFlags.filter(flag => !flag.startsWith('--insecure'));
    await use.box.run(['fetch', fromLayout('busybox')]);
    const strict = (...words: string[]) =>
      use.box.spawn('unshare', [
        '-m',
        '--propagation',
        'private',
        ...use.box.command([]).slice(3, 4),
        ...flags,
        ...words,
      ]).ended;
    const images = join(use.box.root, 'vendor/stage1-images');
    mkdirSync(images);
    copyFileSync(path, join(images, 'tiny.aci'));
    expect((await strict('run', `--stage1-path=${path}`, ...app('echo ran'))).status).toBe(254);
    const fromDir = ['run', '--stage1-from-dir=tiny.aci', ...app('echo ran')];
    chmodSync(images, 0o777);
    expect((await strict(...fromDir)).status).toBe(254);
    chmodSync(images, 0o755);
    const ran = await strict(...fromDir);
    expect(ran).toMatchObject({ stdout: 'ran\n', status: 0 });
    mkdirSync(join(use.box.root, 'local/stage1.d'));
    const config = (fields: object) =>
      writeFileSync(
        join(use.box.root, 'local/stage1.d/stage1.json'),
        JSON.stringify({ rktKind: 'stage1', rktVersion: 'v1', ...fields }),
      );
    config({ location: join(images, 'tiny.aci') });
    expect(await strict('run', ...app('echo ran'))).toMatchObject({ stdout: 'ran\n', status: 0 });
    config({ name: 'example.com/tiny-stage1', version: '1.0', location: '/none.aci' });
    expect(await strict('run', ...app('echo ran'))).toMatchObject({ stdout: 'ran\n', status: 0 });
    config({ name: 'coreos.com/rkt/stage1-fly', version: '1.30.0', location: '/none.aci' });
    expect(await strict('run', fromLayout('busybox'), '--', '-c', 'echo fly')).toMatchObject({
      stdout: 'fly\n',
    });
    await collect();
  });

  test('what is none is refused', async () => {
    const { path } = writeAci(join(use.box.root, 'app.aci'), 'example.com/app');
    const refusals: [string[], RegExp][] = [
      [[`--stage1-path=${path}`], /image example.com\/app is no stage1/],
      [
        [`--stage1-path=${path}`, '--stage1-name=fly'],
        /flags --stage1-name and --stage1-path are mutually exclusive/,
      ],
      [['--stage1-path=/none.aci'], /no such file/],
      [['--stage1-url=none'], /it is no URL of a stage1 image/],
      [['--stage1-hash=none'], /it is no image's id/],
      [['--stage1-from-dir=../x'], /it is no file's name/],
      [['--stage1-name=none'], /there is no such flavor/],
      [['--stage1-name=foreign'], /there is no such flavor/],
    ];
    for (const [flags, why] of refusals) {
      const ran = await use.box.run(['run', ...flags, ...app('true')]);
      expect(ran.stderr).toMatch(why);
      expect(ran.status).toBe(254);
    }
    const sandbox = await use.box.run(['app', 'sandbox', `--stage1-path=${stage1().path}`]);
    expect(sandbox.stderr).toMatch(
      /app sandbox: stage1 example.com\/tiny-stage1 has interface version 1/,
    );
    expect((await use.box.run(['list', '--no-legend'])).stdout).toBe('');
  });

  test.each<[string, Making, RegExp]>([
    [
      'a path that climbs out',
      { without: ['gc'], annotations: [{ name: `${PREFIX}gc`, value: '/../../../../bin/true' }] },
      /is no absolute path within it/,
    ],
    [
      'a link that leads out',
      {
        without: ['gc'],
        annotations: [{ name: `${PREFIX}gc`, value: '/ex/out' }],
        rootfs: root => symlinkSync('/bin/true', join(root, 'ex/out')),
      },
      /its program \/ex\/out leads out of it/,
    ],
    [
      'a program that is not there',
      { without: ['gc'], annotations: [{ name: `${PREFIX}gc`, value: '/ex/none' }] },
      /can't find its program \/ex\/none/,
    ],
    [
      'a folder of the pod that is a link',
      { rootfs: root => symlinkSync('/tmp', join(root, 'rkt')) },
      /its \/rkt is no folder/,
    ],
  ])('%s', async (_, making, why) => {
    const { path } = stage1(making);
    const ran = await use.box.run(['run', `--stage1-path=${path}`, ...app('true')]);
    expect(ran.stderr).toMatch(why);
    expect(ran.status).toBe(254);
    expect((await use.box.run(['list', '--no-legend'])).stdout).toBe('');
  });
});
