/**
 * What the launcher executes when a pod that was started with `--result` or `--rm` has ended: write the
 * record, remove the pod. Not for people; absent from the help. The launcher has let go of the pod's lock
 * by then and ignores this command's exit status: the app's own is what counts.
 */
import { existsSync, readFileSync, statSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { type Context, warn } from '../../src/context.ts';
import { EXIT_FAILURE, errnoOf, reasonOf, TspodError } from '../../src/errors.ts';
import { readFlavorName, readPod, STATUS_FOLDER } from '../../src/pod/folder.ts';
import { lockPod, type PodView, viewPod } from '../../src/pod/lifecycle.ts';
import { ranOutOfMemory, readExitCodes } from '../../src/pod/report.ts';
import { tearDownNetworks } from '../net/tear-down.ts';
import { type RunResult, writeResult } from '../result.ts';
import { removePod } from './rm.ts';

/** As a shell tells a death by a signal. */
const SIGNALED = 128;

export interface FinishArgs {
  readonly uuid: string;
  readonly result: string | undefined;
  readonly rm: boolean;
  /** From the launcher: `exited N`, `signaled N`, `failed N`. */
  readonly kind: string;
  readonly number: number;
}

export async function run(context: Context, args: FinishArgs): Promise<number> {
  if (args.result !== undefined) {
    const { name, flavor, apps, createdAt, startedAt, neverStarted, machine } = aboutPod(
      context,
      args,
    );
    const end =
      machine === undefined
        ? neverStarted
          ? aboutEnd({ ...args, kind: 'failed' })
          : aboutEnd(args)
        : ({ reason: 'machine-failed', exitCode: EXIT_FAILURE, signal: null } as const);
    writeResult(args.result, {
      version: 1,
      uuid: args.uuid,
      name,
      flavor,
      ...end,
      error: machine === undefined ? null : { code: 'machine', message: machine },
      apps,
      createdAt,
      startedAt,
      finishedAt: new Date().toISOString(),
    });
  }
  // What gc does while we look at it, it does.
  const ended = lockPod(context.dir, args.uuid);
  if (ended !== undefined) {
    try {
      tearDownNetworks(args.uuid, ended.dir);
    } finally {
      ended.close();
    }
  }
  // without rm's line on standard output, which is the app's
  if (args.rm && viewPod(context.dir, args.uuid) !== undefined) removePod(context.dir, args.uuid);
  return 0;
}

type AboutEnd = Pick<RunResult, 'reason' | 'exitCode' | 'signal'>;
type AboutPod = Pick<RunResult, 'name' | 'flavor' | 'apps' | 'createdAt' | 'startedAt'> & {
  /** An init says of an app that its program was never executed. */
  readonly neverStarted: boolean;
  /** What was the matter with the pod's machine (flavor kvm). */
  readonly machine: string | undefined;
};

/** From the launcher's words alone. */
function aboutEnd({ kind, number }: FinishArgs): AboutEnd {
  switch (kind) {
    case 'exited':
      return { reason: 'exited', exitCode: number, signal: null };
    case 'signaled':
      return { reason: 'signaled', exitCode: null, signal: signalName(number) };
    case 'failed':
      return { reason: 'launch-failed', exitCode: EXIT_FAILURE, signal: null };
    default:
      throw new TspodError('usage', `finish: unknown kind of end "${kind}"`);
  }
}

/**
 * From the pod's folder. The launcher has let go of its lock, so another process's gc or rm may have
 * removed it: the record is kept all the same, without what only the folder told.
 */
function aboutPod(context: Context, args: FinishArgs): AboutPod {
  const nothing = {
    name: null,
    flavor: null,
    apps: [],
    createdAt: null,
    startedAt: null,
    neverStarted: false,
    machine: undefined,
  };
  try {
    const pod = viewPod(context.dir, args.uuid);
    return pod === undefined ? nothing : fromFolder(pod, args);
  } catch (error) {
    if (!(error instanceof TspodError)) throw error;
    if (viewPod(context.dir, args.uuid) !== undefined) warn(context, reasonOf(error));
    return nothing;
  }
}

function fromFolder(pod: PodView, args: FinishArgs): AboutPod {
  const codes = readExitCodes(pod.dir);
  const apps = readPod(pod.dir, pod.uuid).apps;
  const failed = apps.filter(({ name }) =>
    existsSync(join(pod.dir, STATUS_FOLDER, `${name}-failed`)),
  );
  return {
    name: pod.name ?? null,
    flavor: readFlavorName(pod.dir),
    apps: apps.map(({ name, image }) => ({
      name,
      exitCode:
        args.kind === 'failed' || failed.some(app => app.name === name)
          ? null
          : (codes.get(name) ?? appExitCode(args)),
      oomKilled: ranOutOfMemory(pod.dir, name),
      image: { name: image.name, id: image.id, manifestDigest: image.manifestDigest },
    })),
    createdAt: timeOf(join(pod.dir, 'pod-created')),
    startedAt: timeOf(join(pod.dir, 'pid')),
    neverStarted: args.number === EXIT_FAILURE && failed.length > 0,
    machine: machineFailure(pod.dir),
  };
}

/** Written by who keeps the machine (docs/vm-agent.md). */
function machineFailure(dir: string): string | undefined {
  const path = join(dir, 'stage1/rootfs/rkt/machine-failed');
  return existsSync(path) ? readFileSync(path, 'utf8') : undefined;
}

function appExitCode({ kind, number }: FinishArgs): number | null {
  if (kind === 'failed') return null;
  return kind === 'signaled' ? SIGNALED + number : number;
}

function signalName(number: number): string {
  const found = Object.entries(constants.signals).find(([, value]) => value === number);
  return found?.[0] ?? `SIG${number}`;
}

function timeOf(path: string): string | null {
  try {
    return statSync(path).mtime.toISOString();
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return null;
    throw error;
  }
}
