/**
 * nspawn: a pod of one or many apps in namespaces of its own, made by systemd-nspawn, watched by stage2's
 * init. README.md says what it isolates.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { TspodError } from '../../src/errors.ts';
import { STATUS_FOLDER } from '../../src/pod/folder.ts';
import type { LaunchPlan, Step } from '../../src/pod/launch-plan.ts';
import type { Pod, PodApp } from '../../src/pod/pod.ts';
import { isAlive, processStat, readProcessFile, signalProcess } from '../../src/sys/process.ts';
import { removeCgroups } from '../cgroup-places.ts';
import type { EnterRequest, Flavor, RunningPod } from '../flavor.ts';
import { identitySteps } from '../identity.ts';
import { appLaunchSteps, appSteps, askerOf, handlerOf } from './app-plans.ts';
import { planCgroups } from './cgroups.ts';
import { check } from './check.ts';
import { initSteps, probesOf } from './init-plan.ts';
import { confinedIsolation } from './isolation.ts';
import { launchSteps } from './launch-steps.ts';
import { INIT_PLAN, plansInside, TREE } from './stage1-tree.ts';

const SIGQUIT = 3;
const SIGKILL = 9;
const SIGTERM = 15;
/** How long a forced stop waits for init. */
const FORCE_MS = 2000;
const POLL_MS = 10;
/** rkt assumes the first. */
const SHELLS = ['/bin/bash', '/bin/sh'];
const NAMESPACES = ['mount', 'pid', 'net', 'uts', 'ipc', 'cgroup'];

export const nspawn: Flavor = {
  name: 'nspawn',
  interfaceVersion: 6,
  recursiveByDefault: true,
  check,
  warnings: pod => planCgroups(pod).warnings,
  plan,
  enter,
  stop,
  // Mounts and namespaces went with the pod's last process.
  gc: removeCgroups,
};

function plan(pod: Pod): LaunchPlan {
  check(pod);
  const inside = new Map<string, readonly Step[]>([[INIT_PLAN, initSteps(pod)]]);
  for (const app of pod.apps)
    for (const [path, steps] of plansOf(pod, app)) inside.set(path, steps);
  return {
    steps: launchSteps(pod),
    apps: new Map(),
    inside,
    // systemd-nspawn wants a tree that looks like a system's.
    folders: ['usr', 'etc', 'rkt/logs', 'rkt/attach'].map(name => `${TREE}/${name}`),
  };
}

/** How the pod's init starts one app, by path in the pod's folder. */
export function plansOf(pod: Pod, app: PodApp): ReadonlyMap<string, readonly Step[]> {
  const folder = `${TREE}${plansInside(app.name)}`;
  const isolation = confinedIsolation(pod, app);
  const plans = new Map([
    [`${folder}/launch-plan`, appLaunchSteps(pod, app)],
    [`${folder}/app-plan`, appSteps(pod, app, isolation)],
  ]);
  for (const { name, exec } of app.app.eventHandlers ?? []) {
    plans.set(`${folder}/${name}`, appLaunchSteps(pod, app, `${name}-app-plan`));
    plans.set(`${folder}/${name}-app-plan`, appSteps(pod, handlerOf(app, exec), isolation));
  }
  for (const { kind, how } of probesOf(pod, app)) {
    if (!('exec' in how)) continue;
    plans.set(`${folder}/probe-${kind}`, appLaunchSteps(pod, app, `probe-${kind}-app-plan`));
    plans.set(`${folder}/probe-${kind}-app-plan`, appSteps(pod, askerOf(app, how.exec), isolation));
  }
  return plans;
}

function enter(pod: Pod, running: RunningPod, request: EnterRequest): LaunchPlan {
  const app = pod.apps.find(({ name }) => name === request.app);
  if (app === undefined) {
    throw new TspodError('not-found', `pod ${pod.uuid}: it has no app "${request.app}"`, {
      hint: `its apps are ${pod.apps.map(({ name }) => `"${name}"`).join(', ')}`,
    });
  }
  const target = appProcess(running, app.name);
  const steps: Step[] = [
    ['program', pod.options.program],
    // The caller's terminal stays outside; before the cgroups, so that what kills the app leaves who restores it.
    ['terminal'],
    ['join-cgroups', target],
    ['join-namespaces', target, ...NAMESPACES],
    // Only a child is in the process namespace that was joined.
    ['supervise', '-', app.name],
    ['start', 'app-plan'],
  ];
  return { steps, apps: new Map([[app.name, enterAppSteps(pod, app, request)]]) };
}

/** Who a command in an app becomes: stage2's plan. */
export function enterAppSteps(pod: Pod, app: PodApp, request: EnterRequest): readonly Step[] {
  const environment = new Map((app.app.environment ?? []).map(({ name, value }) => [name, value]));
  for (const [name, value] of Object.entries(request.environment)) environment.set(name, value);
  return [
    ...identitySteps(pod, app, '/', confinedIsolation(pod, app)),
    ...[...environment].map(([name, value]): Step => ['env', `${name}=${value}`]),
    ['env-from-user'],
    ['own-terminal'],
    ['workdir', '/'],
    request.command.length === 0 ? ['exec-any', ...SHELLS] : ['exec', ...request.command],
  ];
}

/**
 * `PID:STARTTIME` on the host of the process that is the app: the child of the pod's init that has the number
 * inside which init wrote down.
 * @throws TspodError 'state' when it does not run
 */
function appProcess(running: RunningPod, app: string): string {
  const ended = () =>
    new TspodError('state', `pod ${running.uuid}: its app "${app}" does not run`, {
      hint: 'see its status',
    });
  const inside = textOf(join(running.dir, STATUS_FOLDER, `${app}-pid`));
  if (inside === undefined || !/^[1-9]\d{0,9}$/.test(inside)) throw ended();
  for (const init of childrenOf(running.pid)) {
    for (const child of childrenOf(init)) {
      const numbers = /^NSpid:\s*(.*)$/m.exec(textOf(`/proc/${child}/status`) ?? '')?.[1];
      if (numbers?.split(/\s+/).at(-1) !== inside) continue;
      const stat = processStat(child);
      if (stat !== undefined) return `${child}:${stat.startTime}`;
    }
  }
  throw ended();
}

/**
 * `PID:STARTTIME` on the host of the pod's init.
 * @throws TspodError 'state' when it does not run
 */
export function initProcess(running: RunningPod): string {
  for (const child of childrenOf(running.pid)) {
    const numbers = /^NSpid:\s*(.*)$/m.exec(textOf(`/proc/${child}/status`) ?? '')?.[1];
    if (numbers?.split(/\s+/).at(-1) !== '1') continue;
    const stat = processStat(child);
    if (stat !== undefined) return `${child}:${stat.startTime}`;
  }
  throw new TspodError('state', `pod ${running.uuid}: its init does not run`, {
    hint: 'it begins or ends just now: see its status',
  });
}

function childrenOf(pid: number): readonly number[] {
  return (textOf(`/proc/${pid}/task/${pid}/children`) ?? '')
    .split(' ')
    .filter(word => word !== '')
    .map(Number);
}

function textOf(path: string): string | undefined {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return undefined;
  }
}

/**
 * systemd-nspawn turns SIGTERM into init's. By force init kills the apps at once, so that their statuses are
 * known; where it does not, the end of systemd-nspawn is the end of everything in the pod.
 */
function stop(running: RunningPod, force: boolean): void {
  const recorded = readProcessFile(join(running.dir, 'pid'));
  if (recorded === undefined) return;
  if (!force) {
    signalProcess(recorded, SIGTERM);
    return;
  }
  for (const pid of childrenOf(recorded.pid)) {
    const stat = processStat(pid);
    if (stat === undefined) continue;
    signalProcess({ pid, startTime: stat.startTime, bootId: recorded.bootId }, SIGQUIT);
  }
  for (let waited = 0; waited < FORCE_MS; waited += POLL_MS) {
    if (!isAlive(recorded)) return;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, POLL_MS);
  }
  signalProcess(recorded, SIGKILL);
}
