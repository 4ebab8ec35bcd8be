/** stage2's plan for fly's app: whom to become, with what rights, and what to execute. */
import { boundingSet } from '../../src/pod/capabilities.ts';
import type { Step } from '../../src/pod/launch-plan.ts';
import type { Pod, PodApp } from '../../src/pod/pod.ts';
import { compileSeccomp, hostArch } from '../../src/pod/seccomp.ts';
import { annotationsOf, isolationOf } from './check.ts';

/** Written by stage0/assemble-app.ts. */
const GROUPS_ANNOTATION = 'tspod/groups';

/**
 * The steps that `run` and `enter` share: everything but where to stand and what to execute, so that an
 * entered process can't have more rights than the app (CVE-2019-10144, -10145, -10147).
 * @param root absolute, or relative to the folder that stage2 starts in
 */
export function identitySteps(pod: Pod, app: PodApp, root: string): readonly Step[] {
  const isolation = isolationOf(pod, app);
  const { user, group, supplementaryGIDs = [] } = app.app;
  const ofUser = annotationsOf(pod, app).some(
    ({ name, value }) => name === GROUPS_ANNOTATION && value === 'of-user',
  );
  const filter =
    isolation.seccomp === undefined ? undefined : compileSeccomp(isolation.seccomp, hostArch());
  // Only root may load a filter without it, and stage2 is not root any more by then; rkt does the same.
  const noNewPrivileges =
    isolation.noNewPrivileges || (filter !== undefined && user !== '0' && user !== 'root');
  const bounding =
    isolation.capabilities === undefined
      ? undefined
      : boundingSet(isolation.capabilities.mode, isolation.capabilities.names).toString(16);
  return [
    ['program', pod.options.program],
    ['root', root],
    ['user', user],
    ...(ofUser ? [] : ([['group', group]] satisfies Step[])),
    ['groups', ...supplementaryGIDs.map(String)],
    ...(ofUser ? ([['image-groups']] satisfies Step[]) : []),
    ...(bounding === undefined
      ? []
      : ([['capabilities', bounding, bounding, '0', '0']] satisfies Step[])),
    ...(noNewPrivileges ? ([['no-new-privs']] satisfies Step[]) : []),
    ...(filter === undefined ? [] : ([['seccomp', filter]] satisfies Step[])),
    ...isolation.rlimits.map(({ name, soft, hard }): Step => ['rlimit', name, soft, hard]),
    ...(isolation.oomScoreAdj === undefined
      ? []
      : ([['oom-score-adj', String(isolation.oomScoreAdj)]] satisfies Step[])),
  ];
}

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
    ...identitySteps(pod, app, app.root),
    ...(app.app.environment ?? []).map(({ name, value }): Step => ['env', `${name}=${value}`]),
    ['env-from-user'],
    ['env-pass', ...PASSED],
    ['workdir', app.app.workingDirectory || '/'],
    ['exec', ...app.app.exec],
  ];
}
