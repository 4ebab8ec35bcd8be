/**
 * `tspod enter POD [COMMAND...]`: this process becomes a command inside an app of a running pod, with the
 * app's own user, capabilities, seccomp filter, limits and cgroups (rkt's enter gave none of them:
 * CVE-2019-10144, -10145, -10147).
 */
import { openSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Context, warn } from '../../src/context.ts';
import { systemError, TspodError } from '../../src/errors.ts';
import { readFlavorName, readPod } from '../../src/pod/folder.ts';
import { encodePlan, type Step } from '../../src/pod/launch-plan.ts';
import { findPod, podProcess, viewPod } from '../../src/pod/lifecycle.ts';
import type { Pod } from '../../src/pod/pod.ts';
import { artifact } from '../../src/sys/artifacts.ts';
import { handOff } from '../../src/sys/handoff.ts';
import { requireRoot } from '../../src/sys/privilege.ts';
import type { RunningPod } from '../../stage1-flavors/flavor.ts';
import { enterWords } from '../../stage1-flavors/foreign/foreign.ts';
import { flavorOfPod } from '../../stage1-flavors/index.ts';
import { requireApp } from '../app/find.ts';

const POLL_MS = 20;
/** Of the caller's environment these describe his terminal, not himself. */
const TERMINAL_VARIABLES = ['TERM', 'COLORTERM', 'LANG'];

export interface EnterArgs {
  readonly pod: string;
  readonly app: string | undefined;
  readonly command: readonly string[];
}

/** Never returns: this process becomes the command. */
export async function run(context: Context, args: EnterArgs): Promise<number> {
  requireRoot(context.command);
  const running = await waitForProcess(context, findPod(context.dir, args.pod).uuid);
  const pod = readPod(running.dir, running.uuid);
  const app = args.app ?? onlyApp(context, pod);
  if (args.command.length === 0) warn(context, 'no command specified, assuming "/bin/bash"');
  if (pod.options.stage1 !== undefined) return enterByStage1(pod, running, app, args.command);
  const plan = flavorOfPod(readFlavorName(running.dir)).enter(pod, running, {
    app,
    command: args.command,
    environment: terminalEnvironment(),
  });
  const appSteps = plan.apps.get(app);
  if (appSteps === undefined) throw new Error('the flavor planned no app to enter');
  const appPlan = planFile(running.dir, 'app', appSteps);
  const last = plan.steps.at(-1);
  if (last?.[0] === 'exec') return enterByProgram(running.dir, last, appPlan);
  const steps = plan.steps.map(
    (step): Step => (step[0] === 'start' ? ['start', `/proc/self/fd/${appPlan}`] : step),
  );
  const launcherPlan = planFile(running.dir, 'launcher', steps);
  process.chdir(running.dir);
  const launcher = artifact('launch');
  return handOff({
    path: launcher,
    argv: [launcher, '--plan-fd', String(launcherPlan)],
    env: [],
    keepFds: [appPlan, launcherPlan],
  });
}

/** A program that finds the way in itself, and gets the app plan as its last word. */
function enterByProgram(dir: string, [, ...words]: Step, appPlan: number): never {
  const argv = [...words.map(String), String(appPlan)];
  const env = Object.entries(terminalEnvironment()).map(([name, value]) => `${name}=${value}`);
  process.chdir(dir);
  return handOff({ path: argv[0] ?? '', argv, env, keepFds: [appPlan] });
}

/** The stage1 image's own program goes in; what it gives the command of the app's isolation is its own. */
function enterByStage1(
  pod: Pod,
  running: RunningPod,
  app: string,
  command: readonly string[],
): never {
  requireApp(pod, app);
  const argv = enterWords(pod, running, app, command.length === 0 ? ['/bin/bash'] : command);
  const env = Object.entries(process.env)
    .filter(([name]) => !name.startsWith('TSPOD_'))
    .map(([name, value]) => `${name}=${value ?? ''}`);
  process.chdir(running.dir);
  return handOff({ path: argv[0], argv, env, keepFds: [] });
}

/** The pod may be about to start: waits until it has a process, and no longer than it lives. */
async function waitForProcess(context: Context, uuid: string): Promise<RunningPod> {
  for (;;) {
    const view = viewPod(context.dir, uuid);
    if (view === undefined || view.state !== 'running') {
      throw new TspodError('state', `enter: pod ${JSON.stringify(uuid)} isn't currently running`, {
        hint: `it is ${view?.state ?? 'gone'}`,
      });
    }
    const process = podProcess(view.dir);
    if (process !== undefined) return { uuid, dir: view.dir, pid: process.pid };
    await sleep(POLL_MS);
  }
}

function onlyApp(context: Context, pod: Pod): string {
  const [app, ...more] = pod.apps;
  if (app === undefined) throw new TspodError('pod', `pod ${pod.uuid}: it has no app`);
  if (more.length === 0) return app.name;
  const names = pod.apps.map(({ name }) => name).join(', ');
  throw new TspodError('usage', `enter: pod ${pod.uuid} has several apps: ${names}`, {
    hint: `specify app using "${context.program} enter --app= ..."`,
  });
}

function terminalEnvironment(): Readonly<Record<string, string>> {
  const found = TERMINAL_VARIABLES.map(name => [name, process.env[name]] as const);
  return Object.fromEntries(
    found.filter((entry): entry is [string, string] => entry[1] !== undefined),
  );
}

/** A plan in a file that nobody else can name: its descriptor. */
function planFile(dir: string, what: string, steps: readonly Step[]): number {
  const path = join(dir, `.enter-${process.pid}-${what}`);
  try {
    writeFileSync(path, encodePlan(steps), { flag: 'wx', mode: 0o600 });
    const fd = openSync(path, 'r');
    unlinkSync(path);
    return fd;
  } catch (error) {
    throw systemError(`enter: can't write a plan into ${dir}`, error);
  }
}
