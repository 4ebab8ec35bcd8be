/**
 * The record of `run --result=FILE`: one JSON object that says how the run ended, so that a status of the
 * app's can be told from one of tspod's. It is written when the pod has ended, by the command that the
 * launcher executes then (stage0/commands/finish.ts), and when tspod itself fails, by src/main.ts.
 * docs/result.md documents the fields.
 */
import {
  closeSync,
  fsyncSync,
  openSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import type { Context } from '../src/context.ts';
import { errnoOf, systemError, type TspodError } from '../src/errors.ts';
import type { PodImageUse } from '../src/store/types.ts';
import { artifact } from '../src/sys/artifacts.ts';

/**
 * Why the run ended: the app ended by itself, was killed by a signal, could not be executed (its exec,
 * user or root file system is wrong), or tspod failed before there was anything to execute.
 */
export type EndReason = 'exited' | 'signaled' | 'launch-failed' | 'tspod-failed';

export interface RunResult {
  readonly version: 1;
  readonly uuid: string | null;
  readonly name: string | null;
  readonly flavor: string | null;
  readonly reason: EndReason;
  /** What the process that the user started exits with; null when a signal ends it. */
  readonly exitCode: number | null;
  /** e.g. "SIGKILL" */
  readonly signal: string | null;
  /** Only when tspod failed. */
  readonly error: { readonly code: string; readonly message: string } | null;
  readonly apps: readonly {
    readonly name: string;
    readonly exitCode: number | null;
    readonly image: Pick<PodImageUse, 'name' | 'id' | 'manifestDigest'>;
  }[];
  /** ISO 8601 */
  readonly createdAt: string | null;
  readonly startedAt: string | null;
  readonly finishedAt: string;
}

/** The record of a run that never came to a process. */
export function failedResult(error: TspodError): RunResult {
  return {
    version: 1,
    uuid: null,
    name: null,
    flavor: null,
    reason: 'tspod-failed',
    exitCode: error.exitStatus,
    signal: null,
    error: { code: error.code, message: error.line },
    apps: [],
    createdAt: null,
    startedAt: null,
    finishedAt: new Date().toISOString(),
  };
}

/**
 * Writes the record: aside, fsynced and renamed where FILE is or will be a regular file; straight into
 * it where it is a device or a pipe (`--result=/dev/fd/3`).
 */
export function writeResult(file: string, result: RunResult): void {
  const text = `${JSON.stringify(result)}\n`;
  try {
    if (isSpecialFile(file)) {
      writeFileSync(file, text);
      return;
    }
    const aside = join(dirname(file), `.tspod-result-${process.pid}`);
    try {
      const fd = openSync(aside, 'wx', 0o644);
      try {
        writeSync(fd, text);
        fsyncSync(fd);
      } finally {
        closeSync(fd);
      }
      renameSync(aside, file);
    } catch (error) {
      rmSync(aside, { force: true });
      throw error;
    }
  } catch (error) {
    throw systemError(
      `run: can't write the result to ${file}`,
      error,
      'give --result a file in a folder that exists',
    );
  }
}

/**
 * Tells before the pod starts what would only be found out when it has ended.
 * @throws TspodError when FILE can't be written where it is.
 */
export function checkResultFile(file: string): void {
  try {
    if (isSpecialFile(file)) return;
    const probe = join(dirname(file), `.tspod-result-${process.pid}`);
    closeSync(openSync(probe, 'wx', 0o644));
    rmSync(probe);
  } catch (error) {
    throw systemError(
      `run: can't write the result to ${file}`,
      error,
      'give --result a file in a folder that exists',
    );
  }
}

function isSpecialFile(file: string): boolean {
  try {
    const stat = statSync(file);
    if (stat.isDirectory()) throw Object.assign(new Error('is a folder'), { code: 'EISDIR' });
    return !stat.isFile();
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false;
    throw error;
  }
}

/** The value of `--result` in a command line that may be wrong elsewhere. */
export function resultFileIn(argv: readonly string[]): string | undefined {
  const end = argv.indexOf('--');
  const own = end < 0 ? argv : argv.slice(0, end);
  const index = own.findLastIndex(word => word === '--result' || word.startsWith('--result='));
  const word = own[index];
  if (word === undefined) return undefined;
  return word === '--result' ? own[index + 1] : word.slice('--result='.length);
}

/**
 * What the launcher executes when the app has ended, if anything must be done then. Without it nobody
 * outlives the app and the process becomes the app itself.
 */
export function finishCommand(
  context: Context,
  args: { readonly result?: string; readonly rm: boolean },
): ((uuid: string) => readonly string[]) | undefined {
  if (args.result === undefined && !args.rm) return undefined;
  return uuid => [
    process.execPath,
    artifact('tspod.js'),
    'finish',
    `--dir=${context.dir}`,
    ...(args.result === undefined ? [] : [`--result=${resolve(args.result)}`]),
    ...(args.rm ? ['--rm'] : []),
    uuid,
  ];
}
