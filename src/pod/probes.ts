/**
 * How a pod's init is to ask an app how it is (Kubernetes, "probes"). appc has no word for it, so it is in an annotation
 * of our own, which no image can set: JSON, a list of probes.
 */
import { TspodError } from '../errors.ts';
import { isObject } from '../image/json.ts';

export const PROBES_ANNOTATION = 'tspod/probes';
export const PROBE_KINDS = ['startup', 'liveness', 'readiness'] as const;

export interface Probe {
  readonly kind: (typeof PROBE_KINDS)[number];
  readonly how:
    | { readonly exec: readonly string[] }
    | { readonly tcp: number }
    | { readonly http: number; readonly path: string };
  /** Seconds, from the app's start. */
  readonly delay: number;
  /** Seconds. */
  readonly period: number;
  /** Seconds. */
  readonly timeout: number;
  /** In a row. */
  readonly failures: number;
  readonly successes: number;
}

/** @param text the annotation's value. @throws TspodError 'pod' */
export function parseProbes(text: string): readonly Probe[] {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    value = undefined;
  }
  if (Array.isArray(value) && value.every(isProbe)) return value;
  throw new TspodError('pod', `annotation ${PROBES_ANNOTATION}: it is no list of probes`);
}

function isProbe(value: unknown): value is Probe {
  if (!isObject(value) || !isObject(value['how'])) return false;
  const { how } = value;
  const whole = (number: unknown, low: number) =>
    typeof number === 'number' && Number.isInteger(number) && number >= low && number <= 86_400;
  const isHow =
    (Array.isArray(how['exec']) &&
      how['exec'].length > 0 &&
      how['exec'].every(word => typeof word === 'string' && !word.includes('\0'))) ||
    whole(how['tcp'], 1) ||
    (whole(how['http'], 1) && typeof how['path'] === 'string' && isHttpPath(how['path']));
  return (
    PROBE_KINDS.some(kind => kind === value['kind']) &&
    isHow &&
    whole(value['delay'], 0) &&
    ['period', 'timeout', 'failures', 'successes'].every(key => whole(value[key], 1))
  );
}

/** What can stand in a request line. */
export function isHttpPath(path: string): boolean {
  return /^\/[!-~]{0,999}$/.test(path);
}
