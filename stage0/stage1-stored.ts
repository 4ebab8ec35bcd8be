/** Whether the store has an image of a name. In a chunk of its own: only a configured stage1 asks. */
import './hot.ts';
import type { Context } from '../src/context.ts';
import { TspodError } from '../src/errors.ts';
import { findImage } from '../src/store/find-image.ts';
import { openStore } from '../src/store/store.ts';

export function hasImage(context: Context, name: string): boolean {
  const store = openStore(context.dir, { forms: [] });
  try {
    findImage(store, name);
    return true;
  } catch (error) {
    if (error instanceof TspodError && error.code === 'not-found') return false;
    throw error;
  } finally {
    store.close();
  }
}
