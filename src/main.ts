/**
 * The entry point: reads the global flags, calls the command, and is the only place that prints an error
 * and decides the exit status.
 */
import { globalContext } from '../stage0/args/context.ts';
import { GLOBAL_FLAGS, REFUSED_COMMANDS } from '../stage0/args/tables.ts';
import { tokenize } from '../stage0/args/tokenizer.ts';
import { failedResult, resultFileIn, writeResult } from '../stage0/result.ts';
import { COMMANDS } from './cli.ts';
import { messagePrefix } from './context.ts';
import { EXIT_FAILURE, TspodError } from './errors.ts';

/** rkt's status for a command line without a command. */
const EXIT_MISSING_COMMAND = 2;

const program = programName();
const argv = process.argv.slice(2);
let command: string = program;

try {
  process.exitCode = await main();
} catch (error) {
  process.exitCode = fail(error);
}

async function main(): Promise<number> {
  refuseAbsentCommand();
  const asked = tokenize(argv, GLOBAL_FLAGS, COMMANDS, program);
  if (asked.kind === 'command') {
    const { tokens } = asked;
    command = tokens.command.path.split(' ').at(-1) ?? program;
    const context = await globalContext(program, command, tokens.globals);
    return tokens.command.run(context, tokens);
  }
  const { printHelp } = await import('../stage0/args/help.ts');
  if (asked.kind === 'help') return printHelp(COMMANDS, program, asked.words);
  process.stderr.write(`${program}: missing command\n`);
  await printHelp(COMMANDS, program, []);
  return EXIT_MISSING_COMMAND;
}

function refuseAbsentCommand(): void {
  const word = argv.find(candidate => !candidate.startsWith('-'));
  const why = word === undefined ? undefined : REFUSED_COMMANDS.get(word);
  if (why !== undefined) throw new TspodError('unsupported', `${word}: ${why}`);
}

function fail(error: unknown): number {
  const known = error instanceof TspodError ? error : undefined;
  const line =
    known?.line ??
    `internal error: ${error instanceof Error ? error.message : String(error)}; please report it, with --debug for the details`;
  process.stderr.write(`${messagePrefix({ program, command })}: ${line}\n`);
  if (argv.includes('--debug') && error instanceof Error) {
    for (let cause: unknown = error; cause instanceof Error; cause = cause.cause) {
      process.stderr.write(`${cause.stack ?? cause.message}\n`);
    }
  }
  // `finish` has a flag of this name and writes the record of its pod.
  if (command !== 'finish') {
    recordFailure(known ?? new TspodError('system', line, { cause: error }));
  }
  return known?.exitStatus ?? EXIT_FAILURE;
}

/** `--result` is kept also where the command line could not be read as a whole. */
function recordFailure(error: TspodError): void {
  const file = resultFileIn(argv);
  if (file === undefined) return;
  try {
    writeResult(file, failedResult(error));
  } catch (second) {
    if (!(second instanceof TspodError)) throw second;
    if (second.line !== error.line)
      process.stderr.write(`${messagePrefix({ program, command })}: ${second.line}\n`);
  }
}

/** The starter passes on the name that the tool was called by. */
function programName(): 'tspod' | 'rkt' {
  return process.env['TSPOD_ARGV0']?.split('/').at(-1) === 'rkt' ? 'rkt' : 'tspod';
}
