/**
 * The launcher's steps for nspawn: every app's root file system with its volumes is put together in a mount
 * namespace of the pod's own, below the pod's tree; then systemd-nspawn makes the other namespaces around that
 * tree and starts stage2's init in it. The launcher stays as the parent: systemd-nspawn closes the pod's lock.
 */
import { statfsSync } from 'node:fs';
import type { Step } from '../../src/pod/launch-plan.ts';
import type { Pod, PodApp } from '../../src/pod/pod.ts';
import { nameFiles } from '../name-files.ts';
import { rootSteps } from '../root-steps.ts';
import { holdVolume, imageOf, ownFolders, placeVolume } from '../volume-steps.ts';
import { planCgroups } from './cgroups.ts';
import { nspawnCommand, usesCaller } from './command.ts';
import { hasJournal, JOURNAL_SOCKET } from './host.ts';
import { JOURNAL_INSIDE, PROGRAMS, TREE } from './stage1-tree.ts';

/** statfs(2) */
const TMPFS_MAGIC = 0x01021994;

export function launchSteps(pod: Pod): readonly Step[] {
  const { options } = pod;
  let slot = 0;
  const hold: Step[] = [];
  const place: Step[] = [];
  for (const { inside, source } of PROGRAMS) {
    hold.push(['hold', String(slot), source, 'single']);
    place.push(['attach', String(slot), TREE, inside, 'ro', 'nosuid', 'private']);
    slot += 1;
  }
  if (hasJournal()) {
    hold.push(['hold', String(slot), JOURNAL_SOCKET, 'single']);
    place.push(['attach', String(slot), TREE, JOURNAL_INSIDE, 'private']);
    slot += 1;
  }
  const cgroups = planCgroups(pod);
  for (const app of pod.apps) {
    const tree = appTree(pod, app, slot);
    hold.push(...tree.hold);
    place.push(...tree.place);
    slot = tree.nextSlot;
  }
  return [
    ['program', options.program],
    ...(options.debug ? ([['debug']] satisfies Step[]) : []),
    // No app ever has the caller's own terminal.
    ...(usesCaller(pod) ? ([['terminal']] satisfies Step[]) : []),
    ...cgroups.before,
    ['init', 'stage1/rootfs/rkt'],
    ['supervise', '-', 'pod', ...(options.finish ?? [])],
    ...hold,
    ['unshare', 'mount'],
    ['propagation', '/', 'rslave'],
    ...place,
    ...nspawnFolder(),
    ...cgroups.steps,
    ['pid-file', 'pid'],
    // Each app has its own filter of system calls. systemd-nspawn's would be one more for the apps alone: who
    // enters an app later could not have the same.
    ['environment', 'SYSTEMD_SECCOMP=0'],
    // It would look for a systemd in the tree to learn which version of cgroups the pod understands.
    ...(cgroups.unified
      ? ([['environment', 'SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1']] satisfies Step[])
      : []),
    ['exec', ...nspawnCommand(pod)],
  ];
}

/** What puts one app's root together; the first part before the pod has a mount namespace, the second in it. */
export function appTree(
  pod: Pod,
  app: PodApp,
  firstSlot: number,
): { readonly hold: readonly Step[]; readonly place: readonly Step[]; readonly nextSlot: number } {
  const names = nameFiles(pod, app.root, firstSlot);
  let slot = firstSlot + 2;
  const hold: Step[] = [...names.hold];
  const place: Step[] = [...rootSteps(app), ...ownFolders(app, app.root), ...names.place];
  place.push(['symlink', app.root, '/etc/mtab', '../proc/self/mounts', 'if-missing']);
  for (const [index, { volume, path }] of app.mounts.entries()) {
    // systemd-nspawn puts devices into the pod's own /dev, and the app's plan takes them from there.
    if (volume.kind === 'device') continue;
    hold.push(...holdVolume(volume, String(slot)));
    place.push(
      ...placeVolume(volume, path, String(slot), app.root, imageOf(pod, app, volume, index)),
    );
    slot += 1;
  }
  place.push(...hostname(pod, app));
  return { hold, place, nextSlot: slot };
}

function hostname(pod: Pod, app: PodApp): readonly Step[] {
  const name = pod.options.hostname ?? `rkt-${pod.uuid}`;
  return [['file', app.root, '/etc/hostname', '0644', `${name}\n`, 'if-missing']];
}

/** systemd-nspawn complains at the end of each pod where /run is on a disk (no systemd runs there). */
function nspawnFolder(): readonly Step[] {
  if (statfsSync('/run').type === TMPFS_MAGIC) return [];
  return [['tmpfs', '/', '/run/systemd/nspawn', 'mode=755']];
}
