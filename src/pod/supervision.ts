/**
 * How a pod's init is to watch over the apps: when the pod ends, what is started again, how long a stop waits.
 * appc has no word for it, so it is in annotations of our own, which no image can set.
 */
import { constants } from 'node:os';
import { TspodError } from '../errors.ts';
import type { NameValue, PodManifest } from '../image/appc.ts';
import { STOP_SIGNAL_ANNOTATION } from '../image/convert.ts';

export const EXIT_POLICIES = ['first-failure', 'all', 'any'] as const;
export const RESTARTS = ['never', 'on-failure', 'always'] as const;
export type ExitPolicy = (typeof EXIT_POLICIES)[number];
export type Restart = (typeof RESTARTS)[number];

export const EXIT_POLICY_ANNOTATION = 'tspod/exit-policy';
export const RESTART_ANNOTATION = 'tspod/restart';
/** Runs to its end before the apps after it are started. */
export const FIRST_ANNOTATION = 'tspod/first';
/** Of the pod, or of one app; whole seconds. */
export const STOP_TIMEOUT_ANNOTATION = 'tspod/stop-timeout';

const MOST_SECONDS = 86_400;

export interface PodSupervision {
  readonly exitPolicy?: ExitPolicy;
  readonly stopSeconds?: number;
}

export interface AppSupervision {
  readonly restart?: Restart;
  readonly first?: boolean;
  readonly stopSeconds?: number;
  /** The signal's number. */
  readonly stopSignal?: number;
}

type Annotations = readonly NameValue[];

/** @throws TspodError 'pod' that names the annotation */
export function podSupervision({ annotations }: Pick<PodManifest, 'annotations'>): PodSupervision {
  const policy = valueIn(annotations, EXIT_POLICY_ANNOTATION);
  const stop = valueIn(annotations, STOP_TIMEOUT_ANNOTATION);
  return {
    ...(policy === undefined
      ? {}
      : { exitPolicy: oneOf(policy, EXIT_POLICIES, EXIT_POLICY_ANNOTATION) }),
    ...(stop === undefined ? {} : { stopSeconds: parseSeconds(stop, STOP_TIMEOUT_ANNOTATION) }),
  };
}

/** @throws TspodError 'pod' that names the annotation */
export function appSupervision(annotations: Annotations): AppSupervision {
  const restart = valueIn(annotations, RESTART_ANNOTATION);
  const stop = valueIn(annotations, STOP_TIMEOUT_ANNOTATION);
  const signal = valueIn(annotations, STOP_SIGNAL_ANNOTATION);
  return {
    ...(restart === undefined ? {} : { restart: oneOf(restart, RESTARTS, RESTART_ANNOTATION) }),
    ...(valueIn(annotations, FIRST_ANNOTATION) === 'true' ? { first: true } : {}),
    ...(stop === undefined ? {} : { stopSeconds: parseSeconds(stop, STOP_TIMEOUT_ANNOTATION) }),
    ...(signal === undefined ? {} : { stopSignal: parseSignal(signal) }),
  };
}

/** @param what the flag or field, for the message */
export function oneOf<T extends string>(text: string, words: readonly T[], what: string): T {
  const found = words.find(word => word === text);
  if (found !== undefined) return found;
  throw new TspodError('pod', `${what}: ${JSON.stringify(text.slice(0, 60))} is unknown`, {
    hint: `give ${words.join(', ')}`,
  });
}

export function parseSeconds(text: string, what: string): number {
  const seconds = /^\d{1,6}$/.test(text) ? Number(text) : Number.NaN;
  if (seconds <= MOST_SECONDS) return seconds;
  throw new TspodError(
    'pod',
    `${what}: ${JSON.stringify(text.slice(0, 60))} is no number of seconds up to ${MOST_SECONDS}`,
  );
}

/** `SIGQUIT`, `QUIT`, `3`, `SIGRTMIN+3` (OCI config.md, StopSignal). */
export function parseSignal(text: string): number {
  const bad = () =>
    new TspodError('pod', `stop signal: ${JSON.stringify(text.slice(0, 60))} is unknown`);
  if (/^\d{1,2}$/.test(text)) {
    const number = Number(text);
    if (number < 1 || number > 64) throw bad();
    return number;
  }
  const name = text.toUpperCase().replace(/^(?:SIG)?/, 'SIG');
  const realTime = /^SIGRTMIN(?:\+(\d{1,2}))?$/.exec(name);
  if (realTime !== null) {
    const number = SIGRTMIN + Number(realTime[1] ?? 0);
    if (number > 64) throw bad();
    return number;
  }
  const found = Object.entries(constants.signals).find(([known]) => known === name)?.[1];
  if (found === undefined) throw bad();
  return found;
}

/** glibc's: it keeps two for itself. */
const SIGRTMIN = 34;

/** The last one counts, as with flags. */
function valueIn(annotations: Annotations, name: string): string | undefined {
  return annotations.findLast(annotation => annotation.name === name)?.value;
}
