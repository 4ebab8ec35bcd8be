/**
 * The image that an argument of `image rm`, `image cat-manifest` and their like means: an id or its first
 * digits, a reference as `fetch` takes it, or the end of a name (`busybox`, `team/busybox:1`). Only what is
 * in the store is looked at.
 */
import { TspodError } from '../errors.ts';
import { aciUrlName } from '../image/appc-reference.ts';
import { canonicalReference, parseReference, parseRegistryReference } from '../image/reference.ts';
import type { ImageRecord, Store } from './types.ts';

/** @throws TspodError 'not-found', or 'ambiguous' when it fits several images; with rkt's messages. */
export function findImage(store: Store, text: string): ImageRecord {
  if (/^[0-9a-f]$/.test(text)) {
    throw new TspodError('not-found', `image "${text}": image ID too short`, {
      hint: 'give at least two digits of it',
    });
  }
  const image =
    store.byName(text) ?? byReference(store, text) ?? byEnd(store, text) ?? store.byIdPrefix(text);
  if (image !== undefined) return image;
  if (/^(?:sha(?:256|512)[:-])?[0-9a-f]?$/.test(text)) {
    throw new TspodError('not-found', `image "${text}": image ID too short`, {
      hint: 'give two of its digits or more',
    });
  }
  throw new TspodError('not-found', `image "${text}": no image IDs found`, {
    hint: '"image list" shows what is there',
  });
}

function byReference(store: Store, text: string): ImageRecord | undefined {
  try {
    const reference = parseReference(text);
    switch (reference.kind) {
      case 'registry':
      case 'oci':
      case 'oci-archive':
      case 'docker-archive':
        return store.byName(canonicalReference(reference));
      case 'name':
        return store.byName(canonicalReference(parseRegistryReference(reference.name)));
      case 'aci-url':
        return store.byName(aciUrlName(reference.url));
      default:
        return undefined;
    }
  } catch (error) {
    // No reference by its grammar, but it may still be the end of a name.
    if (error instanceof TspodError && error.code === 'reference') return undefined;
    throw error;
  }
}

/** What stands behind an archive's path chose an image of it, and is no name that anybody vouches for. */
function isWhole(name: string): boolean {
  return !/^docker-archive:[^:]*:/.test(name);
}

function byEnd(store: Store, text: string): ImageRecord | undefined {
  const ends = [`/${text}`, `/${text}:latest`];
  const found = store
    .images()
    .filter(({ names }) =>
      names.some(name => isWhole(name) && ends.some(end => name.endsWith(end))),
    );
  if (found.length > 1) {
    throw new TspodError('ambiguous', `image "${text}": the name fits ${found.length} images`, {
      hint: 'give the whole name, or an id',
    });
  }
  return found[0];
}
