/**
 * When to ask again: a server that is too busy (429), that failed (5xx), or a connection that broke. Never
 * for what will be the same next time. Waiting doubles, with jitter, and obeys Retry-After up to a bound.
 */
import { setTimeout as wait } from 'node:timers/promises';
import { TspodError } from '../../src/errors.ts';

export interface Timing {
  /** ms to connect, TLS included */
  readonly connect: number;
  /** ms from the request to the head of the answer */
  readonly headers: number;
  /** ms without a byte of a body */
  readonly idle: number;
  /** Tries of one request, the first included. */
  readonly attempts: number;
  /** ms before the second try */
  readonly backoff: number;
  /** ms; the most that a Retry-After is obeyed */
  readonly longestWait: number;
}

export const TIMING: Timing = {
  connect: 15_000,
  headers: 30_000,
  idle: 60_000,
  attempts: 5,
  backoff: 500,
  longestWait: 60_000,
};

/** A failure that another try may mend. */
export class Transient extends TspodError {
  /** ms that the server asked for */
  readonly retryAfter: number | undefined;

  constructor(error: TspodError, retryAfter?: number) {
    super(error.code, error.message, {
      ...(error.hint === undefined ? {} : { hint: error.hint }),
      cause: error.cause,
    });
    this.retryAfter = retryAfter;
  }
}

export function isTransientStatus(status: number): boolean {
  return status === 429 || status === 408 || (status >= 500 && status !== 501 && status !== 505);
}

/** Seconds or an HTTP date (RFC 9110, 10.2.3), as ms from now. */
export function parseRetryAfter(header: string | null, now = Date.now()): number | undefined {
  if (header === null) return undefined;
  if (/^[0-9]{1,9}$/.test(header)) return Number(header) * 1000;
  const date = Date.parse(header);
  return Number.isNaN(date) ? undefined : Math.max(0, date - now);
}

/** ms before try number `attempt` (1 is the second). */
export function waitBefore(attempt: number, timing: Timing, retryAfter?: number): number {
  const doubled = timing.backoff * 2 ** (attempt - 1);
  const jittered = doubled * (0.5 + Math.random() / 2);
  return Math.min(timing.longestWait, Math.max(jittered, retryAfter ?? 0));
}

/** @throws AbortError when the signal comes */
export async function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  await wait(ms, undefined, signal === undefined ? {} : { signal });
}

/** Runs `work` until it succeeds, fails for good, has used up its tries, or is to stop. */
export async function withRetries<T>(
  timing: Timing,
  work: () => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof Transient) || attempt >= timing.attempts) throw error;
      await sleep(waitBefore(attempt, timing, error.retryAfter), signal);
    }
  }
}
