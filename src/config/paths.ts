/** `paths.d`: where the data folder is and where stage1 images lie. `--dir` beats `data`. */
import { isAbsolute } from 'node:path';
import type { JsonObject, JsonReader } from '../image/json.ts';
import type { Entry } from './config.ts';

export interface Paths {
  readonly data?: string;
  readonly stage1Images?: string;
}

/** Each path is an entry of its own, so that a later folder can replace one of them. */
export function readPaths(reader: JsonReader, object: JsonObject): readonly Entry<string>[] {
  return ['data', 'stage1-images'].flatMap(key => {
    const path = reader.optionalString(object[key], key);
    if (path === undefined || path === '') return [];
    if (!isAbsolute(path)) reader.fail(key, `${JSON.stringify(path)} is not an absolute path`);
    return [{ key, value: path }];
  });
}
