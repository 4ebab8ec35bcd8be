/**
 * From a registry on loopback to an image that can be started: tspod, podman, skopeo + umoci, and containerd's
 * ctr, for images of three sizes.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CACHE } from '../images/images.ts';
import { push, startRegistry } from '../support/registry.ts';
import { aim, type Contestant, compare, mib, table } from './compare.ts';
import { benchImage, type Size } from './images.ts';
import { must, podmanIn } from './peers.ts';

const AIMS: Readonly<Record<Size, number>> = { small: 0.8, middle: 0.35, large: 0.2 };
const MEMORY_AIM = 200e6;

export async function fetching(work: string, tspod: string, rounds: number): Promise<void> {
  const registry = await startRegistry(join(CACHE, 'registry-bench'));
  const ctr = startContainerd(work);
  try {
    for (const size of ['small', 'middle', 'large'] as const) {
      const layout = await benchImage(size);
      push(layout, registry, `${size}:latest`);
      await fetchOne(work, tspod, rounds, size, `${registry.host}/${size}:latest`, ctr?.socket);
    }
  } finally {
    ctr?.child.kill('SIGTERM');
    await registry.stop();
  }
}

async function fetchOne(
  work: string,
  tspod: string,
  rounds: number,
  size: Size,
  name: string,
  containerd: string | undefined,
): Promise<void> {
  // A new place for each round, and nothing deleted in between: ext4 passes over the inodes that were freed
  // in the last minutes, one by one, for every file that is made.
  let round = 0;
  const contestants: readonly Contestant[] = [
    {
      name: 'tspod fetch',
      argv: [tspod, '--insecure-options=image,http', 'fetch', `docker://${name}`],
      before: () => [`--dir=${work}/fetch-${size}-${round++}`],
      memory: true,
    },
    {
      name: 'podman pull',
      argv: ['podman'],
      before: () => [
        ...podmanIn(work, `pull-${size}-${round++}`).slice(1),
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
        `mkdir "$0"; skopeo copy -q --src-tls-verify=false docker://${name} oci:"$0"/layout:latest; umoci unpack --image "$0"/layout:latest "$0"/bundle`,
      ],
      before: () => [join(work, `umoci-${size}-${round++}`)],
      memory: true,
    },
    ...(containerd === undefined
      ? []
      : [
          {
            // The daemon does the work, so its memory is not this process's.
            name: 'ctr pull',
            argv: ['sh', '-ec', ctrScript(containerd, name)],
            before: () => [`bench-${round++}`],
          },
        ]),
  ];
  // Who comes after another would wait for what that one has left to be written to the disk.
  const apart = contestants.map(one => ({
    ...one,
    before: () => {
      must('sync', []);
      return one.before?.() ?? [];
    },
  }));
  const figures = await compare(apart, rounds);
  table(`${size} image from a registry on loopback (${rounds} rounds)`, figures, 'podman pull');
  aim('tspod fetch', 'podman pull', AIMS[size], figures);
  const peak = figures.find(figure => figure.name === 'tspod fetch')?.peak ?? 0;
  console.log(`  memory of tspod fetch: ${mib(peak)} (aim: ${mib(MEMORY_AIM)})\n`);
  await again(work, tspod, rounds, size, name);
}

/** The image is there already: what the registry is asked, and nothing more. */
async function again(
  work: string,
  tspod: string,
  rounds: number,
  size: Size,
  name: string,
): Promise<void> {
  const fetch = [
    tspod,
    `--dir=${work}/again-${size}`,
    '--insecure-options=image,http',
    'fetch',
    `docker://${name}`,
  ];
  const figures = await compare(
    [
      { name: 'node -e 0', argv: [process.execPath, '-e', '0'] },
      { name: 'fetch again', argv: fetch },
      { name: 'fetch --pull=new', argv: [...fetch, '--pull-policy=new'] },
    ],
    rounds * 3,
  );
  table(`the same image again (${size})`, figures, 'node -e 0');
  aim('fetch --pull=new', 'node -e 0', 2, figures);
  aim('fetch again', 'node -e 0', 2, figures);
}

/** A namespace of containerd per round. */
function ctrScript(socket: string, name: string): string {
  return `exec ctr -a ${socket} -n "$0" images pull --plain-http ${name} >/dev/null`;
}

function startContainerd(
  work: string,
): { readonly socket: string; readonly child: ChildProcess } | undefined {
  if (spawnSync('containerd', ['--version']).status !== 0) return undefined;
  const root = join(work, 'containerd');
  mkdirSync(root);
  const socket = join(root, 'sock');
  // Otherwise what one round has pulled is there for the next one.
  const config = join(root, 'config.toml');
  writeFileSync(
    config,
    'version = 2\n[plugins."io.containerd.metadata.v1.bolt"]\n  content_sharing_policy = "isolated"\n',
  );
  const words = ['--address', socket, '--root', join(root, 'root'), '--state', join(root, 'state')];
  const child = spawn('containerd', ['-c', config, ...words, '--log-level', 'error'], {
    stdio: 'ignore',
  });
  for (let tries = 0; tries < 200 && !existsSync(socket); tries++) spawnSync('sleep', ['0.05']);
  return { socket, child };
}
