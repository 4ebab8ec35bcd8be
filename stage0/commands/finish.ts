/**
 * What the launcher executes when a pod that was started with `--result` or `--rm` has ended: write the
 * record, remove the pod. Not for people; absent from the help. The launcher has let go of the pod's lock
 * by then and ignores this command's exit status: the app's own is what counts.
 */
import { statSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import type { Context } from '../../src/context.ts';
import { EXIT_FAILURE, errnoOf, TspodError } from '../../src/errors.ts';
import { readFlavorName, readPod } from '../../src/pod/folder.ts';
import { findPod, type PodView } from '../../src/pod/lifecycle.ts';
import { type RunResult, writeResult } from '../result.ts';
import { removePod } from './rm.ts';

export interface FinishArgs {
  readonly uuid: string;
  readonly result: string | undefined;
  readonly rm: boolean;
  /** From the launcher: `exited N`, `signaled N`, `failed N`. */
  readonly kind: string;
  readonly number: number;
}

export async function run(context: Context, args: FinishArgs): Promise<number> {
  const pod = findPod(context.dir, args.uuid);
  if (args.result !== undefined) writeResult(args.result, describe(pod, args));
  // without rm's line on standard output, which is the app's
  if (args.rm) removePod(context.dir, args.uuid);
  return 0;
}

function describe(pod: PodView, args: FinishArgs): RunResult {
  const dir = pod.dir;
  const base = {
    version: 1,
    uuid: pod.uuid,
    name: pod.name ?? null,
    flavor: readFlavorName(dir),
    error: null,
    createdAt: timeOf(join(dir, 'pod-created')),
    startedAt: timeOf(join(dir, 'pid')),
    finishedAt: new Date().toISOString(),
  } as const;
  const apps = (exitCode: number | null) =>
    readPod(dir, pod.uuid).apps.map(({ name, image }) => ({
      name,
      exitCode,
      image: { name: image.name, id: image.id, manifestDigest: image.manifestDigest },
    }));
  switch (args.kind) {
    case 'exited':
      return {
        ...base,
        reason: 'exited',
        exitCode: args.number,
        signal: null,
        apps: apps(args.number),
      };
    case 'signaled':
      return {
        ...base,
        reason: 'signaled',
        exitCode: null,
        signal: signalName(args.number),
        apps: apps(128 + args.number),
      };
    case 'failed':
      return {
        ...base,
        reason: 'launch-failed',
        exitCode: EXIT_FAILURE,
        signal: null,
        apps: apps(null),
      };
    default:
      throw new TspodError('usage', `finish: unknown kind of end "${args.kind}"`);
  }
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
