/**
 * The launch plan: an ordered list of steps that the launcher (stage1-flavors/launch) or the app
 * starter (stage2) executes, and the format in which C reads it without a parser to speak of.
 *
 * A step is a verb and its arguments. The verbs and their arguments are documented beside the code
 * that executes them: docs/launch-plan.md. `run --dry-run` prints a plan as JSON.
 *
 * File format: the 8 bytes "TSPLAN1\n", then steps until the end; a step is a little-endian uint32
 * count of words, then each word as a little-endian uint32 byte length, the bytes, and one NUL byte
 * that the length does not count, so that C can use the word in place.
 */
import { TspodError } from '../errors.ts';

/** A word is text, or bytes where C takes binary data (a seccomp program). */
export type Word = string | Uint8Array;
export type Step = readonly [verb: string, ...args: Word[]];

export interface LaunchPlan {
  /** Executed by the launcher, in the pod's folder. */
  readonly steps: readonly Step[];
  /** One app plan by app name, for stage2; stored as `appsinfo/<app>/app-plan`. */
  readonly apps: ReadonlyMap<string, readonly Step[]>;
  /** For flavors with an init: its plans by path in the pod's folder (docs/stage2-init.md). */
  readonly inside?: ReadonlyMap<string, readonly Step[]>;
  /** Folders that have to be there, by path in the pod's folder. */
  readonly folders?: readonly string[];
}

export const PLAN_MAGIC = 'TSPLAN1\n';
/** The launcher refuses more than this. */
export const PLAN_MAX_BYTES = 16 * 1024 * 1024;

/** @throws TspodError 'limit' for a plan over PLAN_MAX_BYTES, 'pod' for text with a NUL in it. */
export function encodePlan(steps: readonly Step[]): Uint8Array {
  const chunks: Uint8Array[] = [Buffer.from(PLAN_MAGIC)];
  for (const step of steps) {
    chunks.push(uint32(step.length));
    for (const word of step) {
      if (typeof word === 'string' && word.includes('\0')) {
        throw new TspodError('pod', `launch plan: NUL byte in an argument of ${step[0]}`);
      }
      const bytes = typeof word === 'string' ? Buffer.from(word) : word;
      chunks.push(uint32(bytes.length), bytes, NUL);
    }
  }
  const plan = Buffer.concat(chunks);
  if (plan.length > PLAN_MAX_BYTES) {
    throw new TspodError(
      'limit',
      `launch plan: ${plan.length} bytes is over the limit of ${PLAN_MAX_BYTES}`,
    );
  }
  return plan;
}

/** A plan as JSON-able value: text as it is, bytes as `{"base64": …}`. */
export function planToJson(plan: LaunchPlan): unknown {
  const show = (steps: readonly Step[]) =>
    steps.map(step =>
      step.map(word =>
        typeof word === 'string' ? word : { base64: Buffer.from(word).toString('base64') },
      ),
    );
  return {
    launcher: show(plan.steps),
    apps: Object.fromEntries([...plan.apps].map(([name, steps]) => [name, show(steps)])),
    ...(plan.inside === undefined
      ? {}
      : {
          inside: Object.fromEntries([...plan.inside].map(([path, steps]) => [path, show(steps)])),
        }),
  };
}

const NUL = Buffer.from([0]);

function uint32(value: number): Uint8Array {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}
