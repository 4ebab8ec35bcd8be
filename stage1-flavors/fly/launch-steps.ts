/**
 * The launcher's steps for fly: a mount namespace of the pod's own, the root file system, the host's
 * /dev, /proc and /sys, name service files, volumes, limits. Everything of the host comes in as a slave:
 * what is mounted in the pod never reaches the host, but for volumes that keep their peer group, which is
 * what fly is for.
 */
import { existsSync } from 'node:fs';
import type { Volume } from '../../src/image/appc.ts';
import { hostsFile, resolvConf } from '../../src/pod/dns.ts';
import { STATUS_FOLDER } from '../../src/pod/folder.ts';
import type { Step } from '../../src/pod/launch-plan.ts';
import type { Pod, PodApp } from '../../src/pod/pod.ts';
import { rootSteps } from '../root-steps.ts';
import { planCgroups } from './cgroups.ts';
import { isolationOf } from './check.ts';

export const CGROUPS_FILE = 'subcgroup';

const FALLBACK_HOSTS = '127.0.0.1 localhost localhost.localdomain\n::1 localhost\n';
/** Of the host, wholly visible in every fly pod. */
const HOST_TREES = ['dev', 'proc', 'sys'];
/** Slots of the launcher: the host's trees from 0 on, then the two files, then volumes. */
const RESOLV_CONF_SLOT = '3';
const HOSTS_SLOT = '4';
const FIRST_VOLUME_SLOT = 5;

export function launchSteps(pod: Pod, app: PodApp): readonly Step[] {
  const { options } = pod;
  const cgroups = planCgroups(pod.uuid, isolationOf(pod, app));
  const held = app.mounts.map(({ volume, path }, index) => ({
    volume,
    path,
    slot: String(FIRST_VOLUME_SLOT + index),
  }));
  const network = networkFiles(pod, app.root);
  return [
    ['program', options.program],
    ...(options.debug ? ([['debug']] satisfies Step[]) : []),
    // First of all: who stays behind sees the host as it is, and pins nothing of the pod's mounts.
    ...(options.finish === undefined
      ? []
      : ([['supervise', STATUS_FOLDER, app.name, ...options.finish]] satisfies Step[])),
    // Before unshare: a clone taken afterwards would have lost its peer group with the host.
    ...held.flatMap(({ volume, slot }) => holdVolume(volume, slot)),
    ...HOST_TREES.map((name, slot): Step => ['hold', String(slot), `/${name}`, 'recursive']),
    ...network.hold,
    ['unshare', 'mount'],
    ['propagation', '/', 'rslave'],
    ...rootSteps(app),
    // A link here in an image would lead the mounts elsewhere (CVE-2019-19921 and its kin).
    ...HOST_TREES.map((name): Step => ['require-folder', app.root, name, '0755']),
    ...HOST_TREES.map(
      (name, slot): Step => ['attach', String(slot), app.root, `/${name}`, 'slave'],
    ),
    ['tmpfs', app.root, '/tmp', 'mode=1777'],
    ...network.place,
    ['symlink', app.root, '/etc/mtab', '../proc/self/mounts', 'if-missing'],
    ...held.flatMap(({ volume, path, slot }) => placeVolume(volume, path, slot, app.root)),
    ...notifySocket(app.root),
    ...workingDirectory(app),
    ...(app.readOnlyRootFs ? ([['readonly-root', app.root]] satisfies Step[]) : []),
    ...(cgroups.folders.length === 0
      ? []
      : ([
          ['file', '.', CGROUPS_FILE, '0640', `${cgroups.folders.join('\n')}\n`, 'replace'],
        ] satisfies Step[])),
    ...cgroups.steps,
    ['pid-file', 'pid'],
    ['start', `appsinfo/${app.name}/app-plan`],
  ];
}

/** As Docker and podman: one that the image lacks is made, in a volume too. */
function workingDirectory({ app, root }: PodApp): readonly Step[] {
  const path = app.workingDirectory || '/';
  return path === '/' ? [] : [['folder', root, path, '0755']];
}

function holdVolume(volume: Volume, slot: string): readonly Step[] {
  switch (volume.kind) {
    case 'tmpfs':
      return [];
    case 'empty':
      return [['hold', slot, `sharedVolumes/${volume.name}`, 'single']];
    case 'host':
      return [
        ['hold', slot, volume.source ?? '', volume.recursive === true ? 'recursive' : 'single'],
      ];
  }
}

function placeVolume(volume: Volume, path: string, slot: string, root: string): readonly Step[] {
  if (volume.kind === 'tmpfs') {
    const options = [
      `mode=${volume.mode ?? '0755'}`,
      ...(volume.uid === undefined ? [] : [`uid=${volume.uid}`]),
      ...(volume.gid === undefined ? [] : [`gid=${volume.gid}`]),
      ...(volume.size === undefined ? [] : [`size=${volume.size}`]),
      ...(volume.readOnly === true ? ['ro'] : []),
    ];
    return [['tmpfs', root, path, options.join(',')]];
  }
  const flags = [
    ...(volume.readOnly === true ? ['ro'] : []),
    ...(volume.propagation === undefined ? [] : [volume.propagation]),
  ];
  return [['attach', slot, root, path, ...flags]];
}

/**
 * resolv.conf: without `--dns` the host's, because the network is the host's; `none` leaves the image's
 * file. hosts: a fallback where the image has none, as rkt.
 */
function networkFiles(
  pod: Pod,
  root: string,
): { readonly hold: readonly Step[]; readonly place: readonly Step[] } {
  const hold: Step[] = [];
  const place: Step[] = [];
  const bindHostFile = (slot: string, path: string) => {
    hold.push(['hold', slot, path, 'single']);
    place.push(['attach', slot, root, path, 'ro', 'private']);
  };
  const { dns, hosts } = pod.options;
  if (dns.mode === 'servers')
    place.push(['file', root, '/etc/resolv.conf', '0644', resolvConf(dns), 'replace']);
  else if (dns.mode === 'host' || (dns.mode === 'default' && existsSync('/etc/resolv.conf'))) {
    bindHostFile(RESOLV_CONF_SLOT, '/etc/resolv.conf');
  }
  if (hosts.mode === 'host') bindHostFile(HOSTS_SLOT, '/etc/hosts');
  else if (hosts.mode === 'entries')
    place.push(['file', root, '/etc/hosts', '0644', hostsFile(hosts.entries), 'replace']);
  else place.push(['file', root, '/etc/hosts', '0644', FALLBACK_HOSTS, 'if-missing']);
  return { hold, place };
}

/** systemd's notification socket, at the same path inside; an abstract one needs nothing. */
function notifySocket(root: string): readonly Step[] {
  const path = process.env.NOTIFY_SOCKET;
  if (path === undefined || !path.startsWith('/') || path.includes('..')) return [];
  if (['/dev/', '/proc/', '/sys/'].some(prefix => path.startsWith(prefix))) return [];
  return [['bind', path, root, path]];
}
