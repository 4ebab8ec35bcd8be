/** The tokeniser: what binds to what, and that no command line at all brings it out of its contract. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { COMMANDS, type Command } from '../../src/cli.ts';
import { TspodError } from '../../src/errors.ts';
import type { FlagTable } from '../../stage0/args/flags.ts';
import { GLOBAL_FLAGS, REFUSED_COMMANDS } from '../../stage0/args/tables.ts';
import {
  type Asked,
  flagDespiteErrors,
  type Grammar,
  type Tokens,
  tokenize,
} from '../../stage0/args/tokenizer.ts';
import { cases } from '../support/fuzz.ts';

const GRAMMAR: Grammar<Command> = {
  program: 'tspod',
  globals: GLOBAL_FLAGS,
  commands: COMMANDS,
  refused: REFUSED_COMMANDS,
};

function ask(...argv: readonly string[]): Asked<Command> {
  return tokenize(argv, GRAMMAR);
}

function read(...argv: readonly string[]): Tokens<Command> {
  const asked = ask(...argv);
  if (asked.kind !== 'command') throw new Error(`asked for ${asked.kind}`);
  return asked.tokens;
}

function refusal(...argv: readonly string[]): TspodError {
  try {
    ask(...argv);
  } catch (error) {
    if (error instanceof TspodError) return error;
    throw error;
  }
  throw new Error(`${argv.join(' ')} was not refused`);
}

describe('the command', () => {
  test('flags of all commands stand before or after it', () => {
    for (const argv of [
      ['--debug', '--dir=/x', 'list', '--full'],
      ['--full', 'list', '--dir', '/x', '--debug'],
      ['list', '--debug=true', '--full=1', '--dir', '/x'],
      ['--dir', '/x', '--full', '--debug', 'list'],
    ]) {
      const { command, globals, flags } = read(...argv);
      expect(command.path).toBe('list');
      expect(globals.text('dir')).toBe('/x');
      expect(globals.bool('debug')).toBe(true);
      expect(flags.bool('full')).toBe(true);
    }
  });

  test('flags of run before its name bind to the pod', () => {
    const { flags, images } = read('--net=host', '--dns', '1.1.1.1', 'run', 'a');
    expect(flags.text('net')).toBe('host');
    expect(flags.list('dns')).toEqual(['1.1.1.1']);
    expect(images.map(image => image.reference)).toEqual(['a']);
  });

  test.each([
    ['l', 'list'],
    ['st', 'status|stop'],
    ['sta', 'status'],
    ['run', 'run'],
    ['run-', 'run-prepared'],
    ['ru', 'run|run-prepared'],
    ['f', 'fetch'],
    ['g', 'gc'],
    ['im li', 'image list'],
    ['image g', 'image gc'],
    ['fini', ''],
  ])('the beginning "%s" means %s', (words, meant) => {
    const [only, ...others] = meant.split('|');
    if (meant !== '' && others.length === 0) {
      expect(read(...words.split(' ')).command.path).toBe(only);
      return;
    }
    const error = refusal(...words.split(' '));
    expect(error.message).toBe(`unknown command "${words}" for "tspod"`);
    for (const other of others) expect(error.hint).toContain(other);
    expect(error.hint).toContain("run 'tspod --help' for usage");
  });

  test('a value is not taken for it', () => {
    expect(read('--dir', 'run', 'list').command.path).toBe('list');
    expect(read('--dir', 'app', 'list').command.path).toBe('list');
    expect(read('--grace-period', 'list', 'gc').command.path).toBe('gc');
    expect(read('--net', 'run', 'a').command.path).toBe('run');
  });

  test('missing, half, unknown', () => {
    expect(ask()).toEqual({ kind: 'missing' });
    expect(ask('--debug')).toEqual({ kind: 'missing' });
    expect(ask('--', 'run')).toEqual({ kind: 'missing' });
    expect(refusal('image').message).toBe('missing subcommand for "tspod image"');
    expect(refusal('bogus').message).toBe('unknown command "bogus" for "tspod"');
    expect(refusal('image', 'bogus').message).toBe('unknown command "bogus" for "tspod image"');
    expect(refusal('').message).toBe('unknown command "" for "tspod"');
    expect(refusal('__proto__').message).toContain('unknown command');
  });

  test.each([...REFUSED_COMMANDS])('rkt’s %s is refused by name', (path, why) => {
    const error = refusal(...path.split(' '), 'more', '--flags');
    expect(error).toMatchObject({ code: 'unsupported', message: `${path}: ${why}` });
  });

  test('a flag of two commands takes a word in both or in neither', () => {
    // otherwise the command's name could not be found behind a flag that stands before it
    const takes = new Map<string, boolean>();
    for (const { flags } of [...COMMANDS, { flags: GLOBAL_FLAGS }]) {
      for (const [name, spec] of Object.entries(flags)) {
        const word = spec.kind === 'text' || spec.kind === 'list';
        expect(takes.get(name) ?? word, `--${name}`).toBe(word);
        takes.set(name, word);
      }
    }
  });
});

describe('flags', () => {
  test.each(['--full', '--full=true', '--full=1', '--full=T'])('%s', flag => {
    expect(read('list', flag).flags.bool('full')).toBe(true);
  });

  test.each(['--full=false', '--full=0', '--full=F', '--full --full=false'])('%s', flags => {
    expect(read('list', ...flags.split(' ')).flags.bool('full')).toBe(false);
  });

  test('what is no truth value is refused where it is read', () => {
    expect(refusal('list', '--full=maybe').message).toBe('--full: "maybe" is not true or false');
    expect(refusal('list', '--debug=').message).toContain('--debug');
  });

  test('a bool takes no word', () => {
    expect(read('list', '--full', 'false').positionals).toEqual(['false']);
  });

  test('optional values come with "=" only', () => {
    expect(read('run', '--net', 'a').flags.text('net')).toBe('default');
    expect(read('run', '--net=none', 'a').flags.text('net')).toBe('none');
    expect(read('run', 'a').flags.text('net')).toBeUndefined();
    expect(read('status', 'x').flags.text('wait')).toBe('false');
    expect(read('status', '--wait', 'x').flags.text('wait')).toBe('true');
    expect(read('status', '--wait=500ms', 'x').flags.text('wait')).toBe('500ms');
    expect(read('status', 'x', '--wait-ready').flags.text('wait-ready')).toBe('true');
  });

  test('of a text the last one counts, of a list each one', () => {
    const { flags } = read('run', '--hostname=a', '--hostname', 'b', '--dns=1', '--dns=2', 'i');
    expect(flags.text('hostname')).toBe('b');
    expect(flags.list('dns')).toEqual(['1', '2']);
  });

  test('values may begin with a dash, be empty, hold "="', () => {
    const { images } = read('run', 'a', '--exec', '--help', '--environment=A=B=C', '--user=');
    expect(images[0]?.flags.text('exec')).toBe('--help');
    expect(images[0]?.flags.list('environment')).toEqual(['A=B=C']);
    expect(images[0]?.flags.text('user')).toBe('');
  });

  test('a missing value', () => {
    expect(refusal('run', 'a', '--exec').message).toBe('flag needs an argument: --exec');
    expect(refusal('list', '--dir').message).toBe('flag needs an argument: --dir');
  });

  test.each([
    ['--bogus', 'unknown flag: --bogus'],
    ['--bogus=x', 'unknown flag: --bogus'],
    ['--__proto__', 'unknown flag: --__proto__'],
    ['--constructor', 'unknown flag: --constructor'],
    ['---', 'unknown flag: ---'],
    ['--=x', 'bad flag syntax: --=x'],
    ['-x', 'unknown shorthand flag: "x" in -x'],
    ['-full', 'unknown shorthand flag: "f" in -full'],
  ])('%s: %s', (flag, message) => {
    expect(refusal('list', flag)).toMatchObject({
      code: 'usage',
      message,
      hint: "run 'tspod list --help' for usage",
    });
  });

  test('behind an image the hint says where the app’s own arguments go', () => {
    expect(refusal('run', 'image', '-c').hint).toContain('put "--" before');
    expect(refusal('run', '-c', 'image').hint).not.toContain('put "--" before');
  });

  test('a flag of another command is unknown', () => {
    expect(refusal('list', '--mark-only').message).toBe('unknown flag: --mark-only');
    expect(refusal('prepare', '--net=host', 'a').message).toBe('unknown flag: --net');
    expect(refusal('prepare', '--uuid-file=f', 'a').message).toBe('unknown flag: --uuid-file');
  });

  test('every flag of rkt’s that this version lacks is refused by its name', () => {
    const seen: string[] = [];
    for (const { path, flags, images, hidden } of COMMANDS) {
      if (hidden) continue;
      const table: FlagTable = { ...flags, ...GLOBAL_FLAGS };
      for (const [name, spec] of Object.entries(table)) {
        if (spec.refused === undefined) continue;
        const given = spec.kind === 'bool' ? `--${name}` : `--${name}=x`;
        const error = refusal(...path.split(' '), ...(images ? ['a'] : []), given);
        expect(error).toMatchObject({ code: 'unsupported', message: `--${name}: ${spec.refused}` });
        seen.push(name);
      }
    }
    expect(seen).toContain('mds-register');
  });

  test('a refused switch may be spelt out as off', () => {
    expect(read('run', '--mds-register=false', 'a').images).toHaveLength(1);
    expect(read('--trust-keys-from-https=false', 'list').command.path).toBe('list');
  });

  test('rkt’s older names', () => {
    const { images } = read('run', 'a', '--cap-retain=CAP_KILL', '--caps-retain=CAP_CHOWN');
    expect(images[0]?.flags.list('caps-retain')).toEqual(['CAP_KILL', 'CAP_CHOWN']);
  });
});

describe('images', () => {
  test('a flag binds to the image before it', () => {
    const pod = 'run --volume=v,kind=empty --mount=volume=v,target=/all';
    const one = 'a --name=one --mount=volume=v,target=/a -- -c --name=x ---';
    const { images, flags } = read(...`${pod} ${one} b --name=two -- y`.split(' '));
    expect(flags.list('volume')).toEqual(['v,kind=empty']);
    expect(flags.list('mount')).toEqual(['volume=v,target=/all']);
    expect(images).toMatchObject([
      { reference: 'a', appArgs: ['-c', '--name=x'] },
      { reference: 'b', appArgs: ['y'] },
    ]);
    expect(images.map(image => image.flags.text('name'))).toEqual(['one', 'two']);
    expect(images.map(image => image.flags.list('mount'))).toEqual([['volume=v,target=/a'], []]);
  });

  test('flags of the pod may stand behind an image', () => {
    expect(read('run', 'a', '--hostname=h', '--rm', '--', 'x').flags.text('hostname')).toBe('h');
    expect(read('run', 'a', '--', 'x', '---', '--rm').flags.bool('rm')).toBe(true);
  });

  test('arguments may be anything, "--" and "---" alone excepted', () => {
    const words = ['', '-', '--rm', '--help', '----', 'a b', '-h', '\n'];
    expect(read('run', 'a', '--', ...words).images[0]?.appArgs).toEqual(words);
    expect(read('run', 'a', '--', 'x', '--', 'y').images[0]?.appArgs).toEqual(['x', '--', 'y']);
    expect(read('run', 'a', '--').images[0]?.appArgs).toEqual([]);
  });

  test.each(
    COMMANDS.filter(({ images }) => images).flatMap(({ path, flags }) =>
      Object.entries(flags)
        .filter(([, spec]) => spec.image === 'only' && spec.refused === undefined)
        .map(([name, spec]) => [path, spec.kind === 'bool' ? `--${name}` : `--${name}=x`] as const),
    ),
  )('%s %s must follow an image', (path, flag) => {
    const name = flag.split('=')[0];
    const words = path.split(' ');
    expect(refusal(...words, flag, 'a').message).toBe(`${name} must follow an image`);
    expect(refusal(flag, ...words, 'a').message).toBe(`${name} must follow an image`);
  });

  test('arguments want an image, and come once', () => {
    expect(refusal('run', '--', 'x').message).toBe('an image is required before any app arguments');
    expect(refusal('run', 'a', '--', 'x', '---', '--', 'y').message).toBe(
      'only one set of app arguments allowed per image',
    );
  });
});

describe('enter passes the command on', () => {
  test.each([
    ['enter pod ls -l --app=x --help --', 'pod ls -l --app=x --help --', undefined],
    ['enter --app=x pod ls', 'pod ls', 'x'],
    ['enter pod --app=x ls --app=y', 'pod ls --app=y', 'x'],
    ['enter pod -- -x ls', 'pod -x ls', undefined],
    ['enter --uuid-file=f ls -l', 'ls -l', undefined],
    ['enter --uuid-file f --app x ls --app y', 'ls --app y', 'x'],
    ['--app=x enter pod', 'pod', 'x'],
  ])('%s', (line, words, app) => {
    const tokens = read(...line.split(' '));
    expect(tokens.positionals).toEqual(words.split(' '));
    expect(tokens.flags.text('app')).toBe(app);
  });
});

describe('help', () => {
  test.each([
    [['--help'], []],
    [['-h'], []],
    [['--help', 'run'], ['run']],
    [['run', '--help'], ['run']],
    [['run', 'a', '-h'], ['run']],
    [['run', 'a', '--', 'x', '---', '--help'], ['run']],
    [['image', '--help'], ['image']],
    [
      ['image', 'list', '--help'],
      ['image', 'list'],
    ],
    [
      ['im', 'l', '--help'],
      ['image', 'list'],
    ],
    [['enter', '--help'], ['enter']],
    [['enter', 'pod', '--help'], ['enter']],
  ])('%j', (argv, words) => {
    expect(ask(...argv)).toEqual({ kind: 'help', words });
  });

  test('not when it is a value, an argument of an app, or switched off', () => {
    expect(ask('run', 'a', '--exec', '--help').kind).toBe('command');
    expect(ask('run', 'a', '--', '--help').kind).toBe('command');
    expect(ask('list', '--help=false').kind).toBe('command');
    expect(ask('enter', 'pod', 'ls', '--help').kind).toBe('command');
  });
});

describe('a flag of a command line that is wrong elsewhere', () => {
  const result = (...argv: readonly string[]) =>
    flagDespiteErrors(argv, GRAMMAR, ['run', 'run-prepared'], 'result');

  test.each([
    [['run', '--result=r', '--bogus', 'a'], 'r'],
    [['run', '--bogus', '--result', 'r'], 'r'],
    [['--result=r', 'run', '--net=x', '--rm=maybe'], 'r'],
    [['run', 'a', '--result=r', '--', '--result=app'], 'r'],
    [['run', 'a', '--', '--result=app'], undefined],
    [['run', '--', '--result=app'], undefined],
    [['run', 'a', '--', 'x', '---', '--result=r'], 'r'],
    [['run', 'a', '--exec', '--result=value'], undefined],
    [['run', '--result'], undefined],
    [['run-prepared', '--result=a', '--result=b'], 'b'],
    [['list', '--result=r'], undefined],
    [['bogus', '--result=r'], undefined],
    [['--result=r'], undefined],
  ])('%j', (argv, expected) => {
    expect(result(...argv)).toBe(expected);
  });
});

describe('properties', () => {
  const known = COMMANDS.flatMap(({ path, flags }) => [
    ...path.split(' '),
    ...Object.keys(flags).flatMap(name => [`--${name}`, `--${name}=v`, `--${name}=true`]),
  ]);
  const word = fc.oneof(
    { weight: 6, arbitrary: fc.constantFrom(...known, '--debug', '--dir', '--dir=/x', '-h') },
    {
      weight: 2,
      arbitrary: fc.constantFrom('--', '---', '-', '', 'a', 'docker://x/y', '--=', '-x'),
    },
    { weight: 1, arbitrary: fc.string() },
    { weight: 1, arbitrary: fc.string().map(text => `--${text}`) },
  );

  test('every command line gives an answer or a refusal of one line', () => {
    fc.assert(
      fc.property(fc.array(word, { maxLength: 12 }), argv => {
        try {
          const asked = ask(...argv);
          expect(['command', 'help', 'missing']).toContain(asked.kind);
        } catch (error) {
          if (!(error instanceof TspodError)) throw error;
          expect(['usage', 'unsupported']).toContain(error.code);
          expect(error.exitStatus).toBe(254);
          expect(error.line).not.toMatch(/\p{Cc}/u);
        }
        flagDespiteErrors(argv, GRAMMAR, ['run'], 'result');
      }),
      { numRuns: cases(5000) },
    );
  });

  test('no word is lost: images, arguments and flags of a run come back as they went in', () => {
    const plain = fc.string({ minLength: 1 }).filter(text => !text.startsWith('-'));
    const argument = fc.string().filter(text => text !== '---');
    const image = fc.record({
      reference: plain,
      environment: fc.array(fc.string()),
      appArgs: fc.option(fc.array(argument)),
    });
    fc.assert(
      fc.property(
        fc.array(image, { minLength: 1, maxLength: 4 }),
        fc.boolean(),
        (wanted, spaced) => {
          const argv = wanted.flatMap(({ reference, environment, appArgs }) => [
            reference,
            ...environment.flatMap(value =>
              spaced ? ['--environment', value] : [`--environment=${value}`],
            ),
            ...(appArgs === null ? [] : ['--', ...appArgs, '---']),
          ]);
          const { images } = read('run', ...argv);
          expect(
            images.map(({ reference, flags, appArgs }) => ({
              reference,
              environment: flags.list('environment'),
              appArgs,
            })),
          ).toEqual(wanted.map(entry => ({ ...entry, appArgs: entry.appArgs ?? [] })));
        },
      ),
    );
  });

  test('a global flag means the same wherever it stands before "--"', () => {
    const argv = ['run', '--rm', 'a', '--name=x', '--user', '0', '--', 'x'];
    for (const place of [0, 1, 2, 3, 4, 6]) {
      const moved = argv.toSpliced(place, 0, '--dir=/y', '--offline');
      const { globals, images } = read(...moved);
      expect(globals.text('dir')).toBe('/y');
      expect(globals.bool('offline')).toBe(true);
      expect(images).toMatchObject([{ reference: 'a', appArgs: ['x'] }]);
    }
  });
});
