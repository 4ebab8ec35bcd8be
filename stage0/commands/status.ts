/** `tspod status POD`: rkt's lines; `--wait` until the pod has ended, `--wait-ready` until it is ready. */

import { lstatSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Context } from '../../src/context.ts';
import { longTime, parseDuration } from '../../src/humanize.ts';
import { readFlavorName } from '../../src/pod/folder.ts';
import { findPod, type PodView, podProcess, viewPod } from '../../src/pod/lifecycle.ts';
import { showNetworks } from '../../src/pod/networks.ts';
import { type PodReport, reportPod } from '../../src/pod/report.ts';
import { parseBool } from '../args/flags.ts';
import { checkFormat, printJson } from '../output.ts';
import { podToJson } from '../pod-json.ts';

const SUPERVISOR_STATUS = 'stage1/rootfs/rkt/supervisor-status';
/** rkt's. */
const POLL_MS = 100;

export interface StatusArgs {
  readonly pod: string;
  /** true, false or a duration, as typed */
  readonly wait: string;
  readonly waitReady: string;
  readonly format: string | undefined;
}

export async function run(context: Context, args: StatusArgs): Promise<number> {
  checkFormat(args.format);
  const ended = timeLimit(args.wait, 'wait');
  const ready = timeLimit(args.waitReady, 'wait-ready');
  const { uuid } = findPod(context.dir, args.pod);
  if (ready > 0) await waitUntil(context, uuid, ready, isReady);
  if (ended > 0) await waitUntil(context, uuid, ended, hasEnded);
  const pod = reportPod(findPod(context.dir, uuid));
  if (args.format !== undefined) printJson(podToJson(pod), args.format);
  else process.stdout.write(`${lines(pod).join('\n')}\n`);
  return 0;
}

/** ms; 0: don't wait; infinite: without a limit */
function timeLimit(text: string, flag: string): number {
  try {
    return parseBool(text, flag) ? Number.POSITIVE_INFINITY : 0;
  } catch {
    return parseDuration(text, `status: --${flag}`);
  }
}

async function waitUntil(
  context: Context,
  uuid: string,
  limitMs: number,
  reached: (pod: PodView) => boolean,
): Promise<void> {
  const end = Date.now() + limitMs;
  for (;;) {
    const pod = viewPod(context.dir, uuid);
    // Removed while we waited: whatever was waited for, `findPod` tells it is gone.
    if (pod === undefined || reached(pod)) return;
    if (hasEnded(pod) || Date.now() >= end) return;
    await sleep(Math.min(POLL_MS, Math.max(1, end - Date.now())));
  }
}

function hasEnded(pod: PodView): boolean {
  return (
    pod.state !== 'running' &&
    pod.state !== 'prepared' &&
    pod.state !== 'preparing' &&
    pod.state !== 'embryo'
  );
}

/**
 * A pod's init says so, as rkt's (docs/stage2-init.md). fly and stage1 images have no such init: their pod is ready
 * when its process is there.
 */
function isReady(pod: PodView): boolean {
  if (pod.state !== 'running' || podProcess(pod.dir) === undefined) return false;
  const flavor = readFlavorName(pod.dir);
  if (flavor !== 'nspawn' && flavor !== 'kvm') return true;
  const link = lstatSync(join(pod.dir, SUPERVISOR_STATUS), { throwIfNoEntry: false });
  return link?.isSymbolicLink() === true;
}

function lines(pod: PodReport): readonly string[] {
  const ran = pod.state === 'running' || pod.state.startsWith('exited');
  const ended = pod.state.startsWith('exited');
  const text = [`state=${pod.state}`];
  if (pod.createdAt !== undefined) text.push(`created=${longTime(pod.createdAt)}`);
  if (pod.startedAt !== undefined) text.push(`started=${longTime(pod.startedAt)}`);
  if (ran) text.push(`networks=${showNetworks(pod.networks)}`);
  if (pod.pid !== undefined) text.push(`pid=${pod.pid}`);
  if (ran) text.push(`exited=${ended}`);
  for (const app of pod.apps) {
    if (ended && app.exitCode !== undefined) text.push(`app-${app.name}=${app.exitCode}`);
  }
  return text;
}
