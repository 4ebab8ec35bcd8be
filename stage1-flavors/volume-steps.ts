/**
 * The launcher's steps for volumes: taken hold of before the pod has a mount namespace, so that they keep
 * their peer group with the host, and put into the app's root afterwards.
 */
import type { Volume } from '../src/image/appc.ts';
import { normalized } from '../src/image/convert.ts';
import type { Step } from '../src/pod/launch-plan.ts';
import type { PodApp } from '../src/pod/pod.ts';
import { whyBadTarget } from '../src/pod/volumes.ts';

/** As Docker and podman: one that the image lacks is made, in a volume too. */
export function workingDirectory({ app }: PodApp, root: string): readonly Step[] {
  const path = app.workingDirectory || '/';
  return path === '/' ? [] : [['folder', root, path, '0755']];
}

/**
 * The image's mount points that no volume covers: folders of the pod's own layer, so they start with the image's
 * content, owner and mode, as Docker's anonymous volumes do, and nothing has to be copied. They stay writable
 * under a read-only root. To be done before anything else is mounted on the root: what is made here is in the
 * pod's layer, never in a tree of the host (CVE-2022-23648).
 */
export function ownFolders({ app, mounts, readOnlyRootFs }: PodApp, root: string): readonly Step[] {
  const covered = (path: string) =>
    mounts.some(mount => path === mount.path || path.startsWith(`${mount.path}/`));
  const paths = (app.mountPoints ?? [])
    .map(({ path }) => normalized(path))
    .filter(path => whyBadTarget(path) === undefined && !covered(path));
  return [...new Set(paths)]
    .sort((a, b) => a.split('/').length - b.split('/').length)
    .flatMap(path => [
      ['folder', root, path, '0755'],
      ...(readOnlyRootFs ? ([['writable', root, path]] satisfies Step[]) : []),
    ]);
}

export function holdVolume(volume: Volume, slot: string): readonly Step[] {
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

export function placeVolume(
  volume: Volume,
  path: string,
  slot: string,
  root: string,
): readonly Step[] {
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
