/** The launcher driven as it is run: each verb, each refusal, in a mount namespace of the test's own. */
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { encodePlan, type Step } from '../../src/pod/launch-plan.ts';
import { artifact } from '../../src/sys/artifacts.ts';
import { appPlan, BUSYBOX, launch, makePod, plan, type TestPod } from './harness.ts';

const root = process.getuid?.() === 0 && BUSYBOX !== undefined;
const SHARED_BIND: readonly Step[] = [['bind-root', 'root']];
let pod: TestPod;

beforeEach(() => {
  pod = makePod();
});
afterEach(() => pod.remove());

const sh = (script: string, more: readonly Step[] = []) => appPlan(['sh', '-c', script], more);

describe.runIf(root)('plan', () => {
  test.each<[string, readonly Step[], RegExp]>([
    ['an unknown verb', [['fly-away'], ['start', 'app-plan']], /step 2: unknown verb "fly-away"/],
    [
      'too few words',
      [
        ['bind', '/'],
        ['start', 'app-plan'],
      ],
      /bind can't have 1 words/,
    ],
    ['no last step', [['unshare', 'mount']], /last step must be start, exec or done/],
    ['a step after the last', [['start', 'app-plan'], ['debug']], /nothing may follow start/],
    [
      'a namespace that is none',
      [
        ['unshare', 'user'],
        ['start', 'app-plan'],
      ],
      /no namespace "user"/,
    ],
    [
      'a flag that is none',
      [
        ['bind', '/', 'root', '/', 'rw'],
        ['start', 'app-plan'],
      ],
      /no flag "rw"/,
    ],
    [
      'shared and private',
      [
        ['bind', '/', 'root', '/', 'shared', 'private'],
        ['start', 'app-plan'],
      ],
      /contradicts/,
    ],
    [
      'a mode that is none',
      [
        ['require-folder', 'root', 'proc', '9'],
        ['start', 'app-plan'],
      ],
      /no octal mode/,
    ],
    [
      'a name with a slash',
      [
        ['require-folder', 'root', 'a/b', '755'],
        ['start', 'app-plan'],
      ],
      /not one name/,
    ],
    [
      'a tmpfs option',
      [
        ['tmpfs', 'root', '/t', 'huge=always'],
        ['start', 'app-plan'],
      ],
      /no option "huge=always"/,
    ],
    [
      'a cgroup file without value',
      [
        ['cgroup', '/c', 'x'],
        ['start', 'app-plan'],
      ],
      /without a value/,
    ],
    [
      'a pid namespace without fork',
      [
        ['unshare', 'pid'],
        ['start', 'app-plan'],
      ],
      /needs supervise/,
    ],
    [
      'a pid that is none',
      [
        ['join-cgroups', '0'],
        ['start', 'app-plan'],
      ],
      /not PID/,
    ],
  ])('refuses %s before anything is done', (_, steps, message) => {
    const made = join(pod.root, 'made');
    const result = launch(pod, [['require-folder', 'root', 'made', '755'], ...steps], sh('true'));
    expect(result.stderr).toMatch(message);
    expect(result.stderr.trimEnd()).not.toContain('\n');
    expect(result.status).toBe(254);
    expect(existsSync(made)).toBe(false);
  });
});

describe.runIf(root)('verbs', () => {
  test('overlay with awkward names, private changes, layers untouched', () => {
    for (const name of ['ov', 'up', 'wk', 'a,b:c=d\\e"\n ', 'high']) mkdirSync(join(pod.dir, name));
    writeFileSync(join(pod.dir, 'a,b:c=d\\e"\n ', 'who'), 'low');
    writeFileSync(join(pod.dir, 'high', 'who'), 'high');
    const result = launch(
      pod,
      plan([['overlay', 'ov', 'up', 'wk', 'root', 'a,b:c=d\\e"\n ', 'high']]),
      [
        ['root', 'ov'],
        ['env', 'PATH=/bin'],
        ['exec', 'sh', '-c', 'cat /who; echo new > /who; cat /who'],
      ],
    );
    expect(result).toMatchObject({ status: 0, stdout: 'highnew\n' });
    expect(readFileSync(join(pod.dir, 'high/who'), 'utf8')).toBe('high');
    expect(readFileSync(join(pod.dir, 'up/who'), 'utf8')).toBe('new\n');
  });

  test('overlay of 250 layers', () => {
    for (const name of ['ov', 'up', 'wk']) mkdirSync(join(pod.dir, name));
    const layers = Array.from(
      { length: 250 },
      (_, index) => `layer-with-quite-a-long-name-${index}`,
    );
    for (const layer of layers) {
      mkdirSync(join(pod.dir, layer));
      writeFileSync(join(pod.dir, layer, 'top'), layer);
    }
    const result = launch(pod, plan([['overlay', 'ov', 'up', 'wk', 'root', ...layers]]), [
      ['root', 'ov'],
      ['exec', '/bin/cat', '/top'],
    ]);
    expect(result).toMatchObject({ stderr: '', stdout: layers.at(-1) });
  });

  test('tmpfs, file, symlink, read-only root', () => {
    const result = launch(
      pod,
      plan([
        ...SHARED_BIND,
        ['tmpfs', 'root', '/scratch/deep', 'mode=1777,size=1m,uid=5'],
        ['file', 'root', '/etc/hosts', '640', 'one\n', 'replace'],
        ['file', 'root', '/etc/hosts', '640', 'two\n', 'if-missing'],
        ['symlink', 'root', '/etc/mtab', '/proc/mounts', 'if-missing'],
        ['readonly-root', 'root'],
      ]),
      sh(
        'cat /etc/hosts; ls -ld /scratch/deep | cut -c1-10; readlink /etc/mtab; echo x > /scratch/deep/x && echo ok; echo x > /x || echo ro',
      ),
    );
    expect(result.stdout).toBe('one\ndrwxrwxrwt\n/proc/mounts\nok\nro\n');
  });

  test('a read-only bind is read-only below, too; a held tree is attached', () => {
    mkdirSync(join(pod.dir, 'vol/sub'), { recursive: true });
    const result = launch(
      pod,
      [
        ['hold', '3', 'vol', 'recursive'],
        ...plan([
          ...SHARED_BIND,
          ['attach', '3', 'root', '/data', 'ro', 'private'],
          ['bind', 'vol', 'root', '/rw', 'nosuid', 'nodev', 'noexec'],
        ]),
      ],
      sh('echo x > /data/sub/x || echo ro; echo y > /rw/y; cat /data/y'),
      { around: `mount -t tmpfs none ${pod.dir}/vol/sub; exec "$@"` },
    );
    expect(result.stdout).toBe('ro\ny\n');
  });

  test('a missing source is named', () => {
    const result = launch(
      pod,
      [
        ['hold', '0', '/no/such', 'single'],
        ['start', 'app-plan'],
      ],
      sh('true'),
    );
    expect(result.stderr).toBe(`launch: can't mount "/no/such": it does not exist\n`);
  });

  test('the pid file names this process and boot', () => {
    const result = launch(pod, plan([...SHARED_BIND, ['pid-file', 'pid']]), sh('echo $$'));
    const [pid, ticks, boot] = readFileSync(join(pod.dir, 'pid'), 'utf8').trim().split(' ');
    expect(pid).toBe(result.stdout.trim());
    expect(ticks).toMatch(/^\d+$/);
    expect(boot).toBe(readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim());
  });

  test('hostname and namespaces', () => {
    const result = launch(
      pod,
      [
        ['unshare', 'mount', 'uts', 'pid', 'ipc', 'net'],
        ['propagation', '/', 'rslave'],
        ...SHARED_BIND,
        ['hostname', 'pod-1'],
        ['supervise', '-', 'app'],
        ['start', 'app-plan'],
      ],
      sh('hostname; echo $$'),
    );
    expect(result.stdout).toBe('pod-1\n1\n');
  });
});

describe.runIf(root)('supervise', () => {
  const supervised = (...command: string[]) =>
    plan([...SHARED_BIND, ['supervise', '.', 'status', ...command]]);

  test.each([
    ['exit 7', 7, null, '7', 'exited 7\n'],
    ['kill -9 $$', null, 'SIGKILL', '137', 'signaled 9\n'],
    ['kill -15 $$', null, 'SIGTERM', '143', 'signaled 15\n'],
  ])('ends as the app: %s', (script, status, signal, record, told) => {
    const result = launch(pod, supervised('/bin/sh', '-c', 'echo "$0 $1"'), sh(script));
    expect(result).toMatchObject({ status, signal, stdout: told, stderr: '' });
    expect(readFileSync(join(pod.dir, 'status'), 'utf8')).toBe(record);
  });

  test('an app that was never executed is "failed"', () => {
    const result = launch(pod, supervised('/bin/sh', '-c', 'echo "$0 $1"'), appPlan(['nope']));
    expect(result).toMatchObject({ status: 254, stdout: 'failed 254\n' });
    expect(result.stderr).toBe('tspod: exec "nope": not found in PATH\n');
  });

  test.each([
    ['init-began', 'exit 3', null, 'SIGKILL', 'signaled 9\n', ''],
    ['init-began', 'exit 254', 254, null, 'failed 254\n', ''],
    ['init-began', 'exit 0', 0, null, 'exited 0\n', ''],
    ['init-ended', 'exit 3', 3, null, 'exited 3\n', ''],
    ['nothing', 'exit 3', 254, null, 'failed 254\n', 'ended with 3\n'],
    ['nothing', 'kill -15 $$', null, 'SIGTERM', 'signaled 15\n', ''],
  ])('an init that told %s: %s', (told, script, status, signal, kind, said) => {
    const steps: Step[] = [
      ['init', '.'],
      ['supervise', '-', 'pod', '/bin/sh', '-c', 'echo "$0 $1"'],
    ];
    writeFileSync(join(pod.dir, told), '');
    const result = launch(pod, plan([...SHARED_BIND, ...steps]), sh(script));
    expect(result).toMatchObject({ status, signal, stdout: kind });
    expect(result.stderr.endsWith(said)).toBe(true);
    if (said === '') expect(result.stderr).toBe('');
  });

  test('passes a signal on, once', () => {
    const script = 'trap "echo got" USR1; sh -c "kill -USR1 $PPID"; sleep 0.3; :';
    expect(launch(pod, supervised(), sh(script)).stdout).toBe('got\n');
  });

  test('the app sees LISTEN_PID as its own', () => {
    const result = launch(
      pod,
      supervised(),
      sh('test "$LISTEN_PID" = $$ && echo same; echo $LISTEN_FDS', [
        ['env-pass', 'LISTEN_PID', 'LISTEN_FDS'],
      ]),
      {
        around: 'exec 3</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@"',
      },
    );
    expect(result.stdout).toBe('same\n1\n');
  });

  test('the command runs after the lock is free', () => {
    const result = launch(pod, supervised('flock', '-n', 'lock', 'echo', 'free'), sh('true'));
    expect(result.stdout).toBe('free exited 0\n');
  });
});

describe.runIf(root)('lock', () => {
  test('is on the file, held by the app, without its folder', () => {
    const result = launch(pod, plan(SHARED_BIND), sh('flock -n /lk true; true'));
    expect(result.status).toBe(0);
    const busy = launch(pod, plan(SHARED_BIND), sh('true'), {
      around: `exec 9<${pod.dir}/lock; flock -x 9; "$@" 9<&-`,
    });
    expect(busy.stderr).toContain('it is in use');
    expect(busy.status).toBe(254);
  });

  test('TSPOD_LOCK_FD that is another file is refused', () => {
    const result = launch(pod, plan(SHARED_BIND), sh('true'), {
      around: 'exec 7</dev/null; export TSPOD_LOCK_FD=7; exec "$@"',
    });
    expect(result.stderr).toContain('descriptor 7 is not its lock');
  });

  test('a prepared pod moves to run', () => {
    const pods = mkdtempSync(join(tmpdir(), 'tspod-pods-'));
    try {
      mkdirSync(join(pods, 'prepared'));
      const prepared = join(pods, 'prepared', 'u1');
      renameSync(pod.dir, prepared);
      const moved: TestPod = { ...pod, dir: prepared, root: join(prepared, 'root') };
      expect(launch(moved, plan(SHARED_BIND), sh('echo up'))).toMatchObject({
        stdout: 'up\n',
        stderr: '',
      });
      expect(existsSync(join(pods, 'run/u1/lock'))).toBe(true);
    } finally {
      rmSync(pods, { recursive: true });
    }
  });

  test.each(['locked', 'lock-taken', 'step-1', 'step-4', 'before-exec'])(
    'dies at %s and leaves a free lock',
    point => {
      const result = launch(pod, plan(SHARED_BIND), sh('true'), { env: { TSPOD_FAULT: point } });
      expect(result.signal ?? result.status).toBe('SIGKILL');
      expect(launch(pod, plan(SHARED_BIND), sh('true')).status).toBe(0);
    },
  );
});

describe.runIf(root)('attacks', () => {
  test.each(['proc', 'sys', 'dev'])(
    'CVE-2019-19921, CVE-2023-27561, CVE-2026-41579: /%s in the image is a link',
    name => {
      symlinkSync('/etc', join(pod.root, name));
      const result = launch(
        pod,
        plan([...SHARED_BIND, ['require-folder', 'root', name, '755']]),
        sh('true'),
      );
      expect(result.stderr).toBe(
        `tspod: can't use the image: its "/${name}" is a symbolic link, not a folder\n`,
      );
    },
  );

  test('CVE-2019-18837, CVE-2024-45310: a mount target through a link stays in the root', () => {
    const outside = mkdtempSync(join(tmpdir(), 'tspod-outside-'));
    try {
      symlinkSync(outside, join(pod.root, 'evil'));
      symlinkSync('../../../../../../tmp', join(pod.root, 'up'));
      const result = launch(
        pod,
        plan([
          ...SHARED_BIND,
          ['tmpfs', 'root', '/up/x', ''],
          ['file', 'root', '/up/y', '644', 'y', 'replace'],
        ]),
        sh('ls /tmp'),
      );
      expect(result.stdout).toBe('x\ny\n');
      const dangling = launch(
        pod,
        plan([...SHARED_BIND, ['tmpfs', 'root', '/evil/x', '']]),
        sh('true'),
      );
      expect(dangling.status).toBe(0);
      expect(spawnSync('ls', ['-A', outside], { encoding: 'utf8' }).stdout).toBe('');
    } finally {
      rmSync(outside, { recursive: true });
    }
  });

  test('CVE-2025-9566: a written file replaces a link instead of following it', () => {
    const victim = join(pod.dir, 'victim');
    writeFileSync(victim, 'safe');
    mkdirSync(join(pod.root, 'etc'));
    symlinkSync(victim, join(pod.root, 'etc/hosts'));
    launch(
      pod,
      plan([...SHARED_BIND, ['file', 'root', '/etc/hosts', '644', 'new', 'replace']]),
      sh('true'),
    );
    expect(readFileSync(victim, 'utf8')).toBe('safe');
    expect(readFileSync(join(pod.root, 'etc/hosts'), 'utf8')).toBe('new');
  });

  test("CVE-2025-31133: the image's /dev/null is not what masks", () => {
    mkdirSync(join(pod.root, 'dev'));
    writeFileSync(join(pod.root, 'dev/null'), 'fake');
    writeFileSync(join(pod.root, 'secret'), 'secret');
    const result = launch(
      pod,
      plan([...SHARED_BIND, ['mask', 'root', '/secret'], ['mask', 'root', '/missing']]),
      sh('cat /secret; ls -l /secret | cut -c1'),
    );
    expect(result.stdout).toBe('c\n');
    const fake = launch(pod, plan([...SHARED_BIND, ['mask', 'root', '/secret']]), sh('true'), {
      around: `touch /tmp/.n; mount --bind ${pod.root}/secret /dev/null; exec "$@"`,
    });
    expect(fake.stderr).toContain('is not the null device');
  });

  test('CVE-2024-21626: the app gets 0-2 and the lock file, nothing else, whatever was open', () => {
    const result = launch(
      pod,
      plan([
        ...SHARED_BIND,
        ['require-folder', 'root', 'proc', '555'],
        ['bind', '/proc', 'root', '/proc'],
      ]),
      appPlan(['ls', '-l', '/proc/self/fd']),
      { around: 'exec 5</ 8</etc 9</etc/passwd; exec "$@"' },
    );
    // 4 is where ls itself reads the folder.
    expect(result.stdout.match(/\b\d+(?= -> |$)/gm)?.filter(fd => Number(fd) > 2)).toEqual([
      '3',
      '4',
    ]);
    expect(result.stdout).toContain(`3 -> ${join(pod.dir, 'lock')}`);
  });

  test("CVE-2019-5736: what executed the app can't be written through /proc", () => {
    const before = readFileSync(artifact('stage2'));
    chmodSync(join(pod.root, 'bin'), 0o755);
    // The image's program is a script whose interpreter is the process's own executable.
    writeFileSync(join(pod.root, 'bin/evil'), '#!/proc/self/exe\n', { mode: 0o755 });
    launch(
      pod,
      plan([
        ...SHARED_BIND,
        ['require-folder', 'root', 'proc', '555'],
        ['bind', '/proc', 'root', '/proc'],
      ]),
      appPlan(['evil']),
    );
    expect(readFileSync(artifact('stage2')).equals(before)).toBe(true);
  });

  test('nothing propagates to the host, and a shared parent is refused', () => {
    const before = (around: string) =>
      `mount -t tmpfs t ${pod.dir}/vol; mount --make-rshared /; ${around}`;
    mkdirSync(join(pod.dir, 'vol'));
    const result = launch(
      pod,
      plan([
        ...SHARED_BIND,
        ['tmpfs', 'root', '/t', ''],
        ['bind', 'vol', 'root', '/v'],
        ['require-folder', 'root', 'proc', '555'],
        ['bind', '/proc', 'root', '/proc'],
      ]),
      sh('umount /v; mount -t tmpfs x /bin'),
      {
        around: before(
          `cp /proc/self/mountinfo ${pod.dir}/a; "$@"; cat /proc/self/mountinfo | cmp - ${pod.dir}/a && echo same`,
        ),
      },
    );
    expect(result.stdout).toContain('same');
    const shared = launch(
      pod,
      [
        ['tmpfs', 'root', '/t', ''],
        ['start', 'app-plan'],
      ],
      sh('true'),
      { around: before('exec "$@"') },
    );
    expect(shared.stderr).toContain('lies in a shared mount');
  });

  test("a shared volume is a peer of the host's: its mounts reach the host", () => {
    mkdirSync(join(pod.dir, 'vol/sub'), { recursive: true });
    const result = launch(
      pod,
      [
        ['hold', '1', 'vol', 'recursive'],
        ...plan([...SHARED_BIND, ['attach', '1', 'root', '/v', 'shared']]),
      ],
      sh('mkdir /v/in; mount -t tmpfs x /v/in; echo hi > /v/in/f'),
      {
        around: `mount --bind ${pod.dir}/vol ${pod.dir}/vol; mount --make-shared ${pod.dir}/vol; "$@"; cat ${pod.dir}/vol/in/f`,
      },
    );
    expect(result.stdout).toBe('hi\n');
  });
});

test('a plan on a descriptor needs no pod', () => {
  const dir = mkdtempSync(join(tmpdir(), 'tspod-plan-'));
  try {
    writeFileSync(
      join(dir, 'plan'),
      encodePlan([
        ['program', 'tspod'],
        ['exec', '/bin/echo', 'hello'],
      ]),
    );
    const result = spawnSync('sh', ['-c', 'exec "$0" --plan-fd 5 5<plan', artifact('launch')], {
      cwd: dir,
      encoding: 'utf8',
    });
    expect(result).toMatchObject({ status: 0, stdout: 'hello\n', stderr: '' });
  } finally {
    rmSync(dir, { recursive: true });
  }
});
