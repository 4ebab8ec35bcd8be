/**
 * Taking something out of the store is two steps: a rename into tmp, which is atomic and can be done
 * under a lock, and the deletion, which takes its time outside of it. What a killed process moved and did
 * not delete is found by its name at the next gc.
 */
import { randomBytes } from 'node:crypto';
import { renameSync } from 'node:fs';
import { errnoOf } from '../errors.ts';
import type { Layout } from './layout.ts';
import { removeTree } from './remove-tree.ts';

export const TRASH_PREFIX = 'trash.';

/** Moves `path` into tmp; the new path, or undefined when there was nothing. */
export function moveToTrash(layout: Layout, path: string): string | undefined {
  const target = `${layout.tmp}/${TRASH_PREFIX}${randomBytes(8).toString('hex')}`;
  try {
    renameSync(path, target);
    return target;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** Moves and deletes. What can't be deleted stays in tmp for gc, which reports it. */
export function discard(layout: Layout, path: string): void {
  const trash = moveToTrash(layout, path);
  if (trash !== undefined) removeTree(trash);
}
