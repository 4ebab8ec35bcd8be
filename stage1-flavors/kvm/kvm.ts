/**
 * kvm: a pod in a machine of its own, by QEMU. In the machine everything is as under nspawn, and stage2's init is the
 * same; its agent (stage2/vm) carries between that init and the pod's folder on the host, so that what looks there
 * (status, logs, attach, control) finds what it finds under nspawn. README.md says what it isolates.
 */
import { join } from 'node:path';
import { TspodError } from '../../src/errors.ts';
import type { LaunchPlan, Step } from '../../src/pod/launch-plan.ts';
import type { Pod } from '../../src/pod/pod.ts';
import { artifact } from '../../src/sys/artifacts.ts';
import { isAlive, readProcessFile, signalProcess } from '../../src/sys/process.ts';
import type { EnterRequest, Flavor, RunningPod } from '../flavor.ts';
import { enterAppSteps, plansOf } from '../nspawn/nspawn.ts';
import { INIT_PLAN, TREE } from '../nspawn/stage1-tree.ts';
import { check } from './check.ts';
import { agentSteps, guestInitSteps, guestLaunchSteps } from './guest-steps.ts';
import { keeperSteps, launchSteps } from './host-steps.ts';
import { planLayout } from './layout.ts';
import { GUEST_LAUNCH_PLAN, GUEST_PLAN, HOST_PLAN, SHARE } from './places.ts';

const SIGQUIT = 3;
const SIGKILL = 9;
const SIGTERM = 15;
/** How long a forced stop waits for the machine. */
const FORCE_MS = 4000;
const POLL_MS = 10;

export const kvm: Flavor = {
  name: 'kvm',
  interfaceVersion: 6,
  recursiveByDefault: true,
  check,
  plan,
  enter,
  stop,
  // Processes, mounts and namespaces went with the pod's first process.
  gc: () => undefined,
};

function plan(pod: Pod): LaunchPlan {
  check(pod);
  const layout = planLayout(pod);
  const inside = new Map<string, readonly Step[]>([
    [INIT_PLAN, guestInitSteps(pod)],
    [GUEST_PLAN, agentSteps(pod, layout)],
    [GUEST_LAUNCH_PLAN, guestLaunchSteps(pod, layout)],
  ]);
  for (const app of pod.apps)
    for (const [path, steps] of plansOf(pod, app)) inside.set(path, steps);
  const names = [...inside.keys()];
  inside.set(HOST_PLAN, keeperSteps(pod, layout, names));
  return {
    steps: launchSteps(pod, layout),
    apps: new Map(),
    inside,
    folders: [...['logs', 'attach'].map(name => join(TREE, 'rkt', name)), SHARE],
  };
}

/** The machine's agent does what leads into the app; who has it done is the caller's own process. */
function enter(pod: Pod, _running: RunningPod, request: EnterRequest): LaunchPlan {
  const app = pod.apps.find(({ name }) => name === request.app);
  if (app === undefined) {
    throw new TspodError('not-found', `pod ${pod.uuid}: it has no app "${request.app}"`, {
      hint: `its apps are ${pod.apps.map(({ name }) => `"${name}"`).join(', ')}`,
    });
  }
  return {
    steps: [['exec', artifact('vm'), 'enter', app.name]],
    apps: new Map([[app.name, enterAppSteps(pod, app, request)]]),
  };
}

/** SIGTERM is a graceful stop for init. By force init kills the apps at once, so that their statuses are known. */
function stop(running: RunningPod, force: boolean): void {
  const recorded = readProcessFile(join(running.dir, 'pid'));
  if (recorded === undefined) return;
  signalProcess(recorded, force ? SIGQUIT : SIGTERM);
  if (!force) return;
  for (let waited = 0; waited < FORCE_MS; waited += POLL_MS) {
    if (!isAlive(recorded)) return;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, POLL_MS);
  }
  signalProcess(recorded, SIGKILL);
}
