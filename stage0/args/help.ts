/**
 * Help pages, in rkt's layout (NAME, USAGE, DESCRIPTION, OPTIONS, GLOBAL OPTIONS), laid out by yargs from the
 * command table. yargs is imported here only: on the way of `run` it would cost as much as all the rest.
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
  readonly hidden?: boolean;
}

const ABOUT = 'a daemonless, pod-oriented, staged container runtime';
const OPTIONS = 'OPTIONS:';
const GLOBAL_OPTIONS = 'GLOBAL OPTIONS:';
const MAX_WIDTH = 100;

/**
 * Prints the page of the command that `words` name; of the whole tool without words.
 * @throws TspodError 'usage' for an unknown command
 */
export async function printHelp(
  commands: readonly HelpCommand[],
  program: string,
  words: readonly string[],
): Promise<number> {
  const { default: yargs } = await import('yargs');
  const path = words.join(' ');
  const command = commands.find(candidate => candidate.path === path);
  const group = commands.filter(
    candidate => !candidate.hidden && (path === '' || candidate.path.startsWith(`${path} `)),
  );
  if (command === undefined && group.length === 0) {
    throw new TspodError('usage', `unknown command ${JSON.stringify(path)} for "${program}"`, {
      hint: `run '${program} --help' for usage`,
    });
  }
  const page = yargs([])
    .scriptName(program)
    .help(false)
    .version(false)
    .exitProcess(false)
    .parserConfiguration({
      'boolean-negation': false,
      'dot-notation': false,
      'camel-case-expansion': false,
    })
    .wrap(Math.min(MAX_WIDTH, process.stdout.columns ?? MAX_WIDTH));
  if (command === undefined) {
    page.usage(
      section('NAME:', [`${path === '' ? program : `${program} ${path}`} - ${ABOUT}`]) +
        section('USAGE:', [
          `${program}${path === '' ? '' : ` ${path}`} COMMAND [FLAGS] [ARGS...]`,
        ]) +
        section('COMMANDS:', commandLines(group)),
    );
  } else {
    page.usage(
      section('NAME:', [`${program} ${path} - ${command.about}`]) +
        section('USAGE:', [`${program} ${path} ${command.usage}`.trimEnd()]) +
        (command.more === undefined ? '' : section('DESCRIPTION:', command.more.split('\n'))),
    );
    page.options(describe(command.flags, OPTIONS));
  }
  page.options(describe(GLOBAL_FLAGS, GLOBAL_OPTIONS));
  process.stdout.write(`${(await page.getHelp()).trimEnd()}\n`);
  return 0;
}

function section(title: string, lines: readonly string[]): string {
  return `${title}\n${lines.map(line => (line === '' ? '' : `  ${line}`)).join('\n')}\n\n`;
}

function commandLines(commands: readonly HelpCommand[]): readonly string[] {
  const width = Math.max(...commands.map(({ path }) => path.length));
  return commands.map(({ path, about }) => `${path.padEnd(width)}  ${about}`);
}

function describe(flags: FlagTable, group: string): Record<string, Options> {
  const shown = Object.entries(flags).filter(
    ([, spec]) => !spec.hidden && spec.refused === undefined,
  );
  return Object.fromEntries(shown.map(([name, spec]) => [name, option(spec, group)]));
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
