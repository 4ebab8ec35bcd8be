/** stage2's plan for fly's app: whom to become, with what rights, and what to execute. */
import type { Step } from '../../src/pod/launch-plan.ts';
import type { Pod, PodApp } from '../../src/pod/pod.ts';
import { identitySteps } from '../identity.ts';
import { isolationOf } from '../isolation.ts';

/** Passed from whoever starts the pod: systemd's socket activation, notification and watchdog. */
const PASSED = [
  'LISTEN_FDS',
  'LISTEN_PID',
  'LISTEN_FDNAMES',
  'NOTIFY_SOCKET',
  'WATCHDOG_PID',
  'WATCHDOG_USEC',
];

export function appPlan(pod: Pod, app: PodApp): readonly Step[] {
  return [
    ...identitySteps(pod, app, app.root, isolationOf(pod, app)),
    ...(app.app.environment ?? []).map(({ name, value }): Step => ['env', `${name}=${value}`]),
    ['env-from-user'],
    ['env-pass', ...PASSED],
    ['workdir', app.app.workingDirectory || '/'],
    ['exec', ...app.app.exec],
  ];
}
