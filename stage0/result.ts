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
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import type { Context } from '../src/context.ts';
import { systemError, type TspodError } from '../src/errors.ts';
import { wantsNetworks } from '../src/pod/net-request.ts';
import type { PodImageUse } from '../src/store/types.ts';
import { artifact } from '../src/sys/artifacts.ts';

/**
 * Why the run ended: the app ended by itself, was killed by a signal, could not be executed (its exec,
 * user or root file system is wrong), its machine failed under it (flavor kvm), or tspod failed before there was anything to execute.
 */
export type EndReason = 'exited' | 'signaled' | 'launch-failed' | 'machine-failed' | 'tspod-failed';

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
  /** Only when tspod or the pod's machine failed. */
  readonly error: { readonly code: string; readonly message: string } | null;
  readonly apps: readonly {
    readonly name: string;
    readonly exitCode: number | null;
    /** The kernel killed a process of it for want of memory. */
    readonly oomKilled: boolean;
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
 * it where it is a device, a named pipe, or this process's own output (`--result=/dev/stderr`).
 */
export function writeResult(file: string, result: RunResult): void {
  const text = `${JSON.stringify(result)}\n`;
  try {
    const target = replaceable(file);
    if (target === undefined) {
      // By number, not by name: a socket (the journal's) can't be opened again.
      writeFileSync(ownOutput(file) ?? file, text, { flag: 'a' });
      return;
    }
    const aside = asideOf(target);
    try {
      const fd = openSync(aside, 'wx', 0o644);
      try {
        writeFileSync(fd, text);
        fsyncSync(fd);
      } finally {
        closeSync(fd);
      }
      renameSync(aside, target);
    } catch (error) {
      rmSync(aside, { force: true });
      throw error;
    }
  } catch (error) {
    throw unwritable(file, error);
  }
}

/**
 * Tells before the pod starts what would only be found out when it has ended.
 * @throws TspodError when FILE can't be written where it is.
 */
export function checkResultFile(file: string): void {
  try {
    const target = replaceable(file);
    if (target === undefined) return;
    const probe = asideOf(target);
    closeSync(openSync(probe, 'wx', 0o644));
    rmSync(probe);
  } catch (error) {
    throw unwritable(file, error);
  }
}

function unwritable(file: string, error: unknown): TspodError {
  // Without the name of the file aside, which nobody gave.
  if (error instanceof Error) error.message = error.message.replace(/, \w+ '.*$/, '');
  return systemError(
    `run: can't write the result to ${file}`,
    error,
    'give --result a file in a folder that exists',
  );
}

/**
 * The regular file that may be replaced by another one; undefined for what must be written to itself. A
 * file below /dev or /proc may be a regular one by a link to this process's output: it stays what it is.
 */
function replaceable(file: string): string | undefined {
  if (file === '') throw new Error('it has no name');
  const path = resolve(file);
  const descriptor = /^\/(?:dev|proc\/[^/]+)\/fd\/(\d+)$/.exec(path)?.[1];
  if (descriptor !== undefined && Number(descriptor) > 2) {
    // Nobody keeps it open until the app has ended.
    throw new Error(`descriptor ${descriptor} is not passed on to the pod`);
  }
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat?.isDirectory()) throw new Error('it is a folder');
  if (/^\/(?:dev\/(?!shm\/)|proc\/)/.test(path)) {
    if (stat === undefined) throw new Error('it does not exist');
    return undefined;
  }
  if (stat !== undefined && !stat.isFile()) return undefined;
  return stat === undefined ? path : realpathSync(path);
}

/** 1 or 2 when the path means this process's standard output or standard error. */
function ownOutput(file: string): number | undefined {
  const path = resolve(file);
  if (path === '/dev/stdout' || /^\/(?:dev|proc\/self)\/fd\/1$/.test(path)) return 1;
  if (path === '/dev/stderr' || /^\/(?:dev|proc\/self)\/fd\/2$/.test(path)) return 2;
  return undefined;
}

function asideOf(file: string): string {
  return join(dirname(file), `.tspod-result-${process.pid}-${Date.now().toString(36)}`);
}

/** What the launcher executes when the app has ended, if anything must be done then. */
export type Finish = (uuid: string, net: string | undefined) => readonly string[] | undefined;

/** Without it nobody outlives the app and the process becomes the app itself. */
export function finishCommand(
  context: Context,
  args: { readonly result?: string; readonly rm: boolean },
): Finish {
  return (uuid, net) => {
    if (args.result === undefined && !args.rm && !wantsNetworks(net)) return undefined;
    return [
      process.execPath,
      artifact('tspod.js'),
      'finish',
      `--dir=${context.dir}`,
      ...(args.result === undefined ? [] : [`--result=${resolve(args.result)}`]),
      ...(args.rm ? ['--rm'] : []),
      uuid,
    ];
  };
}
