/**
 * The launcher's steps for volumes: taken hold of before the pod has a mount namespace, so that they keep
 * their peer group with the host, and put into the app's root afterwards.
 */
import type { Volume } from '../src/image/appc.ts';
import type { Step } from '../src/pod/launch-plan.ts';
import type { PodApp } from '../src/pod/pod.ts';

/** As Docker and podman: one that the image lacks is made, in a volume too. */
export function workingDirectory({ app }: PodApp, root: string): readonly Step[] {
  const path = app.workingDirectory || '/';
  return path === '/' ? [] : [['folder', root, path, '0755']];
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
