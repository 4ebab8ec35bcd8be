/**
 * `npm run bench [-- ROUNDS]`: tspod beside its peers, on this machine, in this run. What is compared is
 * run in turn (A B C A B C …), so that a slow moment hits all of them; printed are medians and ratios.
 *
 * Everything happens in a mount namespace of its own: podman and crun want a clean cgroup tree and mount
 * as they like. Aims stand beside the figures; nothing fails here, since a figure depends on the machine.
 */
import { spawn, spawnSync } from 'node:child_process';
import {
  closeSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CACHE, imageLayout, recipesKey } from '../images/images.ts';
import { push, startRegistry } from '../support/registry.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const TSPOD = process.env['TSPOD'] ?? join(ROOT, 'bin/tspod');
const LAUNCH = join(TSPOD, '../../dist/launch');
const ROUNDS = Number(process.argv[2] ?? 40);
const FETCHES = 3;

interface Contestant {
  readonly name: string;
  readonly argv: readonly string[];
  /** Before each timed run, outside the time. @returns words to add to argv */
  readonly before?: () => readonly string[];
  /** Take the peak memory, by polling /proc; off where microseconds count. */
  readonly memory?: boolean;
}

interface Figure {
  readonly name: string;
  readonly median: number;
  readonly best: number;
  /** Bytes, summed over the processes alive at one instant. */
  readonly peak: number;
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
    await running(work);
    await fetching(work);
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

async function fetching(work: string): Promise<void> {
  const layout = await imageLayout('large');
  const registry = await startRegistry(join(CACHE, `registry-large-${recipesKey()}`));
  try {
    push(layout, registry, 'large:latest');
    const name = `${registry.host}/large:latest`;
    // A new place for each round, and nothing deleted in between: ext4 passes over the inodes that were freed
    // in the last minutes, one by one, for every file that is made.
    let round = 0;
    const contestants: readonly Contestant[] = [
      {
        name: 'tspod fetch',
        argv: [TSPOD, '--insecure-options=image,http', 'fetch', `docker://${name}`],
        before: () => [`--dir=${work}/fetch-${round++}`],
        memory: true,
      },
      {
        name: 'podman pull',
        argv: ['podman'],
        before: () => [
          ...podmanIn(work, `pull-${round++}`).slice(1),
          'pull',
          '-q',
          '--tls-verify=false',
          name,
        ],
        memory: true,
      },
      {
        name: 'skopeo + umoci',
        argv: [
          'sh',
          '-ec',
          `mkdir "$0"; skopeo copy -q --src-tls-verify=false docker://${name} oci:"$0"/layout:latest; umoci unpack --image "$0"/layout:latest "$0"/bundle; ln -sfn "$0" ${work}/umoci`,
        ],
        before: () => [join(work, `umoci-${round++}`)],
        memory: true,
      },
    ];
    const figures = await compare(contestants, FETCHES);
    const size = spawnSync('du', ['-sm', join(work, 'umoci/bundle/rootfs')], {
      encoding: 'utf8',
    }).stdout.split('\t')[0];
    table(
      `an image of ${size} MB from a registry on loopback to a root filesystem (${FETCHES} rounds)`,
      figures,
      'podman pull',
    );
    aim('tspod fetch', 'podman pull', 0.5, figures);
    const peak = figures.find(figure => figure.name === 'tspod fetch')?.peak ?? 0;
    console.log(`  memory of tspod fetch: ${mib(peak)} (aim: 200 MB)\n`);
  } finally {
    await registry.stop();
  }
}

async function compare(
  contestants: readonly Contestant[],
  rounds: number,
): Promise<readonly Figure[]> {
  const times = contestants.map((): number[] => []);
  const peaks = contestants.map(() => 0);
  for (let round = -1; round < rounds; round++)
    for (const [index, contestant] of contestants.entries()) {
      const { milliseconds, peak } = await timed(contestant);
      if (round < 0) continue; // warms caches
      times[index]?.push(milliseconds);
      peaks[index] = Math.max(peaks[index] ?? 0, peak);
    }
  return contestants.map(({ name }, index) => {
    const sorted = (times[index] ?? []).sort((a, b) => a - b);
    return {
      name,
      median: sorted[Math.floor(sorted.length / 2)] ?? 0,
      best: sorted[0] ?? 0,
      peak: peaks[index] ?? 0,
    };
  });
}

async function timed({
  name,
  argv,
  before,
  memory,
}: Contestant): Promise<{ milliseconds: number; peak: number }> {
  const [program = '', ...words] = [...argv, ...(before?.() ?? [])];
  const said = openSync(join(tmpdir(), `tspod-bench-${process.pid}.log`), 'w+');
  const begin = process.hrtime.bigint();
  const child = spawn(program, words, { stdio: ['ignore', 'ignore', said] });
  let peak = 0;
  const poll = memory
    ? setInterval(() => (peak = Math.max(peak, memoryBelow(child.pid ?? 0))), 20)
    : undefined;
  const status = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', resolve);
  });
  const milliseconds = Number(process.hrtime.bigint() - begin) / 1e6;
  clearInterval(poll);
  closeSync(said);
  const log = join(tmpdir(), `tspod-bench-${process.pid}.log`);
  const text = readFileSync(log, 'utf8');
  rmSync(log);
  if (status !== 0) throw new Error(`${name} ended with ${status}: ${text}`);
  return { milliseconds, peak };
}

/** Proportional set size in bytes of a process and all that it started. */
function memoryBelow(pid: number): number {
  let sum = 0;
  try {
    const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
    sum += Number(/^Pss:\s+(\d+)/m.exec(rollup)?.[1] ?? 0) * 1024;
    for (const thread of readdirSync(`/proc/${pid}/task`))
      for (const child of readFileSync(`/proc/${pid}/task/${thread}/children`, 'utf8').split(' '))
        if (child !== '') sum += memoryBelow(Number(child));
  } catch {
    // it has ended
  }
  return sum;
}

function table(title: string, figures: readonly Figure[], base: string): void {
  const one = figures.find(figure => figure.name === base)?.median ?? 1;
  console.log(`\n${title}\n${'-'.repeat(title.length)}`);
  console.log(
    `${''.padEnd(18)}${'median ms'.padStart(11)}${'best ms'.padStart(11)}${`× ${base}`.padStart(16)}${'peak memory'.padStart(14)}`,
  );
  for (const { name, median, best, peak } of figures)
    console.log(
      `${name.padEnd(18)}${median.toFixed(1).padStart(11)}${best.toFixed(1).padStart(11)}${(median / one).toFixed(2).padStart(16)}${(peak === 0 ? '' : mib(peak)).padStart(14)}`,
    );
  console.log('');
}

function aim(name: string, base: string, most: number, figures: readonly Figure[]): void {
  const of = (wanted: string) =>
    figures.find(figure => figure.name === wanted)?.median ?? Number.NaN;
  const ratio = of(name) / of(base);
  console.log(
    `  ${name} ÷ ${base}: ${ratio.toFixed(2)} (aim: at most ${most})${ratio <= most ? '' : '  MISSED'}`,
  );
}

function mib(bytes: number): string {
  return `${(bytes / 1e6).toFixed(0)} MB`;
}

/** podman with storage and configuration of its own; without limits that an unprivileged VM may not raise. */
function podmanIn(work: string, name = 'podman'): readonly string[] {
  const config = join(work, 'containers.conf');
  writeFileSync(
    config,
    '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n',
  );
  process.env['CONTAINERS_CONF'] = config;
  return [
    'podman',
    '--root',
    `${work}/${name}-root`,
    '--runroot',
    `${work}/${name}-run`,
    '--cgroup-manager=cgroupfs',
    '--events-backend=none',
    '--storage-driver=overlay',
    '--runtime=crun',
  ];
}

function skopeoToPodman(work: string, layout: string, name: string): void {
  const storage = `containers-storage:[overlay@${work}/podman-root+${work}/podman-run]${name}`;
  must('skopeo', ['copy', '-q', `oci:${layout}:latest`, storage]);
}

/** An OCI runtime bundle that asks of crun what fly does, plus the namespaces crun always makes. */
function bundleOf(work: string, layout: string): string {
  const bundle = join(work, 'bundle');
  must('umoci', ['unpack', '--image', `${layout}:latest`, bundle]);
  const file = join(bundle, 'config.json');
  const config = JSON.parse(readFileSync(file, 'utf8'));
  config.process = {
    ...config.process,
    args: ['/bin/true'],
    terminal: false,
    cwd: '/',
    rlimits: undefined,
  };
  config.linux.namespaces = [{ type: 'mount' }, { type: 'pid' }, { type: 'ipc' }, { type: 'uts' }];
  config.linux.resources = undefined;
  writeFileSync(file, JSON.stringify(config));
  return bundle;
}

function must(program: string, words: readonly string[]): string {
  const ended = spawnSync(program, words, { encoding: 'utf8' });
  if (ended.status !== 0)
    throw new Error(`${program} ${words.join(' ')}: ${ended.stderr}${ended.error ?? ''}`);
  return ended.stdout;
}
