/** The launcher's steps that put an app's root file system together: the same for every flavor on the host. */
import type { Step } from '../src/pod/launch-plan.ts';
import type { PodApp } from '../src/pod/pod.ts';

/**
 * Layers in EROFS form are mounted only for as long as the overlay needs to take hold of them: what a pod
 * sees in its mount table is one overlay.
 */
export function rootSteps(
  { root, rootfs }: Pick<PodApp, 'root' | 'rootfs'>,
  folder = 'layers',
): readonly Step[] {
  if (rootfs.kind === 'copy') return [['bind-root', root]];
  const lower: string[] = [];
  const mounts: Step[] = [];
  const unmounts: Step[] = [];
  for (const [index, layer] of rootfs.layers.entries()) {
    if (layer.form === 'directory') {
      lower.push(layer.path);
      continue;
    }
    const place = `${folder}/${index}`;
    lower.push(place);
    mounts.push(['erofs', place, layer.meta, layer.tar, layer.by]);
    unmounts.push(['unmount', place]);
  }
  return [...mounts, ['overlay', root, rootfs.upper, rootfs.work, ...lower], ...unmounts];
}
