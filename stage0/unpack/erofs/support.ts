/**
 * Whether, and how, layers in EROFS form can be mounted on this machine: found out by mounting one, as a pod's
 * launcher would, with an overlay on top, in a mount namespace that is gone afterwards. The kernel's version
 * alone does not say it: mounting from files depends on its configuration, on the data folder's file system
 * and on how many file systems are stacked already. The answer is kept until the next boot.
 */
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  constants,
  copyFileSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { encodePlan, type Step } from '../../../src/pod/launch-plan.ts';
import { LAYER_TMP_PREFIX } from '../../../src/store/layers.ts';
import { Layout } from '../../../src/store/layout.ts';
import { artifact } from '../../../src/sys/artifacts.ts';
import { native } from '../../../src/sys/native.ts';

export interface ErofsSupport {
  readonly by: 'file' | 'loop' | undefined;
  /** One clause; undefined when it can be used. */
  readonly unavailable: string | undefined;
}

const known = new Map<string, ErofsSupport>();
const VERSION = 1;
const TRIAL_MS = 20_000;

/** @param dir the data folder; nothing is kept in one that does not exist yet or can't be written */
export function erofsSupport(dir: string): ErofsSupport {
  const remembered = known.get(dir);
  if (remembered !== undefined) return remembered;
  const layout = new Layout(dir);
  const support = readAnswer(layout) ?? tryOut(layout);
  known.set(dir, support);
  return support;
}

/** For all data folders, and gone with the boot that it is about. */
const ANSWERS = '/run/tspod';

function answerFile(layout: Layout): string {
  return `${ANSWERS}/erofs-${statSync(layout.root).dev}.json`;
}

/** What the answer depends on: this boot of the kernel, this tspod, the file system of the data folder. */
function circumstances(layout: Layout): string {
  const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
  return `${boot} ${statSync(layout.root).dev} ${statSync(artifact('launch')).mtimeMs}`;
}

function readAnswer(layout: Layout): ErofsSupport | undefined {
  try {
    const file = answerFile(layout);
    // Only root may say it.
    if (statSync(ANSWERS).uid !== 0 || statSync(file).uid !== 0) return undefined;
    const value: unknown = JSON.parse(readFileSync(file, 'utf8'));
    if (typeof value !== 'object' || value === null) return undefined;
    if (!('version' in value) || value.version !== VERSION) return undefined;
    if (!('at' in value) || value.at !== circumstances(layout)) return undefined;
    const by = 'by' in value && (value.by === 'file' || value.by === 'loop') ? value.by : undefined;
    const why = 'unavailable' in value ? value.unavailable : undefined;
    if (by === undefined && typeof why !== 'string') return undefined;
    return { by, unavailable: typeof why === 'string' ? why : undefined };
  } catch {
    // Missing, damaged or unreadable: it is found out again.
    return undefined;
  }
}

function tryOut(layout: Layout): ErofsSupport {
  if (process.geteuid?.() !== 0)
    return { by: undefined, unavailable: 'mounting layers needs root' };
  let support: ErofsSupport;
  try {
    layout.make();
    support = mountSample(layout);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    return { by: undefined, unavailable: `it can't be tried out: ${why}` };
  }
  try {
    mkdirSync(ANSWERS, { recursive: true, mode: 0o755 });
    const file = answerFile(layout);
    const aside = `${file}.${process.pid}`;
    const answer = { version: VERSION, at: circumstances(layout), ...support };
    writeFileSync(aside, JSON.stringify(answer), { mode: 0o644 });
    renameSync(aside, file);
  } catch {
    // A /run that can't be written: the next process finds out for itself.
  }
  return support;
}

function mountSample(layout: Layout): ErofsSupport {
  const folder = `${layout.tmp}/${LAYER_TMP_PREFIX}erofs-trial.${process.pid}`;
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { mode: 0o700 });
  // gc takes away what nobody has locked.
  const lock = openSync(folder, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    native().flock(lock, 'exclusive', true);
    for (const name of ['layer', 'root', 'upper', 'work']) mkdirSync(join(folder, name));
    copyFileSync(artifact('erofs-sample.tar'), join(folder, 'tar'));
    copyFileSync(artifact('erofs-sample.meta'), join(folder, 'meta'));
    const failures: string[] = [];
    for (const by of ['file', 'loop'] as const) {
      const failure = mountOnce(folder, by);
      if (failure === undefined) return { by, unavailable: undefined };
      failures.push(failure);
    }
    return { by: undefined, unavailable: failures[0] };
  } finally {
    rmSync(folder, { recursive: true, force: true });
    closeSync(lock);
  }
}

/** @returns why it failed */
function mountOnce(folder: string, by: 'file' | 'loop'): string | undefined {
  const steps: Step[] = [
    ['program', 'trial'],
    ['unshare', 'mount'],
    ['propagation', '/', 'rprivate'],
    ['erofs', 'layer', 'meta', 'tar', by],
    ['overlay', 'root', 'upper', 'work', 'layer'],
    ['unmount', 'layer'],
    // Something that ends well: the launcher, looking at this plan.
    ['exec', artifact('launch'), '--check', `${folder}/plan`],
  ];
  const plan = join(folder, 'plan');
  writeFileSync(plan, encodePlan(steps));
  const fd = openSync(plan, 'r');
  try {
    const { status, error, stderr } = spawnSync(artifact('launch'), ['--plan-fd', '3'], {
      cwd: folder,
      stdio: ['ignore', 'ignore', 'pipe', fd],
      env: {},
      timeout: TRIAL_MS,
      encoding: 'utf8',
    });
    if (status === 0) return undefined;
    const said = stderr
      ?.trim()
      .split('\n')[0]
      ?.replace(/^trial: /, '');
    return said || error?.message || `the trial ended with status ${status}`;
  } finally {
    closeSync(fd);
    unlinkSync(plan);
  }
}
