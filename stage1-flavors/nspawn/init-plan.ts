/** What stage2's init is to do in this pod: docs/stage2-init.md. */
import type { Step } from '../../src/pod/launch-plan.ts';
import { isMutable } from '../../src/pod/mutable.ts';
import type { Pod, PodApp } from '../../src/pod/pod.ts';
import { appSupervision, podSupervision } from '../../src/pod/supervision.ts';
import { annotationsOf } from '../isolation.ts';
import { plansInside } from './stage1-tree.ts';

/** Bytes of a log file before it is rotated, and how many old ones are kept. */
const LOG_BYTES = String(10 * 1024 * 1024);
const LOGS_KEPT = '3';

export function initSteps(pod: Pod): readonly Step[] {
  const { exitPolicy, stopSeconds } = podSupervision(pod.manifest);
  return [
    ['program', pod.options.program],
    ['pod', pod.uuid],
    ['exit-policy', isMutable(pod.manifest) ? 'never' : (exitPolicy ?? 'first-failure')],
    ...(stopSeconds === undefined
      ? []
      : ([['stop-timeout', String(stopSeconds)]] satisfies Step[])),
    ...(pod.options.net === 'host' ? [] : ([['loopback']] satisfies Step[])),
    ...pod.apps.flatMap(app => appInitSteps(pod, app)),
  ];
}

/** One app of the init plan. */
export function appInitSteps(pod: Pod, app: PodApp): readonly Step[] {
  const { interactive } = pod.options;
  const { restart, stopSeconds, stopSignal } = appSupervision(annotationsOf(pod, app));
  return [
    ['app', app.name],
    ['launch', `${plansInside(app.name)}/launch-plan`],
    ...(restart === undefined ? [] : ([['restart', restart]] satisfies Step[])),
    ...(stopSignal === undefined ? [] : ([['stop-signal', String(stopSignal)]] satisfies Step[])),
    ...(stopSeconds === undefined
      ? []
      : ([['stop-timeout', String(stopSeconds)]] satisfies Step[])),
    ['stdin', interactive ? 'inherit' : 'null'],
    ['stdout', interactive ? 'inherit' : 'log'],
    ['stderr', interactive ? 'inherit' : 'log'],
    ['log', 'file', `/rkt/logs/${app.name}.log`, LOG_BYTES, LOGS_KEPT],
  ];
}
