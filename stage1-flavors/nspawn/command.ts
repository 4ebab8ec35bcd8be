/** systemd-nspawn's command line (systemd-nspawn(1)). */
import { existsSync } from 'node:fs';
import { TspodError } from '../../src/errors.ts';
import { isMutable } from '../../src/pod/mutable.ts';
import { netnsPath, wantsNetworks } from '../../src/pod/net-request.ts';
import type { Pod } from '../../src/pod/pod.ts';
import { inheritsAny, streamModes } from '../../src/pod/streams.ts';
import { annotationsOf } from '../isolation.ts';
import { deviceInside } from './app-plans.ts';
import { hostPlace, type Place } from './host.ts';
import { confinedIsolation } from './isolation.ts';
import { TREE } from './stage1-tree.ts';

const PLACES = ['/usr/bin/systemd-nspawn', '/bin/systemd-nspawn', '/usr/local/bin/systemd-nspawn'];

/** @throws TspodError 'unsupported' where it is not installed */
export function findNspawn(): string {
  const found = PLACES.find(path => existsSync(path));
  if (found !== undefined) return found;
  throw new TspodError('unsupported', 'flavor nspawn: there is no systemd-nspawn', {
    hint: 'install it (Debian: systemd-container), or use --stage1-name=fly',
  });
}

/** Whether an app has a standard stream of whoever runs the pod. */
export function usesCaller(pod: Pod): boolean {
  return pod.apps.some(app =>
    inheritsAny(streamModes(annotationsOf(pod, app), pod.options.interactive)),
  );
}

export function nspawnCommand(pod: Pod): readonly string[] {
  const { options } = pod;
  return [
    findNspawn(),
    '--quiet',
    ...registration(hostPlace()),
    // Ready is who says so: init, when every app has been started.
    '--notify-ready=yes',
    `--directory=${TREE}`,
    `--machine=rkt-${pod.uuid}`,
    `--hostname=${options.hostname ?? `rkt-${pod.uuid}`}`,
    `--uuid=${pod.uuid}`,
    ...capabilities(pod),
    ...network(pod),
    ...devices(pod),
    '--link-journal=no',
    '--resolv-conf=off',
    '--timezone=off',
    '--settings=no',
    // SIGTERM for us is a graceful stop for init.
    '--kill-signal=SIGTERM',
    `--console=${usesCaller(pod) ? 'autopipe' : 'pipe'}`,
    '--',
    '/init',
    'init',
  ];
}

function network({ uuid, options: { net } }: Pod): readonly string[] {
  if (net === 'host') return [];
  return [wantsNetworks(net) ? `--network-namespace-path=${netnsPath(uuid)}` : '--private-network'];
}

/** Only those apps see them whose plan binds them. */
function devices(pod: Pod): readonly string[] {
  const found = new Map(
    pod.apps.flatMap(({ mounts }) =>
      mounts
        .filter(({ volume }) => volume.kind === 'device')
        .map(({ volume }) => [volume.name, volume.source ?? ''] as const),
    ),
  );
  return [...found].flatMap(([name, source]) => [
    `--bind=${escaped(source)}:${deviceInside(name)}`,
    // A scope of its own has systemd's closed policy.
    ...(hostPlace() === 'scope' ? [`--property=DeviceAllow=${source} rwm`] : []),
  ]);
}

/** systemd-nspawn(1), "--bind=": a colon or a backslash in a path. */
function escaped(path: string): string {
  return path.replace(/[\\:]/g, '\\$&');
}

/** Without systemd there is nobody to register with, and the pod stays in the cgroup that it was started in. */
function registration(place: Place): readonly string[] {
  if (place === 'own') return ['--register=no', '--keep-unit'];
  return place === 'unit' ? ['--register=yes', '--keep-unit'] : ['--register=yes'];
}

/** What an app may have, its init must have: systemd-nspawn's own set, and what the apps ask for. */
function capabilities(pod: Pod): readonly string[] {
  const wanted = new Set<string>();
  // Nobody knows what apps will come.
  let all = isMutable(pod.manifest);
  for (const app of pod.apps) {
    const { capabilities: set } = confinedIsolation(pod, app);
    if (set === undefined || set.mode === 'remove') all = true;
    else for (const name of set.names) wanted.add(name);
  }
  return [`--capability=${all ? 'all' : [...wanted].sort().join(',')}`];
}
