/** `stage1.d`: the stage1 that pods get when the command line names none. */
import { isAbsolute } from 'node:path';
import type { JsonObject, JsonReader } from '../image/json.ts';
import type { Entry } from './config.ts';

export interface Stage1 {
  readonly name?: string;
  readonly version?: string;
  readonly location?: string;
}

/** Name with version is one entry, the location another: a later folder can replace either. */
export function readStage1(reader: JsonReader, object: JsonObject): readonly Entry<Stage1>[] {
  const text = (key: string) => {
    const value = reader.optionalString(object[key], key);
    return value === '' ? undefined : value;
  };
  const name = text('name');
  const version = text('version');
  const location = text('location');
  if (name === undefined && version !== undefined) reader.fail('name', 'is missing beside version');
  if (name !== undefined && version === undefined) reader.fail('version', 'is missing beside name');
  const entries: Entry<Stage1>[] = [];
  if (name !== undefined && version !== undefined) {
    entries.push({ key: 'name', value: { name, version } });
  }
  if (location !== undefined) {
    checkLocation(reader, location);
    entries.push({ key: 'location', value: { location } });
  }
  return entries;
}

function checkLocation(reader: JsonReader, location: string): void {
  if (isAbsolute(location)) return;
  const scheme = /^([a-z][a-z0-9+.-]*):/.exec(location)?.[1];
  if (scheme === undefined) {
    reader.fail('location', 'is either a relative path or a URL without scheme');
  }
  if (!['file', 'http', 'https', 'docker'].includes(scheme)) {
    reader.fail('location', `has the scheme ${scheme}, which is not file, http, https or docker`);
  }
}
