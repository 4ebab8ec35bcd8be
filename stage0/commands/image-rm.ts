/**
 * `tspod image rm IMAGE...`: takes the records away, then everything that no other image, pod or live
 * fetch uses. Layers of a pod stay until the pod is gone.
 *
 * As rkt, an argument that leads to no image is reported and the others are removed all the same. rkt then
 * exits with 0, which only its own name keeps: a script must be able to tell.
 */
import { type Context, warn } from '../../src/context.ts';
import { EXIT_FAILURE, reasonOf, TspodError } from '../../src/errors.ts';
import type { Digest } from '../../src/image/digest.ts';
import { podImageUses } from '../../src/pod/lifecycle.ts';
import { findImage } from '../../src/store/find-image.ts';
import { openStore } from '../../src/store/store.ts';
import { layerForms } from '../unpack/forms.ts';
import { reportRemoved } from './image-gc.ts';
import { imageId } from './image-id.ts';

export interface ImageRmArgs {
  readonly positionals: readonly string[];
}

export async function run(context: Context, { positionals }: ImageRmArgs): Promise<number> {
  if (positionals.length === 0) {
    throw new TspodError('usage', 'image rm: must provide at least one image ID');
  }
  const store = openStore(context.dir, { forms: layerForms(context.dir) });
  try {
    const removed = new Set<Digest>();
    let unknown = 0;
    for (const text of positionals) {
      try {
        const image = findImage(store, text);
        store.removeImage(image.id);
        removed.add(imageId(image));
      } catch (error) {
        if (!(error instanceof TspodError)) throw error;
        if (error.code !== 'not-found' && error.code !== 'ambiguous') throw error;
        warn(context, reasonOf(error));
        unknown++;
      }
    }
    const { failures } = store.gc({
      graceMs: Number.POSITIVE_INFINITY,
      inUse: () => podImageUses(context.dir),
    });
    reportRemoved(context, [...removed], failures);
    if (failures.length > 0) return EXIT_FAILURE;
    return unknown > 0 && context.program !== 'rkt' ? EXIT_FAILURE : 0;
  } finally {
    store.close();
  }
}
