/**
 * Any process of a pod with a machine killed at any instant: the one that was started, the machine's keeper, QEMU, the
 * file server, or tspod while it prepares. Afterwards no process of the pod lives, `list` tells what is true, gc takes
 * everything away: taps, namespaces, addresses, sockets, disks.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { fromLayout, useSandbox } from '../functional/sandbox.ts';
import { Host } from '../net/host.ts';
import { giveVmImage, KVM_FLAGS } from '../support/vm-image.ts';

const use = useSandbox();

const KILLS = Number(process.env['TSPOD_KILLS'] ?? 50);
const AT_ONCE = 5;
/** A machine under emulation is up after some seconds, on a busy one. */
const LATEST_MS = 5000;

const VICTIMS = ['started', 'keeper', 'qemu', 'server'] as const;
type Victim = (typeof VICTIMS)[number];

test(`killed at random, ${KILLS} times`, { timeout: 400_000 }, async () => {
  giveVmImage(use.box);
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
      const killed = await killOne(host, image, victim, round % 2 === 0);
      seen.set(killed, (seen.get(killed) ?? 0) + 1);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, (_, number) => worker(number)));
  // Each of them must have been hit, or this tests in name only.
  for (const victim of VICTIMS) expect(seen.get(victim) ?? 0, victim).toBeGreaterThan(0);
  expect(
    await use.box.leftovers().then(found => found.filter(line => !line.includes('cat'))),
  ).toEqual([]);
  const listed = await host.tspod('list', '--format=json');
  expect(listed).toMatchObject({ status: 0, stderr: '' });
  const pods: readonly { state: string }[] = JSON.parse(listed.stdout);
  for (const { state } of pods) expect(state).toMatch(/^(?:exited|aborted prepare|embryo)$/);
  const collected = await host.tspod('gc', '--grace-period=0s', '--expire-prepared=0s');
  expect(collected.status, collected.stderr).toBe(0);
  expect(JSON.parse((await host.tspod('list', '--format=json')).stdout)).toEqual([]);
  for (const phase of ['embryo', 'prepare', 'prepared', 'run', 'exited-garbage', 'garbage']) {
    const folder = join(use.box.dir, 'pods', phase);
    if (existsSync(folder)) expect(readdirSync(folder), phase).toEqual([]);
  }
  expect(await host.tspod('run', '--rm', ...pod(image, 'exit 3'))).toMatchObject({ status: 3 });
  expect(await host.state()).toBe(before);
  await host.stop();
});

function pod(image: string, script: string): string[] {
  return [
    ...KVM_FLAGS,
    '--net=default',
    '--vm-memory=128Mi',
    '--disk-size=32Mi',
    '--volume=v,kind=empty',
    image,
    '--mount=volume=v,target=/v',
    '--exec=/bin/sh',
    '--',
    '-c',
    script,
  ];
}

/** @returns what was hit: `preparing` when it was too early for the one that was wanted */
async function killOne(host: Host, image: string, victim: Victim, waits: boolean): Promise<string> {
  const started = host.start(['run', ...pod(image, 'sleep 1000')]);
  await new Promise(resolve => setTimeout(resolve, Math.random() * LATEST_MS));
  let pid = processesOf(started.pid)[victim];
  // On a busy machine it may come late; half of the time it is waited for.
  for (let tries = 0; pid === undefined && waits && tries < 200; tries++) {
    await new Promise(resolve => setTimeout(resolve, 50));
    pid = processesOf(started.pid)[victim];
  }
  kill(pid ?? started.pid);
  await started.ended;
  return pid === undefined ? 'preparing' : victim;
}

function processesOf(started: number): Readonly<Record<Victim, number | undefined>> {
  const keeper = childrenOf(started)[0];
  const kept = keeper === undefined ? [] : childrenOf(keeper);
  return {
    started,
    keeper,
    qemu: kept.find(pid => nameOf(pid).startsWith('qemu')),
    server: kept.find(pid => nameOf(pid).startsWith('virtiofsd')),
  };
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // it was quicker
  }
}

function nameOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8');
  } catch {
    return '';
  }
}

function childrenOf(pid: number): readonly number[] {
  const tasks = `/proc/${pid}/task`;
  if (!existsSync(tasks)) return [];
  return readdirSync(tasks).flatMap(task => {
    try {
      return readFileSync(`${tasks}/${task}/children`, 'utf8')
        .split(' ')
        .filter(Boolean)
        .map(Number);
    } catch {
      return [];
    }
  });
}
