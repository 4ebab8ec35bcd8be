/** The peers, each with storage of its own below the bench's folder. */
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** podman with storage and configuration of its own; without limits that an unprivileged VM may not raise. */
export function podmanIn(work: string, name = 'podman'): readonly string[] {
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

export function skopeoToPodman(
  work: string,
  layout: string,
  name: string,
  podman = 'podman',
): void {
  const storage = `containers-storage:[overlay@${work}/${podman}-root+${work}/${podman}-run]${name}`;
  must('skopeo', ['copy', '-q', `oci:${layout}:latest`, storage]);
}

/** An OCI runtime bundle that asks of crun what fly does, plus the namespaces crun always makes. */
export function bundleOf(work: string, layout: string): string {
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

export function must(program: string, words: readonly string[]): string {
  const ended = spawnSync(program, words, { encoding: 'utf8' });
  if (ended.status !== 0)
    throw new Error(`${program} ${words.join(' ')}: ${ended.stderr}${ended.error ?? ''}`);
  return ended.stdout;
}
