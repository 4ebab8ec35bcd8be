/** Plans that nobody wrote: the reader answers every one with a line, under the sanitizers too. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { encodePlan, type Step } from '../../src/pod/launch-plan.ts';
import { artifact } from '../../src/sys/artifacts.ts';
import { cases } from '../support/fuzz.ts';

const source = (path: string) => new URL(`../../${path}`, import.meta.url).pathname;
let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'tspod-fuzz-'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const VERBS = [
  'hold',
  'attach',
  'bind',
  'overlay',
  'tmpfs',
  'file',
  'cgroup',
  'init',
  'supervise',
  'start',
  'exec',
  'user',
  'env',
  'seccomp',
  'rlimit',
  'capabilities',
];
const word = fc.oneof(
  fc.constantFrom('0', 'root', '/', 'ro', '-1', '644', 'mode=1777'),
  fc.string(),
  fc.uint8Array({ maxLength: 64 }),
);
const step: fc.Arbitrary<Step> = fc
  .tuple(
    fc.constantFrom(...VERBS),
    fc.array(
      word.filter(w => typeof w !== 'string' || !w.includes('\0')),
      { maxLength: 6 },
    ),
  )
  .map(([verb, words]): Step => [verb, ...words]);
const wellFormed = fc.array(step, { minLength: 1, maxLength: 8 }).map(steps => encodePlan(steps));
/** A plan with some bytes changed, then cut. */
const mutated = fc
  .tuple(
    wellFormed,
    fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { maxLength: 4 }),
    fc.nat(),
  )
  .map(([plan, changes, cut]) => {
    const bytes = Buffer.from(plan);
    for (const [at, value] of changes) bytes[8 + (at % (bytes.length - 8))] = value;
    return bytes.subarray(0, 8 + (cut % (bytes.length - 7)));
  });
const any = fc.oneof(wellFormed, mutated, fc.uint8Array({ maxLength: 200 }));

function frame(plan: Uint8Array): Uint8Array {
  const length = Buffer.alloc(4);
  length.writeUInt32LE(plan.length);
  return Buffer.concat([length, plan]);
}

describe('plan reader', () => {
  test('answers 20,000 plans under AddressSanitizer and UBSan', () => {
    const reader = join(dir, 'reader');
    const built = spawnSync(
      'cc',
      [
        '-g',
        '-O1',
        '-fsanitize=address,undefined',
        '-fno-sanitize-recover=all',
        `-I${source('native')}`,
        '-o',
        reader,
        source('test/launch/fixtures/plan-reader.c'),
        source('native/common/plan.c'),
        source('native/common/die.c'),
      ],
      { encoding: 'utf8' },
    );
    expect(built.stderr).toBe('');
    const plans = fc.sample(any, cases(20_000));
    const result = spawnSync(reader, {
      input: Buffer.concat(plans.map(frame)),
      encoding: 'utf8',
      maxBuffer: 1 << 26,
    });
    expect(result).toMatchObject({ stderr: '', status: 0, signal: null });
    expect(result.stdout.trimEnd().split('\n').length).toBe(plans.length);
  });

  test('launch --check ends every plan in success or one line', () => {
    const file = join(dir, 'plan');
    fc.assert(
      fc.property(any, plan => {
        writeFileSync(file, plan);
        const result = spawnSync(artifact('launch'), ['--check', file], { encoding: 'utf8' });
        if (result.status === 0) return result.stderr === '';
        return result.status === 254 && /^launch: can't use [^\n]+\n$/.test(result.stderr);
      }),
      { numRuns: cases(1000) },
    );
  });

  test('stage2 app refuses what is no app plan in one line', () => {
    const file = join(dir, 'app-plan');
    fc.assert(
      fc.property(mutated, plan => {
        writeFileSync(file, plan);
        // No plan here names a root, so none can go further than the check.
        const result = spawnSync(
          'sh',
          ['-c', 'exec "$0" app --plan-fd 3 3<"$1"', artifact('stage2'), file],
          { encoding: 'utf8' },
        );
        return (
          result.status === 254 && /^stage2: can't use the app plan: [^\n]+\n$/.test(result.stderr)
        );
      }),
      { numRuns: cases(500) },
    );
  });
});
