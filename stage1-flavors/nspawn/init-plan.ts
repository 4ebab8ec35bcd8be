/** What stage2's init is to do in this pod: docs/stage2-init.md. */
import type { Step } from '../../src/pod/launch-plan.ts';
import { isMutable } from '../../src/pod/mutable.ts';
import { wantsNetworks } from '../../src/pod/net-request.ts';
import type { Pod, PodApp } from '../../src/pod/pod.ts';
import { PROBES_ANNOTATION, type Probe, parseProbes } from '../../src/pod/probes.ts';
import { streamModes } from '../../src/pod/streams.ts';
import { appSupervision, podSupervision } from '../../src/pod/supervision.ts';
import { annotationsOf } from '../isolation.ts';
import type { Limit } from '../limits.ts';
import { planCgroups } from './cgroups.ts';
import { hasJournal } from './host.ts';
import { plansInside } from './stage1-tree.ts';

/** Bytes of a log file before it is rotated, and how many old ones are kept. */
export const LOG_BYTES = String(10 * 1024 * 1024);
export const LOGS_KEPT = '3';

/** What of an init's surroundings its plan depends on. */
export interface Surroundings {
  /** Its cgroup v2 tree is its own. */
  readonly unified: boolean;
  /** What can be enforced, by app. */
  readonly limits: ReadonlyMap<string, readonly Limit[]>;
  /** Whether it has to bring up the loopback interface. */
  readonly loopback: boolean;
  readonly journal: boolean;
}

/** Under systemd-nspawn on this host. */
function onHost(pod: Pod): Surroundings {
  const { net } = pod.options;
  return {
    ...planCgroups(pod),
    // A namespace with networks comes with its loopback up, and init has no right to change it.
    loopback: net !== 'host' && !wantsNetworks(net),
    journal: hasJournal(),
  };
}

export function initSteps(pod: Pod, around: Surroundings = onHost(pod)): readonly Step[] {
  const { exitPolicy, stopSeconds } = podSupervision(pod.manifest);
  return [
    ['program', pod.options.program],
    ['pod', pod.uuid],
    ['exit-policy', isMutable(pod.manifest) ? 'never' : (exitPolicy ?? 'first-failure')],
    ...(stopSeconds === undefined
      ? []
      : ([['stop-timeout', String(stopSeconds)]] satisfies Step[])),
    ...(around.loopback ? ([['loopback']] satisfies Step[]) : []),
    ...(around.unified ? ([['cgroups', '/sys/fs/cgroup']] satisfies Step[]) : []),
    ...pod.apps.flatMap(app => appInitSteps(pod, app, around)),
  ];
}

export function probesOf(pod: Pod, app: PodApp): readonly Probe[] {
  const found = annotationsOf(pod, app).find(({ name }) => name === PROBES_ANNOTATION);
  return found === undefined ? [] : parseProbes(found.value);
}

function probeStep(app: PodApp, probe: Probe): Step {
  const { kind, how, delay, period, timeout, failures, successes } = probe;
  const words =
    'exec' in how
      ? ['exec', `${plansInside(app.name)}/probe-${kind}`, '-']
      : 'tcp' in how
        ? ['tcp', String(how.tcp), '/']
        : ['http', String(how.http), how.path];
  return ['probe', kind, ...words, ...[delay, period, timeout, failures, successes].map(String)];
}

/** One app of the init plan. */
export function appInitSteps(
  pod: Pod,
  app: PodApp,
  around: Surroundings = onHost(pod),
): readonly Step[] {
  const { stdin, stdout, stderr } = streamModes(annotationsOf(pod, app), pod.options.interactive);
  const { first, restart, stopSeconds, stopSignal } = appSupervision(annotationsOf(pod, app));
  return [
    ['app', app.name],
    ['launch', `${plansInside(app.name)}/launch-plan`],
    ...(first ? ([['first']] satisfies Step[]) : []),
    ...probesOf(pod, app).map(probe => probeStep(app, probe)),
    ...(restart === undefined ? [] : ([['restart', restart]] satisfies Step[])),
    ...(stopSignal === undefined ? [] : ([['stop-signal', String(stopSignal)]] satisfies Step[])),
    ...(stopSeconds === undefined
      ? []
      : ([['stop-timeout', String(stopSeconds)]] satisfies Step[])),
    ...(app.app.eventHandlers ?? []).map(
      ({ name }): Step => [name, `${plansInside(app.name)}/${name}`],
    ),
    ['stdin', stdin],
    ['stdout', stdout],
    ['stderr', stderr],
    around.journal
      ? ['log', 'journal']
      : ['log', 'file', `/rkt/logs/${app.name}.log`, LOG_BYTES, LOGS_KEPT],
    ...(takesSockets(pod, app) ? ([['sockets']] satisfies Step[]) : []),
    ...(around.limits.get(app.name) ?? []).flatMap(limitSteps),
  ];
}

/** Socket activation: what systemd hands over is for the only app, or for those whose ports say so. */
function takesSockets(pod: Pod, { app }: PodApp): boolean {
  return pod.apps.length === 1 || (app.ports ?? []).some(port => port.socketActivated === true);
}

function limitSteps({ v2 }: Limit): readonly Step[] {
  const steps: Step[] = [];
  for (let i = 0; i + 1 < v2.length; i += 2) steps.push(['limit', v2[i] ?? '', v2[i + 1] ?? '']);
  return steps;
}
