/** Variables of a container: env and envFrom, with `$(NAME)` expanded as Kubernetes does. */
import { asText, type DataObject, findObject } from './objects.ts';
import type { YamlReader } from './yaml-reader.ts';

/** What `fieldRef` can name. */
export interface PodFields {
  readonly name: string;
  readonly namespace: string;
  readonly labels: ReadonlyMap<string, string>;
  readonly annotations: ReadonlyMap<string, string>;
}

export function readEnvironment(
  container: YamlReader,
  objects: readonly DataObject[],
  fields: PodFields,
): ReadonlyMap<string, string> {
  const variables = new Map<string, string>();
  for (const source of container.get('envFrom').list()) {
    const prefix = source.get('prefix').textOr('');
    for (const [key, kind] of [
      ['configMapRef', 'ConfigMap'],
      ['secretRef', 'Secret'],
    ] as const) {
      const reference = source.get(key);
      if (reference.isAbsent) continue;
      const found = findObject(objects, kind, reference.get('name'), reference.get('optional'));
      for (const [name, value] of found?.data ?? []) {
        // Names that no variable can have are passed over, as Kubernetes does.
        if (/^[^=\0]+$/.test(name)) variables.set(prefix + name, asText(value, reference));
      }
    }
  }
  for (const entry of container.get('env').list()) {
    const name = entry.get('name').nonEmpty();
    if (name.includes('=')) throw entry.get('name').error('it has a "="');
    const from = entry.get('valueFrom');
    const value = from.isAbsent
      ? expand(entry.get('value').textOr(''), variables)
      : valueFrom(from, objects, fields);
    if (value !== undefined) variables.set(name, value);
  }
  return variables;
}

/** `$(NAME)` of a variable that is known so far; `$$` is a dollar; anything else stays. */
export function expand(text: string, variables: ReadonlyMap<string, string>): string {
  return text.replace(/\$\$|\$\(([^()]*)\)/g, (whole: string, name: string | undefined) => {
    if (whole === '$$') return '$';
    return variables.get(name ?? '') ?? whole;
  });
}

function valueFrom(
  from: YamlReader,
  objects: readonly DataObject[],
  fields: PodFields,
): string | undefined {
  for (const [key, kind] of [
    ['configMapKeyRef', 'ConfigMap'],
    ['secretKeyRef', 'Secret'],
  ] as const) {
    const reference = from.get(key);
    if (reference.isAbsent) continue;
    const optional = reference.get('optional');
    const wanted = reference.get('key');
    const found = findObject(objects, kind, reference.get('name'), optional);
    const value = found?.data.get(wanted.nonEmpty());
    if (value !== undefined) return asText(value, wanted);
    if (optional.boolOr(false)) return undefined;
    throw wanted.error(`the ${kind} has no such key`);
  }
  const field = from.get('fieldRef');
  if (field.isAbsent)
    throw from.error(
      'it names nothing that is known',
      'give configMapKeyRef, secretKeyRef or fieldRef',
    );
  field.get('apiVersion').textOr('');
  const path = field.get('fieldPath');
  const text = path.nonEmpty();
  if (text === 'metadata.name') return fields.name;
  if (text === 'metadata.namespace') return fields.namespace;
  const keyed = /^metadata\.(labels|annotations)\['([^']+)'\]$/.exec(text);
  if (keyed !== null)
    return (keyed[1] === 'labels' ? fields.labels : fields.annotations).get(keyed[2] ?? '') ?? '';
  throw path.error(`${text} is not known before the pod runs`);
}
