/** What scripts for rkt match on, through the bundle: texts, where they go, exit statuses; under both names. */
import { spawnSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, test } from 'vitest';
import { globalContext } from '../../stage0/args/context.ts';
import { FlagValues } from '../../stage0/args/flags.ts';
import { GLOBAL_FLAGS } from '../../stage0/args/tables.ts';
import { fromLayout, shell, useSandbox } from '../functional/sandbox.ts';
import { type Ended, TSPOD } from '../support/tspod.ts';

const use = useSandbox();
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const NOBODY = 65534;
let rkt: string;

beforeEach(() => {
  rkt = join(use.box.root, 'rkt');
  symlinkSync(TSPOD, rkt);
});

/** The program with these words alone, without the sandbox's flags. */
function bare(program: string, ...words: readonly string[]): Promise<Ended> {
  return use.box.spawn('unshare', ['-m', '--propagation', 'private', program, ...words]).ended;
}

function asRkt(...words: readonly string[]): Promise<Ended> {
  return bare(rkt, ...use.box.globalFlags, ...words);
}

describe('no command, unknown ones', () => {
  test('no command: help on standard output, status 2', async () => {
    const ended = await bare(TSPOD);
    expect(ended).toMatchObject({ status: 2, stderr: 'tspod: missing command\n' });
    expect(ended.stdout).toMatch(/^NAME:\n {2}tspod - /);
    expect(await bare(rkt)).toMatchObject({
      status: 2,
      stderr: 'rkt: missing command\n',
      stdout: expect.stringMatching(/^NAME:\n {2}rkt - /),
    });
  });

  test('--version is what everybody tries first', async () => {
    const [flag, command] = [await bare(TSPOD, '--version'), await bare(TSPOD, 'version')];
    expect(flag).toEqual(command);
    expect(flag.stdout).toMatch(/^tspod Version: /);
  });

  test('an unknown command', async () => {
    expect(await bare(TSPOD, 'bogus')).toMatchObject({
      status: 254,
      stdout: '',
      stderr: `tspod: unknown command "bogus" for "tspod"; run 'tspod --help' for usage\n`,
    });
    expect(await bare(rkt, 'bogus')).toMatchObject({
      status: 254,
      stderr: `Error: unknown command "bogus" for "rkt"\nRun 'rkt --help' for usage.\n`,
    });
  });

  test('an unknown flag', async () => {
    expect(await bare(TSPOD, 'list', '--bogus')).toMatchObject({
      status: 254,
      stderr: "tspod: unknown flag: --bogus; run 'tspod list --help' for usage\n",
    });
    expect(await bare(rkt, 'list', '--bogus')).toMatchObject({
      status: 254,
      stderr: "Error: unknown flag: --bogus\nRun 'rkt list --help' for usage.\n",
    });
  });

  test('help: status 0, nothing on standard error', async () => {
    for (const words of [['--help'], ['help'], ['help', 'image', 'rm'], ['run', '-h']]) {
      const ended = await bare(TSPOD, ...words);
      expect(ended).toMatchObject({ status: 0, stderr: '' });
      expect(ended.stdout).toMatch(/^NAME:\n/);
    }
    expect(await bare(TSPOD, 'help', 'bogus')).toMatchObject({ status: 254, stdout: '' });
  });
});

test.each([
  [['status'], /^tspod: status: must provide at least one pod;/],
  [['status', ''], /^tspod: UUID cannot be empty;/],
  [['status', 'ffffffff'], /^tspod: no matches found for "ffffffff";/],
  [['status', 'a', 'b'], /^tspod: status: takes exactly one pod;/],
  [
    ['status', '--format=xml', 'a'],
    /^tspod: --format: "xml" is unknown; give json or json-pretty$/,
  ],
  [['status', '--wait=soon', 'a'], /^tspod: status: --wait: "soon" is not a duration;/],
  [['list', '--format=yaml'], /^tspod: --format: "yaml" is unknown/],
  [['version', '--format=x'], /^tspod: --format: "x" is unknown/],
  [['gc', '--grace-period=x'], /^tspod: gc: --grace-period: "x" is not a duration;/],
  [['gc', 'ffffffff'], /^tspod: gc: takes no arguments, not "ffffffff";/],
  [['image', 'gc', 'web'], /^tspod: image gc: takes no arguments, not "web";/],
  [
    ['image', 'extract', '--overwrite', 'web', '.'],
    /^tspod: image extract: can't replace \.: the working folder is in it$/,
  ],
  [['run'], /^tspod: must provide at least one image or specify the pod manifest$/],
  [['run', '--name=x', 'a'], /^tspod: --name must follow an image$/],
  [['run', '--', 'x'], /^tspod: an image is required before any app arguments$/],
  [['run', '--interactive', 'a', 'b'], /^tspod: interactive option only supports one image$/],
  [
    ['run', 'a', '--caps-retain=A', '--caps-remove=B'],
    /^tspod: flags --caps-retain and --caps-remove are mutually exclusive$/,
  ],
  [['run', '--stage1-name=fly', '--stage1-name=fly', 'a'], /^tspod: --stage1-name already used$/],
  [
    ['run', '--pod-manifest=f', 'a'],
    /^tspod: conflicting flags set with --pod-manifest \(see --help\)$/,
  ],
  [
    ['run', '--pod-manifest=f', '--set-env=A=b'],
    /^tspod: conflicting flags set with --pod-manifest/,
  ],
  [
    ['run', '--pull-policy=maybe', 'a'],
    /^tspod: --pull-policy: "maybe" is unknown; give new, update or never$/,
  ],
  [
    ['run', '--mds-register', 'a'],
    /^tspod: --mds-register: the metadata service is not in this version$/,
  ],
  [['run', '--pod-name=deadbeef', 'a'], /^tspod: --pod-name: "deadbeef" can't name a pod;/],
  [['app', 'add', 'ffff'], /^tspod: add: must provide exactly one pod and one image$/],
  [['app', 'start', 'ffff'], /^tspod: start: must provide the app with --app$/],
  [['app', 'rm', 'ffff', '--app=a'], /^tspod: no matches found for "ffff";/],
  [['rm'], /^tspod: rm: must provide at least one pod;/],
  [['enter'], /^tspod: enter: must provide the pod;/],
  [['enter', 'ffff'], /^tspod: no matches found for "ffff";/],
  [['run-prepared', 'ffff'], /^tspod: no matches found for "ffff";/],
  [['cat-manifest', 'ffff'], /^tspod: no matches found for "ffff";/],
  [
    ['list', '--insecure-options=everything'],
    /^tspod: --insecure-options: "everything" is unknown;/,
  ],
  [['list', '--dir='], /^tspod: --dir: it is empty;/],
  [['status', 'a\u001b[31mb'], /^tspod: no matches found for "a\\u001b\[31mb";/],
])('%j: one line, status 254', async (words, line) => {
  const ended = await use.box.run(words);
  expect(ended).toMatchObject({ status: 254, stdout: '' });
  expect(ended.stderr).toMatch(/^[^\n]+\n$/);
  expect(ended.stderr.trimEnd()).toMatch(line);
});

test('a wrong pod among several: the others are dealt with, then one line more', async () => {
  const uuid = (await use.box.run(['prepare', ...shell('true')])).stdout.trim();
  expect(uuid).toMatch(UUID);
  const removed = await use.box.run(['rm', 'ffffffff', uuid]);
  expect(removed.status).toBe(254);
  expect(removed.stdout).toBe(`"${uuid}"\n`);
  expect(removed.stderr).toMatch(
    /^tspod: rm: no matches found for "ffffffff".*\ntspod: rm: failed to remove one or more pods\n$/,
  );
  const stopped = await use.box.run(['stop', 'ffffffff']);
  expect(stopped.stderr).toMatch(
    /^tspod: stop: no matches found for "ffffffff".*\ntspod: stop: failed to stop 1 pod\(s\)\n$/,
  );
});

test('an unreadable --uuid-file: status 1 for status and stop, 254 for the rest', async () => {
  for (const [command, status] of [
    ['status', 1],
    ['stop', 1],
    ['rm', 254],
    ['enter', 254],
    ['cat-manifest', 254],
  ] as const) {
    const ended = await use.box.run([command, '--uuid-file=/nowhere']);
    expect(ended.status, command).toBe(status);
    expect(ended.stderr).toMatch(/^tspod: unable to read UUID from \/nowhere: [^\n]*\n$/);
  }
});

describe('under the name rkt', () => {
  test('messages begin with the command', async () => {
    const cases: readonly (readonly [readonly string[], RegExp])[] = [
      [['status', 'ffff'], /^status: no matches found for "ffff"/],
      [
        ['rm', 'ffff'],
        /^rm: no matches found for "ffff"[^\n]*\nrm: failed to remove one or more pods\n$/,
      ],
      [['stop', 'ffff'], /^stop: no matches found for "ffff"[^\n]*\nstop: failed to stop 1 pod/],
      [['image', 'cat-manifest', 'sha256:ffff'], /^cat-manifest: /],
      [['run-prepared', 'ffff'], /^run-prepared: no matches/],
      [['gc', '--grace-period=x'], /^gc: --grace-period: /],
    ];
    for (const [words, text] of cases) {
      const ended = await asRkt(...words);
      expect(ended.stderr).toMatch(text);
      expect(ended.status).toBe(254);
    }
  });

  test.each(['tspod', 'rkt'] as const)('default folders of %s', async name => {
    const context = await globalContext(name, 'list', new FlagValues(GLOBAL_FLAGS));
    expect(context).toMatchObject({
      dir: `/var/lib/${name}`,
      systemConfig: `/usr/lib/${name}`,
      localConfig: `/etc/${name}`,
      userConfig: '',
    });
  });

  test('its version', async () => {
    expect((await asRkt('version')).stdout).toMatch(/^rkt Version: \d+\.\d+\.\d+\nappc Version: /);
    expect((await use.box.run(['version'])).stdout).toMatch(/^tspod Version: /);
  });

  test('a run as rkt runs: its image is there for tspod', async () => {
    expect(await asRkt('run', ...shell('echo $0; exit 7'))).toMatchObject({
      status: 7,
      stderr: '',
    });
    const listed = await use.box.run(['list', '--no-legend']);
    expect(listed.stdout).toContain('exited');
  });
});

test('root only: refused up front, by name', async () => {
  const nobody = {
    through: ['setpriv', `--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups'],
  };
  for (const words of [
    ['run', fromLayout('busybox')],
    ['prepare', fromLayout('busybox')],
    ['run-prepared', 'x'],
    ['gc'],
    ['rm', 'x'],
    ['enter', 'x'],
  ]) {
    const ended = await use.box.run(words, nobody);
    expect(ended).toMatchObject({ status: 254, stdout: '' });
    expect(ended.stderr).toMatch(
      new RegExp(`^tspod: ${words[0]}: cannot run as unprivileged user; [^\n]*\n$`),
    );
  }
});

describe('--format', () => {
  test.each(['list', 'image list', 'config', 'version', 'status'])('%s', async command => {
    const uuid = (await use.box.run(['prepare', ...shell('true')])).stdout.trim();
    const words = [...command.split(' '), ...(command === 'status' ? [uuid] : [])];
    if (command === 'config') {
      const [plain, pretty] = [
        await use.box.run([...words, '--pretty-print=false']),
        await use.box.run(words),
      ];
      expect(JSON.parse(plain.stdout)).toEqual(JSON.parse(pretty.stdout));
      expect(plain.stdout).toMatch(/^[^\n]+\n$/);
      return;
    }
    const line = await use.box.run([...words, '--format=json']);
    const pretty = await use.box.run([...words, '--format=json-pretty']);
    expect(line).toMatchObject({ status: 0, stderr: '' });
    expect(line.stdout).toMatch(/^[^\n]+\n$/);
    expect(pretty.stdout).toMatch(/^[[{]\n\t/);
    expect(pretty.stdout).toBe(`${JSON.stringify(JSON.parse(line.stdout), undefined, '\t')}\n`);
  });

  test('nothing there: an empty array, and a header', async () => {
    expect((await use.box.run(['list', '--format=json'])).stdout).toBe('[]\n');
    expect((await use.box.run(['list'])).stdout).toBe(
      'UUID\tAPP\tIMAGE NAME\tSTATE\tCREATED\tSTARTED\tNETWORKS\n',
    );
    expect((await use.box.run(['list', '--no-legend', 'ignored'])).stdout).toBe('');
    expect((await use.box.run(['image', 'list', '--format=json'])).stdout).toBe('[]\n');
    expect(readdirSync(use.box.root)).not.toContain('data/pods');
  });
});

describe('output that nobody takes', () => {
  test('a reader that has gone', async () => {
    const words = [TSPOD, ...use.box.globalFlags, 'list'].map(word => `'${word}'`).join(' ');
    const script = `{ sleep 0.3; ${words}; echo "status $?" >&2; } | true`;
    const ended = await use.box.spawn('sh', ['-c', script]).ended;
    expect(ended.stderr).toBe('status 141\n');
  });

  test('a full disk behind it', () => {
    const full = openSync('/dev/full', 'w');
    const ended = spawnSync(TSPOD, [...use.box.globalFlags, 'list'], {
      stdio: ['ignore', full, 'pipe'],
      encoding: 'utf8',
    });
    closeSync(full);
    expect(ended.status).toBe(254);
    expect(ended.stderr).toMatch(/^tspod: can't write to standard output: no space left[^\n]*\n$/);
  });
});

test('a damaged configuration is named, under --debug with a trace', async () => {
  mkdirSync(join(use.box.root, 'local/paths.d'), { recursive: true });
  writeFileSync(join(use.box.root, 'local/paths.d/x.json'), '{');
  const words = [
    `--local-config=${use.box.root}/local`,
    `--system-config=${use.box.root}/vendor`,
    'list',
  ];
  const ended = await bare(TSPOD, ...words);
  expect(ended.stderr).toMatch(/^tspod: [^\n]*paths\.d\/x\.json[^\n]*\n$/);
  expect((await bare(TSPOD, '--debug', ...words)).stderr).toMatch(/\n {4}at /);
});
