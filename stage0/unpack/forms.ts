/** The forms in which layers are kept, the preferred one first (docs/store.md). */
import type { LayerForm } from '../../src/store/types.ts';
import { directoryForm } from './directory.ts';
import { makeErofsForm } from './erofs/form.ts';

/** @param dir the data folder */
export function layerForms(dir: string): readonly LayerForm[] {
  return [makeErofsForm(dir), directoryForm];
}
