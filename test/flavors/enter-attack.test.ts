/** The pod's own app against whoever enters it: under fly both see each other among the host's processes. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import { Sandbox } from '../support/tspod.ts';
import { ContractImage } from './contract-image.ts';

const ROUNDS = 25;
/** The entering process looks for its command in each: as long as that takes it is in the pod, and not yet its. */
const LONG_PATH = Array.from({ length: 2000 }, (_, index) => `/none/${index}`).join(':');

let work: string;
let image: ContractImage;
let box: Sandbox;
beforeAll(async () => {
  work = mkdtempSync(join(tmpdir(), 'tspod-attack-'));
  image = await ContractImage.make(join(inject('layouts'), 'busybox'), work);
  const source = join(import.meta.dirname, 'enter-attack.c');
  execFileSync('cc', ['-O2', '-Wall', '-Werror', '-static', '-o', join(work, 'attack'), source]);
  box = new Sandbox();
});
afterAll(async () => {
  await box.close();
  rmSync(work, { recursive: true, force: true });
});

test.each<[string, readonly string[]]>([
  ['an unprivileged user', ['--user=ann']],
  ['root without CAP_SYS_PTRACE', ['--caps-remove=CAP_SYS_PTRACE']],
])('CVE-2016-9962: %s neither traces nor looks into who enters', async (_, flags) => {
  const pod = box.start(
    [
      'run',
      '--pod-name=attacked',
      `--volume=a,kind=host,source=${work}/attack,readOnly=true`,
      '--mount=volume=a,target=/attack',
      image.with({ Entrypoint: ['/attack'], Env: [`PATH=${LONG_PATH}:/bin`] }),
      ...flags,
    ],
    { keepInput: true },
  );
  const said = createInterface({ input: pod.child.stdout ?? process.stdin });
  const lines = said[Symbol.asyncIterator]();
  expect((await lines.next()).value).toBe('up');
  const successes: unknown[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const entering = box.start(['enter', 'attacked', 'true']);
    pod.child.stdin?.write(`${entering.pid}\n`);
    await entering.ended;
    for (;;) {
      const line: unknown = (await lines.next()).value;
      if (line === 'next' || line === undefined) break;
      successes.push(line);
    }
  }
  pod.child.stdin?.end();
  const ended = await pod.ended;
  await box.run(['gc', '--grace-period=0s']);
  expect(successes).toEqual([]);
  expect(ended.status).toBe(0);
  // Otherwise nothing was tried: it was always too early or too late.
  const denied = /denied (\d+)/.exec(ended.stdout)?.[1];
  expect(Number(denied)).toBeGreaterThan(ROUNDS);
});
