/**
 * `npm run bench [-- ROUNDS FETCHES [run] [pods] [machines] [fetch] [read]]`: tspod beside its peers, on this machine, in this run. What is compared is
 * run in turn (A B C A B C …), so that a slow moment hits all of them; printed are medians and ratios.
 *
 * Everything happens in a mount namespace of its own: podman and crun want a clean cgroup tree and mount
 * as they like. Aims stand beside the figures; nothing fails here, since a figure depends on the machine.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { imageLayout } from '../images/images.ts';
import { aim, type Contestant, compare, table } from './compare.ts';
import { fetching } from './fetching.ts';
import { machines } from './machines.ts';
import { bundleOf, must, podmanIn, skopeoToPodman } from './peers.ts';
import { pods } from './pods.ts';
import { reading } from './reading.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const TSPOD = process.env['TSPOD'] ?? join(ROOT, 'bin/tspod');
const LAUNCH = join(TSPOD, '../../dist/launch');
const ROUNDS = Number(process.argv[2] ?? 40);
const FETCHES = Number(process.argv[3] ?? 3);
const ONLY = process.argv.slice(4);

/** Without a name all of them. */
function wanted(name: string): boolean {
  return ONLY.length === 0 || ONLY.includes(name);
}

if (process.env['TSPOD_BENCH_INSIDE'] === undefined) reenter();
else await main();

/** Starts this file again in a mount namespace of its own. */
function reenter(): never {
  const env: NodeJS.ProcessEnv = { ...process.env, TSPOD_BENCH_INSIDE: '1' };
  delete env['NODE_EXTRA_CA_CERTS'];
  const words = ['-m', '--propagation', 'private', process.execPath, ...process.argv.slice(1)];
  process.exit(spawnSync('unshare', words, { stdio: 'inherit', env }).status ?? 1);
}

async function main(): Promise<void> {
  // podman 4 with crun refuses the hybrid cgroup tree; in this namespace the v2 part goes away
  if (readFileSync('/proc/mounts', 'utf8').includes(' /sys/fs/cgroup/unified '))
    must('umount', ['-l', '/sys/fs/cgroup/unified']);
  const work = mkdtempSync(join(tmpdir(), 'tspod-bench-'));
  try {
    if (wanted('run')) await running(work);
    if (wanted('pods')) await pods(work, TSPOD, Math.ceil(ROUNDS / 2));
    if (wanted('machines')) await machines(work, TSPOD, Math.ceil(ROUNDS / 4));
    if (wanted('fetch')) await fetching(work, TSPOD, FETCHES);
    if (wanted('read')) await reading(work, TSPOD, FETCHES);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

async function running(work: string): Promise<void> {
  const layout = await imageLayout('busybox');
  const podman = podmanIn(work);
  skopeoToPodman(work, layout, 'localhost/busybox:latest');
  const tspod = [TSPOD, `--dir=${work}/tspod`, '--insecure-options=image'];
  const image = `oci:${layout}:latest`;
  // By its id in the store, as podman is given a name in its own: reading a layout is not the run.
  const stored = must(tspod[0] ?? '', [...tspod.slice(1), 'fetch', '--full', image]).trim();
  const bundle = bundleOf(work, layout);
  let count = 0;

  const contestants: readonly Contestant[] = [
    { name: 'node -e 0', argv: [process.execPath, '-e', '0'] },
    { name: 'tspod run', argv: [...tspod, 'run', stored, '--exec=/bin/true'] },
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
      name: 'crun run',
      argv: ['crun', '--cgroup-manager=disabled', '--root', `${work}/crun`, 'run', '-b', bundle],
      before: () => [`bench-${count++}`],
    },
    {
      name: 'runc run',
      argv: ['runc', '--root', `${work}/runc`, 'run', '-b', bundle],
      before: () => [`bench-${count++}`],
    },
    {
      name: 'bwrap',
      argv: [
        'bwrap',
        '--bind',
        `${bundle}/rootfs`,
        '/',
        '--proc',
        '/proc',
        '--dev',
        '/dev',
        '--unshare-pid',
        '/bin/true',
      ],
    },
    {
      name: 'launcher alone',
      argv: [LAUNCH],
      before: () => {
        const prepared = spawnSync(
          TSPOD,
          [...tspod.slice(1), 'prepare', '--quiet', image, '--exec=/bin/true'],
          { encoding: 'utf8' },
        );
        return [`${work}/tspod/pods/prepared/${prepared.stdout.trim()}`];
      },
    },
  ];
  const figures = await compare(contestants, ROUNDS);
  table(`busybox true, image in the store (${ROUNDS} rounds)`, figures, 'node -e 0');
  aim('tspod run', 'node -e 0', 1.8, figures);
  aim('tspod run', 'podman run', 0.6, figures);
  aim('launcher alone', 'crun run', 1.2, figures);
}
