/**
 * fly: one app in a root file system of its own and nothing else of its own. For tools of the host that
 * should come as images. README.md says what it isolates and what not.
 */
import { join } from 'node:path';
import { TspodError } from '../../src/errors.ts';
import type { LaunchPlan, Step } from '../../src/pod/launch-plan.ts';
import type { Pod } from '../../src/pod/pod.ts';
import {
  isAlive,
  type RecordedProcess,
  readProcessFile,
  signalProcess,
} from '../../src/sys/process.ts';
import { removeCgroups } from '../cgroup-places.ts';
import type { EnterRequest, Flavor, RunningPod } from '../flavor.ts';
import { identitySteps } from '../identity.ts';
import { isolationOf } from '../isolation.ts';
import { appPlan } from './app-plan.ts';
import { check, onlyApp } from './check.ts';
import { launchSteps } from './launch-steps.ts';

const SIGKILL = 9;
const SIGTERM = 15;
/** rkt assumes the first. */
const SHELLS = ['/bin/bash', '/bin/sh'];

export const fly: Flavor = {
  name: 'fly',
  interfaceVersion: 5,
  recursiveByDefault: false,
  check,
  plan(pod: Pod): LaunchPlan {
    check(pod);
    const app = onlyApp(pod);
    return { steps: launchSteps(pod, app), apps: new Map([[app.name, appPlan(pod, app)]]) };
  },
  enter,
  stop,
  // Mounts and the namespace went with the pod's last process; only its cgroups are left.
  gc: removeCgroups,
};

function enter(pod: Pod, running: RunningPod, request: EnterRequest): LaunchPlan {
  const app = onlyApp(pod);
  if (app.name !== request.app) {
    throw new TspodError('not-found', `pod ${pod.uuid}: it has no app "${request.app}"`, {
      hint: `its app is "${app.name}"`,
    });
  }
  const environment = new Map((app.app.environment ?? []).map(({ name, value }) => [name, value]));
  for (const [name, value] of Object.entries(request.environment)) environment.set(name, value);
  const { pid, startTime } = appProcess(running);
  const steps: Step[] = [
    ['program', pod.options.program],
    ['join-cgroups', `${pid}:${startTime}`],
    ['join-namespaces', `${pid}:${startTime}`, 'mount'],
    // The caller keeps it in a file that only he can name, and puts its descriptor here.
    ['start', `appsinfo/${app.name}/app-plan`],
  ];
  const appSteps: Step[] = [
    ...identitySteps(pod, app, join(running.dir, app.root), isolationOf(pod, app)),
    ...[...environment].map(([name, value]): Step => ['env', `${name}=${value}`]),
    ['env-from-user'],
    ['workdir', '/'],
    request.command.length === 0 ? ['exec-any', ...SHELLS] : ['exec', ...request.command],
  ];
  return { steps, apps: new Map([[app.name, appSteps]]) };
}

/** What the launcher recorded. @throws TspodError 'state' when the app has ended */
function appProcess(running: RunningPod): RecordedProcess {
  const recorded = readProcessFile(join(running.dir, 'pid'));
  if (recorded !== undefined && isAlive(recorded)) return recorded;
  throw new TspodError('state', `pod ${running.uuid}: its app has ended`);
}

function stop(running: RunningPod, force: boolean): void {
  const recorded = readProcessFile(join(running.dir, 'pid'));
  if (recorded !== undefined) signalProcess(recorded, force ? SIGKILL : SIGTERM);
}
