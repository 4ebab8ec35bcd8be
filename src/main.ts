/**
 * The entry point: reads the global flags, calls the command, and is the only place that prints an error
 * and decides the exit status.
 */
import { globalContext } from '../stage0/args/context.ts';
import { GLOBAL_FLAGS, REFUSED_COMMANDS } from '../stage0/args/tables.ts';
import {
  flagDespiteErrors,
  type Grammar,
  type Tokens,
  tokenize,
} from '../stage0/args/tokenizer.ts';
import { failedResult, writeResult } from '../stage0/result.ts';
import { COMMANDS, type Command } from './cli.ts';
import { prefixed } from './context.ts';
import { EXIT_FAILURE, errnoOf, systemError, TspodError } from './errors.ts';

/** rkt's status for a command line without a command. */
const EXIT_MISSING_COMMAND = 2;
/** What a shell shows for a program that SIGPIPE ended. */
const EXIT_BROKEN_PIPE = 141;
/** The commands that have `--result`. */
const WITH_RESULT = ['run', 'run-prepared'];

const program = programName();
const argv = process.argv.slice(2);
const grammar: Grammar<Command> = {
  program,
  globals: GLOBAL_FLAGS,
  commands: COMMANDS,
  refused: REFUSED_COMMANDS,
};
/** Unknown until the command line is read. */
let command: string | undefined;
let debug = argv.includes('--debug');

process.on('uncaughtException', error => void failAtOnce(error));

try {
  process.exitCode = await main();
} catch (error) {
  process.exitCode = await fail(error);
}

async function main(): Promise<number> {
  // What everybody tries first.
  const wantsVersion = argv.length === 1 && argv[0] === '--version';
  const asked = tokenize(wantsVersion ? ['version'] : argv, grammar);
  if (asked.kind !== 'command' || printsItself(asked.tokens)) guardOutput();
  if (asked.kind === 'command') {
    const { tokens } = asked;
    command = tokens.command.path.split(' ').at(-1) ?? program;
    debug = tokens.globals.bool('debug');
    const context = await globalContext(program, command, tokens.globals);
    return tokens.command.run(context, tokens);
  }
  const { printHelp } = await import('../stage0/args/help.ts');
  if (asked.kind === 'help') return printHelp(COMMANDS, program, asked.words);
  process.stderr.write(`${program}: missing command\n`);
  await printHelp(COMMANDS, program, []);
  return EXIT_MISSING_COMMAND;
}

async function fail(error: unknown): Promise<number> {
  const known = error instanceof TspodError ? error : undefined;
  const line =
    known?.line ??
    `internal error: ${error instanceof Error ? error.message : String(error)}; please report it, with --debug for the details`;
  if (known !== undefined && command === undefined && program === 'rkt') sayAsCobra(known);
  else say(line);
  if (debug && error instanceof Error) {
    for (let cause: unknown = error; cause instanceof Error; cause = cause.cause) {
      process.stderr.write(`${cause.stack ?? cause.message}\n`);
    }
  }
  recordFailure(known ?? new TspodError('system', line, { cause: error }));
  return known?.exitStatus ?? EXIT_FAILURE;
}

function say(line: string): void {
  process.stderr.write(`${prefixed({ program, command: command ?? program }, line)}\n`);
}

/** What rkt says of a command line that it can't read: `Error: …`, and the way to the help as a line of its own. */
function sayAsCobra({ message, hint }: TspodError): void {
  const oneLine = (text: string) => text.replace(/\p{Cc}+/gu, ' ');
  process.stderr.write(`Error: ${oneLine(message)}\n`);
  if (hint !== undefined) {
    process.stderr.write(`${hint.charAt(0).toUpperCase()}${oneLine(hint.slice(1))}.\n`);
  }
}

/** `--result` is kept also where the command line could not be read as a whole. */
function recordFailure(error: TspodError): void {
  const file = flagDespiteErrors(argv, grammar, WITH_RESULT, 'result');
  if (file === undefined) return;
  try {
    writeResult(file, failedResult(error));
  } catch (second) {
    if (!(second instanceof TspodError)) throw second;
    if (second.line !== error.line) say(second.line);
  }
}

/** A run prints nothing itself but its plan, and to touch the stream would cost it milliseconds. */
function printsItself({ command: { path }, flags }: Tokens<Command>): boolean {
  return !WITH_RESULT.includes(path) || flags.bool('dry-run');
}

/** Standard output tells late that it could not be written: its reader has gone, the disk behind it is full. */
function guardOutput(): void {
  process.stdout.on('error', error => {
    // Whoever read it has seen enough. Node ignores the signal that would have ended us.
    if (errnoOf(error) === 'EPIPE') process.exit(EXIT_BROKEN_PIPE);
    void failAtOnce(systemError("can't write to standard output", error, 'see where it goes'));
  });
}

async function failAtOnce(error: unknown): Promise<never> {
  process.exit(await fail(error));
}

/** The starter passes on the name that the tool was called by. */
function programName(): 'tspod' | 'rkt' {
  return process.env['TSPOD_ARGV0']?.split('/').at(-1) === 'rkt' ? 'rkt' : 'tspod';
}
