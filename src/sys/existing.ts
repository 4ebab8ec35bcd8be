/** The part of a path that is there already: a data folder is made at the first write only. */
import { existsSync } from 'node:fs';
import { dirname } from 'node:path';

export function existingPart(path: string): string {
  let at = path;
  while (at !== '/' && !existsSync(at)) at = dirname(at);
  return at;
}
