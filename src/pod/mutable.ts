/** Pods whose apps come and go while they run; how the manifest says so is rkt's. */
import type { PodManifest } from '../image/appc.ts';

export const MUTABLE_ANNOTATION = 'coreos.com/rkt/stage1/mutable';

export function isMutable({ annotations }: Pick<PodManifest, 'annotations'>): boolean {
  return annotations.some(({ name, value }) => name === MUTABLE_ANNOTATION && value === 'true');
}
