/**
 * The whole life of a pod under nspawn: bare systemd-nspawn on a plain folder, podman run, podman pod, and a
 * pod of ten apps; and what the supervisors of a pod cost while it lives.
 */
import { spawn, spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { imageLayout } from '../images/images.ts';
import { aim, type Contestant, compare, memoryBelow, mib, table } from './compare.ts';
import { must, podmanIn, skopeoToPodman } from './peers.ts';

const APPS = 10;
const SETTLE_MS = 1500;

export async function pods(work: string, tspod: string, rounds: number): Promise<void> {
  const layout = await imageLayout('busybox');
  const podman = podmanIn(work, 'pods');
  skopeoToPodman(work, layout, 'localhost/busybox:latest', 'pods');
  const words = [tspod, `--dir=${work}/pods`, '--insecure-options=image'];
  const image = must(tspod, [...words.slice(1), 'fetch', '--full', `oci:${layout}:latest`]).trim();
  const run = [...words, 'run', '--stage1-name=nspawn', '--net=none'];
  const bare = [...nspawn(bareTree(work)), '/bin/true'];
  const contestants: readonly Contestant[] = [
    { name: 'node -e 0', argv: [process.execPath, '-e', '0'] },
    { name: 'bare nspawn', argv: bare },
    { name: 'tspod pod', argv: [...run, image, '--exec=/bin/true'] },
    {
      name: 'podman run',
      argv: [
        ...podman,
        'run',
        '--rm',
        '--network=none',
        '--cgroups=disabled',
        'localhost/busybox:latest',
        '/bin/true',
      ],
    },
    {
      name: `tspod ${APPS} apps`,
      argv: [
        ...run,
        ...Array.from({ length: APPS }, (_, index) => [
          image,
          `--name=app-${index}`,
          '--exec=/bin/true',
        ]).flat(),
      ],
    },
  ];
  const figures = await compare(contestants, rounds);
  table(`whole life of a pod that runs true (${rounds} rounds)`, figures, 'bare nspawn');
  const of = (name: string) => figures.find(figure => figure.name === name)?.median ?? Number.NaN;
  const most = of('bare nspawn') + 1.5 * of('node -e 0');
  console.log(
    `  tspod pod: ${of('tspod pod').toFixed(0)} ms (aim: bare nspawn + 1.5 × node -e 0 = ${most.toFixed(0)} ms)${of('tspod pod') <= most ? '' : '  MISSED'}`,
  );
  aim('tspod pod', 'podman run', 1, figures);
  await residents(work, run, image);
}

function nspawn(tree: string): readonly string[] {
  return [
    'systemd-nspawn',
    '-q',
    '--register=no',
    '--keep-unit',
    '--private-network',
    '--console=pipe',
    '-D',
    tree,
  ];
}

function bareTree(work: string): string {
  const tree = join(work, 'bare');
  for (const folder of ['bin', 'usr', 'etc']) mkdirSync(join(tree, folder), { recursive: true });
  copyFileSync('/bin/busybox', join(tree, 'bin/true'));
  copyFileSync('/bin/busybox', join(tree, 'bin/sleep'));
  return tree;
}

/** Memory of everything in a pod but its app, which is the same sleeping busybox in both. */
async function residents(work: string, run: readonly string[], image: string): Promise<void> {
  const bare = await memoryOf([...nspawn(bareTree(join(work, 'resident'))), '/bin/sleep', '60']);
  const pod = await memoryOf([...run, image, '--exec=/bin/sleep', '--', '60']);
  const more = pod - bare;
  console.log(
    `  memory of a pod with a sleeping app: ${mib(pod)}, bare nspawn ${mib(bare)}, more ${mib(more)} (aim: 1 MB)${more <= 1e6 ? '' : '  MISSED'}\n`,
  );
}

async function memoryOf([program = '', ...words]: readonly string[]): Promise<number> {
  const child = spawn(program, words, { stdio: 'ignore' });
  await new Promise(resolve => setTimeout(resolve, SETTLE_MS));
  const bytes = memoryBelow(child.pid ?? 0);
  for (const pid of descendants(child.pid ?? 0)) spawnSync('kill', ['-9', String(pid)]);
  await new Promise(resolve => child.once('exit', resolve));
  return bytes;
}

function descendants(pid: number): readonly number[] {
  let children: readonly number[] = [];
  try {
    children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
      .split(' ')
      .filter(word => word !== '')
      .map(Number);
  } catch {
    // it has ended
  }
  return [...children.flatMap(descendants), pid];
}
