/**
 * Any process of a pod under nspawn killed at any instant: the one that was started, systemd-nspawn, init, an
 * app, or tspod while it prepares or sets up networks. Afterwards no process of the pod lives, `list` tells what is true,
 * gc takes everything away, addresses and rules included, and `sandbox` finds nothing left on the machine.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { fromLayout, useSandbox } from '../functional/sandbox.ts';
import { Host } from '../net/host.ts';

const use = useSandbox();

/** In all; this many at once. */
const KILLS = Number(process.env['TSPOD_KILLS'] ?? 200);
const AT_ONCE = 8;
/** A pod is up after about 300 ms. */
const LATEST_MS = 700;

/** After that, what was killed was nobody that the pod needs. */
const MISSED_MS = 10_000;

const VICTIMS = ['started', 'nspawn', 'init', 'app'] as const;

test(`killed at random, ${KILLS} times`, { timeout: 300_000 }, async () => {
  const host = await Host.start(use.box);
  const before = await host.state();
  const image = fromLayout('busybox');
  expect(await host.tspod('fetch', image)).toMatchObject({ status: 0 });
  let left = KILLS;
  const seen = new Map<string, number>();
  const worker = async (number: number) => {
    for (let round = 0; left > 0; round++) {
      left -= 1;
      const victim = VICTIMS[(number + round) % VICTIMS.length] ?? 'started';
      const killed = await killOne(host, image, victim, number * 1000 + round);
      seen.set(killed, (seen.get(killed) ?? 0) + 1);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, (_, number) => worker(number)));
  // Each of them must have been hit, or this tests in name only.
  for (const victim of VICTIMS) expect(seen.get(victim) ?? 0, victim).toBeGreaterThan(0);
  const listed = await host.tspod('list', '--format=json');
  const pods: readonly { state: string }[] = JSON.parse(listed.stdout);
  for (const { state } of pods) expect(state).toMatch(/^(?:exited|aborted prepare|embryo)$/);
  const collected = await host.tspod('gc', '--grace-period=0s', '--expire-prepared=0s');
  expect(collected.status, collected.stderr).toBe(0);
  expect(JSON.parse((await host.tspod('list', '--format=json')).stdout)).toEqual([]);
  expect(await host.tspod('run', '--rm', ...pod(image, 'exit 3', 7))).toMatchObject({ status: 3 });
  expect(await host.state()).toBe(before);
  await host.stop();
});

function pod(image: string, script: string, mark: number): string[] {
  return [
    '--stage1-name=nspawn',
    '--net=default',
    image,
    '--name=one',
    '--exec=/bin/sh',
    '--',
    '-c',
    `: ${mark}; ${script}`,
    '---',
    image,
    '--name=two',
    '--exec=/bin/sleep',
    '--',
    '1000',
  ];
}

/** @returns what was hit: `preparing` when it was too early for the one that was wanted */
async function killOne(
  host: Host,
  image: string,
  victim: (typeof VICTIMS)[number],
  mark: number,
): Promise<string> {
  const started = host.start(['run', ...pod(image, 'sleep 1000', mark)]);
  await new Promise(resolve => setTimeout(resolve, Math.random() * LATEST_MS));
  let pid = processesOf(started.pid)[victim];
  // On a busy machine it may come late; half of the time it is waited for.
  for (let tries = 0; pid === undefined && mark % 2 === 0 && tries < 200; tries++) {
    await new Promise(resolve => setTimeout(resolve, 50));
    pid = processesOf(started.pid)[victim];
  }
  kill(pid ?? started.pid);
  // An app that is killed ends the pod with 137; everything else ends it by the death of the rest. What had ended by
  // itself (systemd-nspawn's own helper, which is its first child) takes nobody with it.
  let missed = pid === undefined;
  const again = setTimeout(() => {
    missed = true;
    kill(started.pid);
  }, MISSED_MS);
  await started.ended;
  clearTimeout(again);
  return missed ? 'preparing' : victim;
}

function processesOf(
  started: number,
): Readonly<Record<(typeof VICTIMS)[number], number | undefined>> {
  const nspawn = childrenOf(started)[0];
  const init = nspawn === undefined ? undefined : childrenOf(nspawn)[0];
  const app = init === undefined ? undefined : childrenOf(init)[0];
  return { started, nspawn, init, app };
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // it was quicker
  }
}

function childrenOf(pid: number): readonly number[] {
  const tasks = `/proc/${pid}/task`;
  if (!existsSync(tasks)) return [];
  try {
    return readdirSync(tasks).flatMap(task =>
      readFileSync(join(tasks, task, 'children'), 'utf8')
        .split(' ')
        .filter(word => word !== '')
        .map(Number),
    );
  } catch {
    return [];
  }
}
