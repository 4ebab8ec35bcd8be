/**
 * The launcher's steps for volumes: taken hold of before the pod has a mount namespace, so that they keep
 * their peer group with the host, and put into the app's root afterwards.
 */
import type { Volume } from '../src/image/appc.ts';
import { normalized } from '../src/image/convert.ts';
import type { Step } from '../src/pod/launch-plan.ts';
import type { Pod, PodApp, VolumeImage } from '../src/pod/pod.ts';
import { whyBadTarget } from '../src/pod/volumes.ts';
import { rootSteps } from './root-steps.ts';

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
    case 'image':
      return [];
    case 'device':
      return [['hold', slot, volume.source ?? '', 'single']];
    case 'empty':
      return [['hold', slot, `sharedVolumes/${volume.name}`, 'single']];
    case 'host':
      return [
        ['hold', slot, volume.source ?? '', volume.recursive === true ? 'recursive' : 'single'],
      ];
  }
}

/**
 * Another image's root file system, read-only: an overlay as an app's is, with an upper layer that stays empty.
 * @param folder where it is put together, relative to the pod's folder
 */
function imageSteps({ layers }: VolumeImage, folder: string): readonly Step[] {
  const place = `${folder}/root`;
  const parts = ['root', 'upper', 'work', 'layers'].map(
    (name): Step => ['folder', '.', `/${folder}/${name}`, '0755'],
  );
  const rootfs = {
    kind: 'overlay',
    layers,
    upper: `${folder}/upper`,
    work: `${folder}/work`,
  } as const;
  return [...parts, ...rootSteps({ root: place, rootfs }, `${folder}/layers`)];
}

/** @param image of a volume of kind `image`, and where it may be put together */
export function placeVolume(
  volume: Volume,
  path: string,
  slot: string,
  root: string,
  image?: { readonly made: VolumeImage | undefined; readonly folder: string },
): readonly Step[] {
  if (volume.kind === 'image') {
    if (image?.made === undefined) throw new Error(`volume ${volume.name} has no image`);
    return [
      ...imageSteps(image.made, image.folder),
      ['bind', `${image.folder}/root`, root, path, 'ro', 'nodev', 'private'],
    ];
  }
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

/** What `placeVolume` needs to know of an app's mount. */
export function imageOf(pod: Pod, app: PodApp, volume: Volume, index: number) {
  return {
    made: pod.volumeImages?.get(volume.name),
    folder: `imageVolumes/${app.name}/${index}`,
  };
}
