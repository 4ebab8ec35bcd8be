/** ConfigMaps and Secrets of the same YAML stream (Kubernetes API reference, core/v1). */
import { TspodError } from '../../src/errors.ts';
import type { YamlReader } from './yaml-reader.ts';

export type ObjectKind = 'ConfigMap' | 'Secret';

export interface DataObject {
  readonly kind: ObjectKind;
  readonly name: string;
  readonly data: ReadonlyMap<string, Uint8Array>;
}

/** Keys become names of files. */
const KEY = /^[-._a-zA-Z0-9]{1,253}$/;
const BASE64 = /^[A-Za-z0-9+/\s]*={0,2}\s*$/;

export function readObject(reader: YamlReader, kind: ObjectKind): DataObject {
  const metadata = reader.get('metadata');
  const name = metadata.get('name').nonEmpty();
  for (const key of ['namespace', 'labels', 'annotations', 'creationTimestamp'])
    metadata.get(key).passed();
  const data = new Map<string, Uint8Array>();
  const add = (field: YamlReader, decode: (text: string, at: YamlReader) => Uint8Array) => {
    for (const key of field.keys()) {
      const at = field.get(key);
      if (!KEY.test(key) || key === '.' || key === '..')
        throw at.error('its key has other characters than letters, digits, "-", "_" and "."');
      if (data.has(key)) throw at.error('the key is there twice');
      data.set(key, decode(at.text(), at));
    }
  };
  const plain = (text: string) => Buffer.from(text);
  const base64 = (text: string, at: YamlReader) => {
    if (!BASE64.test(text)) throw at.error('it is not base64');
    return Buffer.from(text, 'base64');
  };
  if (kind === 'ConfigMap') {
    add(reader.get('data'), plain);
    add(reader.get('binaryData'), base64);
  } else {
    add(reader.get('stringData'), plain);
    add(reader.get('data'), base64);
    reader.get('type').textOr('');
  }
  reader.get('immutable').boolOr(false);
  return { kind, name, data };
}

/** @throws TspodError unless the reference is optional */
export function findObject(
  objects: readonly DataObject[],
  kind: ObjectKind,
  name: YamlReader,
  optional: YamlReader,
): DataObject | undefined {
  const wanted = name.nonEmpty();
  const found = objects.find(one => one.kind === kind && one.name === wanted);
  if (found === undefined && optional.boolOr(false) !== true) {
    throw name.error(`there is no ${kind} "${wanted}" in the stream`, `add it as another document`);
  }
  return found;
}

/** A value that is to be a variable of an environment. */
export function asText(bytes: Uint8Array, at: YamlReader): string {
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    if (!text.includes('\0')) return text;
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
  }
  throw at.error('its value is no text');
}

export function refuseTwice(objects: readonly DataObject[], what: string): void {
  const seen = new Set<string>();
  for (const { kind, name } of objects) {
    if (seen.has(`${kind} ${name}`))
      throw new TspodError('pod', `${what}: ${kind} "${name}" is there twice`);
    seen.add(`${kind} ${name}`);
  }
}
