/**
 * The launcher's steps for fly: a mount namespace of the pod's own, the root file system, the host's
 * /dev, /proc and /sys, name service files, volumes, limits. Everything of the host comes in as a slave:
 * what is mounted in the pod never reaches the host, but for volumes that keep their peer group, which is
 * what fly is for.
 */
import { CGROUPS_FILE, STATUS_FOLDER } from '../../src/pod/folder.ts';
import type { Step } from '../../src/pod/launch-plan.ts';
import type { Pod, PodApp } from '../../src/pod/pod.ts';
import { isolationOf } from '../isolation.ts';
import { nameFiles } from '../name-files.ts';
import { rootSteps } from '../root-steps.ts';
import { holdVolume, imageOf, ownFolders, placeVolume, workingDirectory } from '../volume-steps.ts';
import { planCgroups } from './cgroups.ts';

/** Of the host, wholly visible in every fly pod. */
const HOST_TREES = ['dev', 'proc', 'sys'];
/** Slots of the launcher: the host's trees from 0 on, then the two files, then volumes. */
const FIRST_FILE_SLOT = 3;
const FIRST_VOLUME_SLOT = 5;

export function launchSteps(pod: Pod, app: PodApp): readonly Step[] {
  const { options } = pod;
  const cgroups = planCgroups(pod.uuid, isolationOf(pod, app));
  const held = app.mounts.map(({ volume, path }, index) => ({
    volume,
    path,
    slot: String(FIRST_VOLUME_SLOT + index),
  }));
  const network = nameFiles(pod, app.root, FIRST_FILE_SLOT);
  return [
    ['program', options.program],
    ...(options.debug ? ([['debug']] satisfies Step[]) : []),
    ...(cgroups.folders.length === 0
      ? []
      : ([
          ['file', '.', CGROUPS_FILE, '0640', `${cgroups.folders.join('\n')}\n`, 'replace'],
        ] satisfies Step[])),
    ...cgroups.before,
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
    ...ownFolders(app, app.root),
    // A link here in an image would lead the mounts elsewhere (CVE-2019-19921 and its kin).
    ...HOST_TREES.map((name): Step => ['require-folder', app.root, name, '0755']),
    ...HOST_TREES.map(
      (name, slot): Step => ['attach', String(slot), app.root, `/${name}`, 'slave'],
    ),
    ['tmpfs', app.root, '/tmp', 'mode=1777'],
    ...network.place,
    ['symlink', app.root, '/etc/mtab', '../proc/self/mounts', 'if-missing'],
    ...held.flatMap(({ volume, path, slot }, index) =>
      placeVolume(volume, path, slot, app.root, imageOf(pod, app, volume, index)),
    ),
    ...notifySocket(app.root),
    ...workingDirectory(app, app.root),
    ...(app.readOnlyRootFs ? ([['readonly-root', app.root]] satisfies Step[]) : []),
    ...cgroups.steps,
    ['pid-file', 'pid'],
    ['start', `appsinfo/${app.name}/app-plan`],
  ];
}

/** systemd's notification socket, at the same path inside; an abstract one needs nothing. */
function notifySocket(root: string): readonly Step[] {
  const path = process.env.NOTIFY_SOCKET;
  if (path === undefined || !path.startsWith('/') || path.includes('..')) return [];
  if (['/dev/', '/proc/', '/sys/'].some(prefix => path.startsWith(prefix))) return [];
  return [['bind', path, root, path]];
}
