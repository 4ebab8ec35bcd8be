/**
 * The image that an argument of `image rm`, `image cat-manifest` and their like means: a name as the store
 * has it, the same without its transport, tag or leading path, or an id or its first digits. Only what is
 * in the store is looked at.
 */
import { TspodError } from '../errors.ts';
import type { ImageRecord, Store } from './types.ts';

/** @throws TspodError 'not-found', or 'ambiguous' when it fits several images; with rkt's messages. */
export function findImage(store: Store, text: string): ImageRecord {
  const exact = store.byName(text);
  if (exact !== undefined) return exact;
  const digits = /^(?:sha(?:256|512)[:-])?([0-9a-f]+)$/.exec(text)?.[1];
  if (digits === undefined || digits.length > 1) {
    const image = byShortName(store, text) ?? store.byIdPrefix(text);
    if (image !== undefined) return image;
  } else {
    throw new TspodError('not-found', `image "${text}": image ID too short`, {
      hint: 'give at least two digits of it',
    });
  }
  throw new TspodError('not-found', `image "${text}": no image IDs found`, {
    hint: '"image list" shows what is there',
  });
}

function byShortName(store: Store, text: string): ImageRecord | undefined {
  const wanted = [text, `${text}:latest`];
  const fits = (name: string) => {
    const bare = name.replace(/^[a-z-]+:(?:\/\/)?/, '');
    return wanted.some(each => bare === each || bare.endsWith(`/${each}`));
  };
  const found = store.images().filter(image => image.names.some(fits));
  if (found.length > 1) {
    throw new TspodError('ambiguous', `image "${text}": the name fits ${found.length} images`, {
      hint: 'give the whole name, or an id',
    });
  }
  return found[0];
}
