/** stage2's steps that say whom an app becomes, and with what rights. */
import { boundingSet } from '../src/pod/capabilities.ts';
import type { Isolation } from '../src/pod/isolators.ts';
import type { Step } from '../src/pod/launch-plan.ts';
import type { Pod, PodApp } from '../src/pod/pod.ts';
import { compileSeccomp, hostArch } from '../src/pod/seccomp.ts';
import { annotationsOf } from './isolation.ts';

/** Written by stage0/assemble-app.ts. */
const GROUPS_ANNOTATION = 'tspod/groups';

/**
 * The steps that `run` and `enter` share: everything but where to stand and what to execute, so that an
 * entered process can't have more rights than the app (CVE-2019-10144, -10145, -10147).
 * @param root absolute, or relative to the folder that stage2 starts in
 */
export function identitySteps(
  pod: Pod,
  app: PodApp,
  root: string,
  isolation: Isolation,
): readonly Step[] {
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
