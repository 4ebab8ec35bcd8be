/** Layers copied together into one root filesystem, in the confined child. See flatten-trees.ts. */
import { resolve } from 'node:path';
import { UnpackChild } from './child-process.ts';

const CHILD_IDLE_MS = 5 * 60_000;

/**
 * @param layers trees of the `directory` form, lowest first
 * @param target an existing, empty folder; what is in it after a failure is the caller's to remove
 * @throws TspodError 'privilege', 'disk-full', 'system'
 */
export async function flattenLayers(layers: readonly string[], target: string): Promise<void> {
  const child = new UnpackChild(
    { job: 'flatten', layers: layers.map(layer => resolve(layer)), target: resolve(target) },
    CHILD_IDLE_MS,
  );
  try {
    await child.finish();
  } catch (error) {
    await child.kill();
    throw error;
  }
}
