/** Pods in machines of their own, under emulation: real programs, and apps that mean harm. */
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeEach, describe, expect, test } from 'vitest';
import { type Ended, type Started, TSPOD } from '../support/tspod.ts';
import { giveVmImage, KVM_FLAGS } from '../support/vm-image.ts';
import { fromLayout, shell, useSandbox } from './sandbox.ts';

const use = useSandbox();
beforeEach(() => giveVmImage(use.box));

/** Flags of the pod first, then an image. */
const run = (...words: readonly string[]): Promise<Ended> =>
  use.box.run(['run', ...KVM_FLAGS, '--net=none', ...words], { timeout: 60_000 });
const start = (...words: readonly string[]): Started =>
  use.box.start(['run', ...KVM_FLAGS, '--net=none', ...words], { timeout: 60_000 });

function result(): { reason: string; error: unknown; apps: readonly object[] } {
  return JSON.parse(readFileSync(join(use.box.root, 'result'), 'utf8'));
}

async function isUp(pod: string): Promise<void> {
  expect(await use.box.run(['status', '--wait-ready=60s', pod])).toMatchObject({ status: 0 });
}

async function named(name: string): Promise<void> {
  await expect
    .poll(async () => (await use.box.run(['list', '--format=json'])).stdout, { timeout: 30_000 })
    .toContain(name);
}

describe('real programs', () => {
  test('Python, with what it was given: words, environment, user, folder, input', async () => {
    const script = 'import os,sys; print(sys.argv[1:], os.environ["A"], os.getuid(), os.getcwd())';
    const ended = await run(
      fromLayout('python'),
      '--environment=A=b',
      '--user=33',
      '--working-dir=/srv',
      '--exec=/usr/bin/python3',
      '--',
      '-c',
      script,
      'x y',
    );
    expect(ended).toMatchObject({ status: 0, stdout: "['x y'] b 33 /srv\n", stderr: '' });
  });

  test('a megabyte through the machine and back, byte for byte', async () => {
    const bytes = Buffer.alloc(1_000_003, 'The quick brown fox\0\r\n\xff', 'latin1');
    const ended = await use.box.run(
      ['run', ...KVM_FLAGS, '--net=none', '--interactive', ...shell('cat; echo end >&2; exit 4')],
      { input: bytes, timeout: 60_000 },
    );
    expect(ended).toMatchObject({ status: 4, stderr: 'end\n' });
    expect(ended.bytes.equals(bytes)).toBe(true);
  });
});

test('one pod: volumes, disk, limits, entered, logs, stopped', async () => {
  const folder = join(use.box.root, 'volume');
  mkdirSync(folder);
  writeFileSync(join(folder, 'given'), 'by the host\n');
  const script =
    'cat /v/given; echo by the pod >/v/made; echo no >/r/made; df -m / | tail -1; echo up; sleep 100';
  const pod = start(
    '--pod-name=one',
    '--disk-size=300Mi',
    '--vm-memory=256Mi',
    `--volume=v,kind=host,source=${folder}`,
    `--volume=r,kind=host,source=${folder},readOnly=true`,
    ...shell(
      script,
      '--name=app',
      '--memory=64Mi',
      '--pids-limit=40',
      '--stdout=stream',
      '--mount=volume=v,target=/v',
      '--mount=volume=r,target=/r',
    ),
  );
  await named('one');
  await isUp('one');
  const logs = async () => (await use.box.run(['logs', 'one'])).stdout;
  await expect.poll(logs, { timeout: 20_000 }).toContain('up\n');
  expect(await logs()).toMatch(/^by the host\n.*overlay +2\d\d .*\nup\n$/s);
  expect((await use.box.run(['logs', 'one'])).stdout).not.toContain('no\n');
  expect(readFileSync(join(folder, 'made'), 'utf8')).toBe('by the pod\n');

  const enter = (...words: string[]) => use.box.run(['enter', 'one', ...words]);
  expect(await enter('/bin/sh', '-c', 'echo in; echo err >&2; exit 9')).toMatchObject({
    status: 9,
    stdout: 'in\n',
    stderr: 'err\n',
  });
  // The app's limits, in the machine's own cgroups; its rights.
  expect(
    (await enter('/bin/sh', '-c', 'grep -E "CapEff|NoNewPrivs|Seccomp:" /proc/self/status')).stdout,
  ).toMatch(/CapEff:\t00000000a80425fb\nNoNewPrivs:\t0\nSeccomp:\t2\n/);
  const entered = await use.box.run(['enter', 'one', 'cat'], { input: Buffer.from('some input') });
  expect(entered).toMatchObject({ status: 0, stdout: 'some input' });
  expect((await enter('/bin/nothing')).stderr).toMatch(/^tspod: .*\/bin\/nothing/);
  // Nothing of the host's disks, no file of the image is written to.
  expect(await enter('/bin/sh', '-c', 'kill -9 $$')).toMatchObject({ status: 137 });

  expect(await use.box.run(['stop', 'one'])).toMatchObject({ status: 0 });
  expect(await pod.ended).toMatchObject({ status: 143 });
  expect((await use.box.run(['status', 'one'])).stdout).toContain('app-app=143\n');
  expect(await use.box.run(['gc', '--grace-period=0s'])).toMatchObject({ status: 0 });
});

test('who is attached gives input, and gets all to the end', async () => {
  const pod = start(
    '--pod-name=heard',
    ...shell('while read x; do echo got $x; done; echo end', '--stdin=stream', '--stdout=stream'),
  );
  await named('heard');
  await isUp('heard');
  const attached = await use.box.run(['attach', 'heard', '--mode=stdin,stdout'], {
    input: Buffer.from('one\ntwo\n'),
  });
  expect(attached).toMatchObject({ status: 0, stdout: 'got one\ngot two\nend\n' });
  expect(await pod.ended).toMatchObject({ status: 0 });
  expect((await use.box.run(['logs', 'heard'])).stdout).toBe('got one\ngot two\nend\n');
});

describe('a terminal', () => {
  const PLAYER = fileURLToPath(new URL('on-terminal.py', import.meta.url));
  const onTerminal = async (steps: readonly unknown[], words: readonly string[]) => {
    const { ended } = use.box.spawn('python3', [
      PLAYER,
      JSON.stringify(steps),
      TSPOD,
      ...use.box.globalFlags,
      ...words,
    ]);
    return (await ended).stdout.replaceAll('\r', '');
  };
  const STEPS = [
    ['# ', 'tty; stty size; echo si""ze\n'],
    ['size\r\n', [44, 55]],
    ['# ', 'stty size; echo ne""w; sleep 100\n'],
    ['new\r\n', '\x03'],
    ['# ', 'echo inter""rupted; exit 6\n'],
  ];
  const EXPECTED =
    /\/dev\/pts\/\d+\n33 101\nsize\n(?:.*\n)*44 55\nnew\n(?:.*\n)*interrupted\n(?:.*\n)*status 6\n/;

  test('of who runs the pod', async () => {
    const said = await onTerminal(STEPS.with(1, ['# ', [44, 55]]).toSpliced(2, 0, ['', '\n']), [
      'run',
      ...KVM_FLAGS,
      '--net=none',
      '--interactive',
      fromLayout('busybox'),
      '--exec=/bin/sh',
    ]);
    expect(said).toMatch(EXPECTED);
  });

  test('of who enters it, while it still boots', async () => {
    const pod = start('--pod-name=shown', ...shell('sleep 100'));
    await named('shown');
    const said = await onTerminal(STEPS.with(1, ['# ', [44, 55]]).toSpliced(2, 0, ['', '\n']), [
      'enter',
      'shown',
      '/bin/sh',
    ]);
    expect(said).toMatch(EXPECTED);
    expect(await use.box.run(['stop', '--force', 'shown'])).toMatchObject({ status: 0 });
    expect(await pod.ended).toMatchObject({ status: 137 });
  });
});

describe('apps that mean harm hurt their own machine alone', () => {
  const INSECURE = '--insecure-options=image,paths,capabilities,seccomp';
  test.each<[string, string, RegExp]>([
    ['panics the kernel', 'echo c >/proc/sysrq-trigger; sleep 9', /^its kernel panicked: sysrq/],
    ['restarts the machine', 'reboot -f; sleep 9', /^an app restarted it$/],
    ['switches it off', 'poweroff -f; sleep 9', /^an app switched it off$/],
    ['resets it', 'echo b >/proc/sysrq-trigger; sleep 9', /^it was reset or switched off from in/],
  ])('one that %s', async (_, script, why) => {
    const ended = await use.box.run(
      [
        INSECURE,
        'run',
        ...KVM_FLAGS,
        '--net=none',
        '--rm',
        `--result=${join(use.box.root, 'result')}`,
        ...shell(script),
      ],
      { timeout: 60_000 },
    );
    expect(ended.status).toBe(254);
    const { error, reason } = result();
    expect(reason).toBe('machine-failed');
    expect(error).toMatchObject({ code: 'machine', message: expect.stringMatching(why) });
    expect(ended.stderr).toMatch(/^tspod: the machine failed: .+\n/);
  });

  test('one that forks without end, beside one that goes on', async () => {
    const ended = await run(
      '--exit-policy=all',
      ...shell('b() { b | b & b; }; b 2>/dev/null; true', '--name=bomb', '--pids-limit=50'),
      '---',
      ...shell('sleep 2; echo calm', '--name=calm'),
    );
    expect(ended.stdout).toContain('calm\n');
  });

  test('one that fills memory: its own limit, then the machine’s', async () => {
    const eat = 'dd if=/dev/zero of=/dev/null bs=200M count=1; echo $?';
    const limited = await run(
      `--result=${join(use.box.root, 'result')}`,
      ...shell(eat, '--memory=32Mi'),
    );
    expect(limited.stdout).not.toBe('0\n');
    const whole = await run(
      '--vm-memory=128Mi',
      `--result=${join(use.box.root, 'result')}`,
      ...shell(eat),
    );
    expect(whole.stdout).not.toBe('0\n');
    expect(result().reason).toMatch(/^(?:exited|machine-failed)$/);
  });

  test('the guest’s kernel is another one, and there is no way to the host’s files', async () => {
    const host = readFileSync('/proc/sys/kernel/osrelease', 'utf8').trim();
    const ended = await use.box.run([
      INSECURE,
      'run',
      ...KVM_FLAGS,
      '--net=none',
      ...shell('uname -r; cat /proc/1/root/etc/os-release 2>&1; ls /proc/1/root/pod; blkid'),
    ]);
    expect(ended.stdout.split('\n')[0]).not.toBe(host);
    expect(ended.stdout).not.toContain('Debian');
  });
});

describe('QEMU', () => {
  test('killed, that is said; nothing stays', async () => {
    const pod = start(
      '--pod-name=killed',
      `--result=${join(use.box.root, 'result')}`,
      ...shell('sleep 100'),
    );
    await named('killed');
    await isUp('killed');
    const qemu = processes(use.box.root).find(({ line }) => line.includes('qemu-system'));
    expect(qemu?.uid).toBeGreaterThan(0x6000_0000 - 1);
    process.kill(qemu?.pid ?? 0, 'SIGKILL');
    const ended = await pod.ended;
    expect(ended).toMatchObject({ status: 254 });
    expect(result().error).toMatchObject({ message: 'QEMU was killed by signal 9 (Killed)' });
  });

  test('what it can’t do is refused by name', async () => {
    for (const [words, why] of [
      [['--vm-memory=1Mi'], /--vm-memory=1Mi: it must be from 96Mi/],
      [['--vm-memory=lots'], /--vm-memory=lots: it is no amount/],
      [['--vm-cpus=0'], /--vm-cpus=0: it must be from 1 to /],
      [['--disk-size=1'], /--disk-size=1: it must be from 16Mi/],
      [['--qemu-accel=magic'], /--qemu-accel=magic: it must be kvm, tcg or auto/],
    ] as const) {
      const ended = await use.box.run(['run', '--stage1-name=kvm', ...words, ...shell('true')]);
      expect(ended.status).toBe(254);
      expect(ended.stderr).toMatch(why);
    }
    expect(
      (await use.box.run(['run', ...KVM_FLAGS, '--net=host', ...shell('true')])).stderr,
    ).toContain("--net=host: a machine can't have the host's network");
    expect((await use.box.run(['run', '--vm-cpus=1', ...shell('true')])).stderr).toContain(
      '--vm-cpus: only a pod of flavor kvm has a machine',
    );
  });
});

test('a disk of each layer is made once, stays out of the way of image verify, goes with the image', async () => {
  const disks = () =>
    readdirSync(use.box.dir, { recursive: true, encoding: 'utf8' }).filter(name =>
      name.includes('whole.erofs'),
    );
  const made: string[][] = [];
  for (let n = 0; n < 2; n += 1) {
    expect(await run(...shell('exit 0'))).toMatchObject({ status: 0 });
    made.push(disks().map(name => `${name} ${statSync(join(use.box.dir, name)).ino}`));
  }
  expect(made[0]?.length).toBeGreaterThan(0);
  expect(made[1]).toEqual(made[0]);
  const listed = await use.box.run(['image', 'list', '--format=json']);
  const [{ id }]: [{ id: string }] = JSON.parse(listed.stdout);
  expect(await use.box.run(['image', 'verify', id])).toMatchObject({ status: 0 });
  expect(disks().length).toBe(made[0]?.length);
  expect(await use.box.run(['gc', '--grace-period=0s'])).toMatchObject({ status: 0 });
  expect(await use.box.run(['image', 'gc', '--grace-period=0s'])).toMatchObject({ status: 0 });
  expect(disks()).toEqual([]);
});

test('stage1 build, stage1 list', { timeout: 120_000 }, async () => {
  const tmp = join(use.box.root, 'built');
  const built = await use.box.run(['stage1', 'build', 'kvm', `--out=${tmp}`]);
  expect(built.stdout).toMatch(/^sha256-[0-9a-f]{64}\n$/);
  expect(readdirSync(tmp).sort()).toEqual(['info.json', 'initramfs', 'kernel', 'modules']);
  expect((await use.box.run(['stage1', 'build', 'kvm', `--out=${tmp}`])).stderr).toContain(
    'it is there already',
  );
  const listed = await use.box.run(['stage1', 'list', '--format=json']);
  expect(JSON.parse(listed.stdout)).toContainEqual(
    expect.objectContaining({ name: 'kvm', kind: 'built-in' }),
  );
  expect((await use.box.run(['stage1', 'build', 'fly'])).status).toBe(254);
  expect((await use.box.run(['stage1', 'build', 'kvm', '--kernel=/etc/passwd'])).stderr).toContain(
    '/etc/passwd is no Linux kernel',
  );
});

/** Of this sandbox, by a path in their words. */
function processes(root: string): readonly { pid: number; uid: number; line: string }[] {
  return readdirSync('/proc')
    .filter(name => /^\d+$/.test(name) && existsSync(`/proc/${name}/cmdline`))
    .flatMap(name => {
      try {
        const line = readFileSync(`/proc/${name}/cmdline`, 'latin1').replaceAll('\0', ' ');
        const cwd = readFileSync(`/proc/${name}/environ`, 'latin1') + line;
        const parent = /^PPid:\s*(\d+)/m.exec(readFileSync(`/proc/${name}/status`, 'utf8'))?.[1];
        const up = readFileSync(`/proc/${parent}/cmdline`, 'latin1');
        const uid = Number(
          /^Uid:\s*(\d+)/m.exec(readFileSync(`/proc/${name}/status`, 'utf8'))?.[1] ?? '0',
        );
        const grand = /^PPid:\s*(\d+)/m.exec(readFileSync(`/proc/${parent}/status`, 'utf8'))?.[1];
        const top = readFileSync(`/proc/${grand}/cmdline`, 'latin1');
        return (cwd + up + top).includes(root) ? [{ pid: Number(name), uid, line }] : [];
      } catch {
        return [];
      }
    });
}
