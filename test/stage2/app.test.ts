/** The app starter driven through the launcher: every property of the app's process, every refusal. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Step } from '../../src/pod/launch-plan.ts';
import { appPlan, BUSYBOX, launch, makePod, plan, type TestPod } from '../launch/harness.ts';

const root = process.getuid?.() === 0 && BUSYBOX !== undefined;
const WITH_PROC = plan([
  ['bind-root', 'root'],
  ['require-folder', 'root', 'proc', '555'],
  ['bind', '/proc', 'root', '/proc'],
]);
let pod: TestPod;

beforeEach(() => {
  pod = makePod();
  mkdirSync(join(pod.root, 'etc'));
  users('root:x:0:0::/root:/bin/sh\nweb:x:33:34:w:/var/www:/bin/zsh\n1000:x:7:7::/:\n');
  groups('web:x:34:\nextra:x:77:a,web\nno:x:78:webx,we\n');
});
afterEach(() => pod.remove());

function users(text: string): void {
  writeFileSync(join(pod.root, 'etc/passwd'), text);
}
function groups(text: string): void {
  writeFileSync(join(pod.root, 'etc/group'), text);
}
const run = (script: string, more: readonly Step[] = [], around?: string) =>
  launch(
    pod,
    WITH_PROC,
    appPlan(['sh', '-c', script], more),
    around === undefined ? {} : { around },
  );
const status = (field: string) =>
  `grep ^${field}: /proc/self/status | tr -s "\\t" " " | cut -d" " -f2-`;

describe.runIf(root)('user and groups', () => {
  test.each<[string, readonly Step[], string]>([
    ['nobody said', [], '0 0'],
    ['a name', [['user', 'web']], '33 34'],
    ['a number with an entry', [['user', '33']], '33 34'],
    ['CVE-2016-3697: digits are a number', [['user', '1000']], '1000 0'],
    [
      'a number and a group name',
      [
        ['user', '5'],
        ['group', 'extra'],
      ],
      '5 77',
    ],
    [
      'the largest',
      [
        ['user', '4294967294'],
        ['group', '4294967294'],
      ],
      '4294967294 4294967294',
    ],
    [
      'the owner of a path',
      [
        ['user', '/owned'],
        ['group', '/owned'],
      ],
      '12 13',
    ],
  ])('%s', (_, steps, wanted) => {
    writeFileSync(join(pod.root, 'owned'), '');
    spawnSync('chown', ['12:13', join(pod.root, 'owned')]);
    expect(run('echo $(id -u) $(id -g)', steps)).toMatchObject({
      stderr: '',
      stdout: `${wanted}\n`,
    });
  });

  test.each<[string, readonly Step[], RegExp]>([
    ['CVE-2024-40635: past the range', [['user', '4294967295']], /is no number from 0/],
    ['far past the range', [['user', '99999999999999999999999']], /is no number from 0/],
    ['CVE-2026-30892: user:group in one', [['user', 'web:web']], /is no number/],
    ['negative', [['user', '-1']], /is no number/],
    ['empty', [['user', '']], /is no number/],
    ['an unknown name', [['user', 'nobody']], /"nobody": it is not in the image's \/etc\/passwd/],
    [
      'an unknown group',
      [['group', 'nogroup']],
      /"nogroup": it is not in the image's \/etc\/group/,
    ],
    ['a missing path', [['user', '/none']], /"\/none"/],
  ])('refuses %s', (_, steps, message) => {
    const result = run('echo never', steps);
    expect(result.stderr).toMatch(message);
    expect(result).toMatchObject({ status: 254, stdout: '' });
  });

  test('an id out of range in the image is an error, not root', () => {
    users('web:x:4294967296:0::/:\n');
    expect(run('true', [['user', 'web']]).stderr).toContain('"4294967296", which is no number');
  });

  test('CVE-2022-2989, CVE-2023-25173: supplementary groups are exactly these', () => {
    const around = 'exec setpriv --groups 4,20 "$@"';
    expect(run(status('Groups'), [['user', 'web']], around).stdout.trim()).toBe('');
    expect(
      run(
        status('Groups'),
        [['user', 'web'], ['groups', '5', '6'], ['image-groups']],
        around,
      ).stdout.trim(),
    ).toBe('5 6 77');
  });

  test('CVE-2024-9676: passwd as a FIFO does not hang', () => {
    spawnSync('rm', [join(pod.root, 'etc/passwd')]);
    spawnSync('mkfifo', [join(pod.root, 'etc/fifo')]);
    symlinkSync('fifo', join(pod.root, 'etc/passwd'));
    expect(run('true', [['user', 'web']]).stderr).toContain('it is not a regular file');
  });

  test('CVE-2026-47262: bounds on lines and size', () => {
    groups(`${'x:x:1:\n'.repeat(65537)}`);
    expect(run('true', [['group', 'y']]).stderr).toContain('more than 65536 lines');
    groups(`y:x:1:${'a'.repeat(70000)}\n`);
    expect(run('true', [['group', 'y']]).stderr).toContain('longer than 65536 bytes');
    groups('x'.repeat(4 * 1024 * 1024 + 1));
    expect(run('true', [['group', 'y']]).stderr).toContain('larger than 4194304 bytes');
  });

  test("passwd as a link out of the root, through /proc too, is the root's", () => {
    spawnSync('rm', [join(pod.root, 'etc/passwd')]);
    symlinkSync('/proc/1/root/etc/passwd', join(pod.root, 'etc/passwd'));
    expect(run('echo never', [['user', 'daemon']]).stdout).toBe('');
  });

  test("environment from the user's entry fills gaps only", () => {
    const result = run('echo $HOME $USER $LOGNAME $SHELL', [
      ['user', 'web'],
      ['env', 'HOME=/mine'],
      ['env-from-user'],
    ]);
    expect(result.stdout).toBe('/mine web web /bin/zsh\n');
  });
});

describe.runIf(root)('privileges', () => {
  test('capabilities of a user are the ambient ones, for ever bounded', () => {
    const result = run('grep ^Cap /proc/self/status', [
      ['user', '5'],
      ['capabilities', '420', '400', '400', '400'],
    ]);
    expect(result.stdout.match(/[0-9a-f]{16}/g)?.map(mask => Number.parseInt(mask, 16))).toEqual([
      0x400, 0x400, 0x400, 0x420, 0x400,
    ]);
  });

  test('CVE-2022-24769: inheritable and ambient are empty unless asked', () => {
    const result = run('grep -E "^Cap(Inh|Amb)" /proc/self/status', [
      ['capabilities', '3', '3', '0', '0'],
    ]);
    expect(result.stdout).toBe('CapInh:\t0000000000000000\nCapAmb:\t0000000000000000\n');
  });

  // BPF: mkdir and mkdirat answer EPERM, everything else is allowed (x86-64 numbers).
  const filter = Buffer.concat(
    [
      [0x20, 0, 0, 0],
      [0x15, 2, 0, 83],
      [0x15, 1, 0, 258],
      [0x06, 0, 0, 0x7fff0000],
      [0x06, 0, 0, 0x00050001],
    ].map(([code = 0, yes = 0, no = 0, k = 0]) => {
      const bytes = Buffer.alloc(8);
      bytes.writeUInt16LE(code, 0);
      bytes.writeUInt8(yes, 2);
      bytes.writeUInt8(no, 3);
      bytes.writeUInt32LE(k, 4);
      return bytes;
    }),
  );

  test.runIf(process.arch === 'x64').each<[string, readonly Step[]]>([
    ['with no_new_privs', [['no-new-privs']]],
    ['without it, and no CAP_SYS_ADMIN for the app', [['capabilities', '0', '0', '0', '0']]],
    [
      'for a user',
      [
        ['user', '5'],
        ['capabilities', '0', '0', '0', '0'],
      ],
    ],
  ])('seccomp %s', (_, steps) => {
    const result = run(
      `mkdir /tmp-x; ${status('Seccomp')}; ${status('CapEff')}; ${status('CapPrm')}`,
      [['seccomp', filter], ...steps],
    );
    expect(result.stderr).toContain('Operation not permitted');
    expect(result.stdout.split('\n')[0]).toBe('2');
    if (steps[0]?.[0] !== 'no-new-privs')
      expect(result.stdout).toBe(`2\n${'0'.repeat(16)}\n${'0'.repeat(16)}\n`);
  });

  test('no_new_privs, rlimits, umask, oom_score_adj', () => {
    const result = run(
      `${status('NoNewPrivs')}; ulimit -n; ulimit -Hn; umask; cat /proc/self/oom_score_adj`,
      [
        ['no-new-privs'],
        ['rlimit', 'nofile', '100', '200'],
        ['umask', '027'],
        ['oom-score-adj', '321'],
        ['user', '5'],
      ],
    );
    expect(result).toMatchObject({ stderr: '', stdout: '1\n100\n200\n0027\n321\n' });
  });
});

describe.runIf(root)('working directory and command', () => {
  test.each<[string, readonly Step[], readonly string[], string | RegExp]>([
    ['not found', [], ['nope'], 'exec "nope": not found in PATH'],
    ['no such file', [], ['/no/pe'], 'exec "/no/pe": no such file in the image'],
    ['not executable', [], ['/etc/passwd'], 'exec "/etc/passwd": permission denied'],
    ['a folder', [], ['/etc'], 'exec "/etc": it is a folder'],
    [
      'a missing interpreter',
      [],
      ['script'],
      'exec "/bin/script": its interpreter "/bin/python9" is missing in the image',
    ],
    [
      'a missing ELF loader',
      [],
      ['elf'],
      /exec "\/bin\/elf": its interpreter "\/lib.*" is missing in the image/,
    ],
    [
      'no format',
      [],
      ['text'],
      'exec "/bin/text": exec format error: it is no program for this machine, nor a script with #!',
    ],
    [
      'no working directory',
      [['workdir', '/none']],
      ['true'],
      'can\'t change to the working directory "/none": No such file or directory',
    ],
  ])('says so: %s', (_, steps, command, message) => {
    writeFileSync(join(pod.root, 'bin/script'), '#! /bin/python9 -x\n', { mode: 0o755 });
    writeFileSync(join(pod.root, 'bin/text'), 'hello\n', { mode: 0o755 });
    spawnSync('cp', ['/usr/bin/env', join(pod.root, 'bin/elf')]);
    const result = launch(pod, WITH_PROC, appPlan(command, steps));
    expect(result.stderr).toMatch(message);
    expect(result.status).toBe(254);
  });

  test('exec-any takes the first that there is, and says so', () => {
    const steps = [
      ...appPlan(['x']).slice(0, -1),
      ['exec-any', '/bin/bash', '/bin/sh'],
    ] satisfies Step[];
    const result = launch(pod, WITH_PROC, steps, { input: 'echo shell' });
    expect(result).toMatchObject({
      stdout: 'shell\n',
      stderr: 'tspod: the image has no "/bin/bash", using "/bin/sh"\n',
    });
  });

  test('CVE-2024-21626: a working directory through a leaked descriptor', () => {
    for (const fd of [3, 5, 6, 7, 8, 9]) {
      const result = launch(
        pod,
        WITH_PROC,
        appPlan(['cat', 'etc/hostname'], [['workdir', `/proc/self/fd/${fd}`]]),
        { around: 'exec 5</ 6</ 7</ 8</ 9</; exec "$@"' },
      );
      expect(result.status).toBe(254);
      expect(result.stderr).toContain('working directory');
    }
  });

  test("the environment is the plan's, not the caller's", () => {
    const result = launch(
      pod,
      WITH_PROC,
      appPlan(
        ['env'],
        [
          ['env', 'A=1'],
          ['env', 'A=2'],
          ['env-pass', 'TERM', 'NONE'],
        ],
      ),
      { env: { TERM: 'vt', SECRET: 'x' } },
    );
    expect(result.stdout.trim().split('\n').sort()).toEqual(['A=2', 'PATH=/bin', 'TERM=vt']);
  });
});
