/**
 * Pods in machines: until the app's first line, beside a bare QEMU that boots the same kernel under the same accelerator with
 * a first file system that does nothing but say a line; and what such a pod costs the host beside QEMU.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { cpioArchive } from '../../src/cpio/newc.ts';
import { currentVmImage, vmImagesFolder } from '../../src/pod/vm-image.ts';
import { artifact } from '../../src/sys/artifacts.ts';
import { bootWords, findQemu } from '../../stage1-flavors/kvm/qemu.ts';
import { imageLayout } from '../images/images.ts';
import { mib } from './compare.ts';
import { must } from './peers.ts';

const MEMORY = 512 * 1024 * 1024;
/** Of QEMU, whose memory is the guest's and its own; each file server may have this. */
const MOST_PER_SERVER = 10e6;

export async function machines(work: string, tspod: string, rounds: number): Promise<void> {
  const layout = await imageLayout('busybox');
  const words = [`--dir=${work}/machines`, '--insecure-options=image'];
  must(tspod, [...words, 'stage1', 'build', 'kvm']);
  const image = must(tspod, [...words, 'fetch', '--full', `oci:${layout}:latest`]).trim();
  const run = [tspod, ...words, 'run', '--stage1-name=kvm', '--qemu-accel=tcg', '--net=none'];
  const pod = [...run, image, '--exec=/bin/sh', '--', '-c', 'echo up; exec sleep 60'];
  must(tspod, [...run.slice(1), image, '--exec=/bin/true']);
  const contestants = [
    { name: 'node -e 0', argv: [process.execPath, '-e', 'console.log(0)'] },
    { name: 'bare QEMU', argv: bareQemu(work, `${work}/machines`) },
    { name: 'tspod pod', argv: pod },
  ];
  const times = new Map<string, number[]>(contestants.map(({ name }) => [name, []]));
  for (let round = 0; round < rounds; round++)
    for (const { name, argv } of contestants) times.get(name)?.push(await firstLine(argv));
  const median = (name: string) => {
    const sorted = [...(times.get(name) ?? [])].sort((a, b) => a - b);
    return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
  };
  console.log(`until the first line, of the app or of a bare machine (${rounds} rounds)`);
  for (const { name } of contestants) console.log(`  ${name}: ${median(name).toFixed(0)} ms`);
  const most = 1.25 * median('bare QEMU') + median('node -e 0');
  console.log(
    `  aim: 1.25 × bare QEMU + node -e 0 = ${most.toFixed(0)} ms${median('tspod pod') <= most ? '' : '  MISSED'}`,
  );
  await residents(pod);
}

/** `vm` as /init, without anything else, says a line and ends the machine. */
function bareQemu(work: string, dir: string): readonly string[] {
  const initramfs = join(work, 'bare.cpio');
  writeFileSync(
    initramfs,
    cpioArchive([
      { type: 'folder', name: 'dev', mode: 0o755 },
      { type: 'character-device', name: 'dev/console', mode: 0o600, major: 5, minor: 1 },
      { type: 'file', name: 'init', mode: 0o755, content: readFileSync(artifact('vm')) },
    ]),
  );
  return [
    findQemu(),
    ...bootWords({ accel: 'tcg', cpus: 1, memory: MEMORY }),
    '-kernel',
    join(vmImagesFolder(dir), currentVmImage(dir) ?? '', 'kernel'),
    '-initrd',
    initramfs,
    '-serial',
    'stdio',
  ];
}

/** ms from the start to a whole line that is not the kernel's. */
async function firstLine([program = '', ...words]: readonly string[]): Promise<number> {
  const began = performance.now();
  const child = spawn(program, words, { stdio: ['ignore', 'pipe', 'inherit'] });
  const took = await new Promise<number>((resolve, reject) => {
    let said = '';
    child.stdout?.on('data', chunk => {
      said += chunk;
      if (/^(?!\[ *\d)[^\r\n]+\r?\n/m.test(said)) resolve(performance.now() - began);
    });
    child.once('exit', () => reject(new Error(`${program} ended without a line: ${said}`)));
  });
  await endOf(child);
  return took;
}

async function endOf(child: ChildProcess): Promise<void> {
  const gone = new Promise(resolve => child.once('close', resolve));
  child.kill('SIGKILL');
  await gone;
}

/** What belongs to a running pod and is not QEMU. */
async function residents([program = '', ...words]: readonly string[]): Promise<void> {
  const child = spawn(program, words, { stdio: ['ignore', 'pipe', 'inherit'] });
  await new Promise(resolve => child.stdout?.once('data', resolve));
  const found = descendants(child.pid ?? 0).map(pid => ({
    name: readFileSync(`/proc/${pid}/comm`, 'utf8').trim(),
    bytes: proportional(pid),
  }));
  await endOf(child);
  const others = found.filter(({ name }) => !name.startsWith('qemu'));
  const servers = others.filter(({ name }) => name.startsWith('virtiofsd'));
  const sum = (list: readonly { readonly bytes: number }[]) =>
    list.reduce((total, { bytes }) => total + bytes, 0);
  const own = sum(others) - sum(servers);
  console.log(
    `  beside QEMU: launcher and keeper ${mib(own)}, file servers ${mib(sum(servers))} (aim: together at most 10 MB for each server)${sum(others) <= MOST_PER_SERVER ? '' : '  MISSED'}\n`,
  );
}

/** Pss: what is shared is divided among those that share it. */
function proportional(pid: number): number {
  const kib = /^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))?.[1];
  return Number(kib ?? 0) * 1024;
}

function descendants(pid: number): readonly number[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
    .split(' ')
    .filter(word => word.trim() !== '')
    .map(Number);
  return [pid, ...children.flatMap(descendants)];
}
