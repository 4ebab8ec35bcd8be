/**
 * Help pages, in rkt's layout: NAME, USAGE, DESCRIPTION or COMMANDS from the command table, OPTIONS and
 * GLOBAL OPTIONS laid out by yargs. yargs is imported here only: on the way of `run` it would cost as much
 * as all the rest. It gets the flags alone, because it wraps and trims the text around them.
 */
import '../hot.ts';
import type { Options } from 'yargs';
import { TspodError } from '../../src/errors.ts';
import type { FlagSpec, FlagTable } from './flags.ts';
import { GLOBAL_FLAGS } from './tables.ts';
import type { CommandShape } from './tokenizer.ts';

export interface HelpCommand extends CommandShape {
  readonly usage: string;
  readonly about: string;
  readonly more?: string;
  /** rkt has it for who asks for it, and not in its list. */
  readonly experiment?: boolean;
}

const ABOUT = 'a daemonless, pod-oriented, staged container runtime';
const MAX_WIDTH = 100;
/** Below this nothing could be wrapped; a terminal that says 0 columns does not know. */
const MIN_WIDTH = 40;
const INDENT = '  ';

/**
 * Prints the page of the command that `words` name; of the whole tool without words.
 * @throws TspodError 'usage' for an unknown command
 */
export async function printHelp(
  commands: readonly HelpCommand[],
  program: string,
  words: readonly string[],
): Promise<number> {
  process.stdout.write(await helpPage(commands, program, words, pageWidth()));
  return 0;
}

/** The page's text; every line is at most `width` wide if its words are. */
export async function helpPage(
  commands: readonly HelpCommand[],
  program: string,
  words: readonly string[],
  width: number,
): Promise<string> {
  const path = words.join(' ');
  const whole = [program, ...words].join(' ');
  const command = commands.find(candidate => candidate.path === path);
  const group = commands.filter(
    candidate =>
      !candidate.hidden &&
      (path === ''
        ? !(program === 'rkt' && candidate.experiment)
        : candidate.path.startsWith(`${path} `)),
  );
  if (command === undefined && group.length === 0) {
    throw new TspodError('usage', `unknown command ${JSON.stringify(path)} for "${program}"`, {
      hint: `run '${program} --help' for usage`,
    });
  }
  const sections =
    command === undefined
      ? [
          section('NAME:', wrap(`${whole} - ${ABOUT}`, width)),
          section('USAGE:', wrap(`${whole} COMMAND [FLAGS] [ARGS...]`, width)),
          section('COMMANDS:', commandLines(group, width)),
        ]
      : [
          section('NAME:', wrap(`${whole} - ${command.about}`, width)),
          section('USAGE:', wrap(`${whole} ${command.usage}`, width)),
          section('DESCRIPTION:', paragraphs(command.more ?? '', width)),
          await options('OPTIONS:', command.flags, width),
        ];
  sections.push(await options('GLOBAL OPTIONS:', GLOBAL_FLAGS, width));
  return `${sections.filter(text => text !== '').join('\n\n')}\n`;
}

function pageWidth(): number {
  const columns = process.stdout.columns ?? MAX_WIDTH;
  return columns < MIN_WIDTH ? MAX_WIDTH : Math.min(MAX_WIDTH, columns);
}

function section(title: string, lines: readonly string[]): string {
  return lines.length === 0 ? '' : [title, ...lines].join('\n');
}

function paragraphs(text: string, width: number): readonly string[] {
  const parts = text.split('\n').map(line => line.trim());
  return text === '' ? [] : parts.flatMap(part => (part === '' ? [''] : wrap(part, width)));
}

function commandLines(commands: readonly HelpCommand[], width: number): readonly string[] {
  const longest = Math.max(...commands.map(({ path }) => path.length));
  return commands.flatMap(({ path, about }) => {
    const hanging = INDENT + ' '.repeat(longest + INDENT.length);
    const [first = '', ...more] = wrap(about, width, hanging);
    return [`${INDENT}${path.padEnd(longest)}${first.slice(INDENT.length + longest)}`, ...more];
  });
}

/** Lines of at most `width`, each behind `indent`; a longer word has a line of its own. */
function wrap(text: string, width: number, indent: string = INDENT): readonly string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(/\s+/).filter(part => part !== '')) {
    if (line !== '' && indent.length + line.length + 1 + word.length > width) {
      lines.push(indent + line);
      line = word;
    } else {
      line = line === '' ? word : `${line} ${word}`;
    }
  }
  if (line !== '') lines.push(indent + line);
  return lines;
}

/** What yargs makes of a table of flags: a section with its title. */
async function options(title: string, flags: FlagTable, width: number): Promise<string> {
  const shown = Object.entries(flags).filter(
    ([, spec]) => !spec.hidden && spec.refused === undefined,
  );
  if (shown.length === 0) return '';
  const { default: yargs } = await import('./yargs.ts');
  const page = yargs([])
    .help(false)
    .version(false)
    .exitProcess(false)
    .parserConfiguration({
      'boolean-negation': false,
      'dot-notation': false,
      'camel-case-expansion': false,
    })
    .wrap(width)
    .options(Object.fromEntries(shown.map(([name, spec]) => [name, option(spec, title)])));
  return (await page.getHelp()).trim();
}

function option(spec: FlagSpec, group: string): Options {
  return {
    group,
    describe: spec.help,
    ...(spec.kind === 'list'
      ? { type: 'string', array: true }
      : { type: spec.kind === 'bool' ? 'boolean' : 'string' }),
    ...(spec.default === undefined || spec.default === ''
      ? {}
      : { defaultDescription: spec.default, default: spec.default }),
  };
}
