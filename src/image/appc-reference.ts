/**
 * An ACI by name as a user writes it, `NAME[:VERSION][,LABEL=VALUE]*` (appc 0.8.11, "App Container Image
 * Discovery"; rkt's spelling), and the URLs that a discovery template gives for it.
 */
import { createHash } from 'node:crypto';
import { TspodError } from '../errors.ts';
import type { NameValue } from './appc.ts';
import { type AppcImageManifest, hostLabels, labelOf } from './appc-manifest.ts';
import { isAcIdentifier } from './appc-names.ts';

export interface AppcReference {
  readonly name: string;
  /** Only those that were asked for; the version among them. */
  readonly labels: readonly NameValue[];
}

const MAX_LABELS = 100;
const MAX_VALUE = 256;

/**
 * Undefined for what can't be discovered: its first component is no host with a dot in it.
 * @throws TspodError 'reference' for labels that break the grammar of an otherwise good name
 */
export function parseAppcReference(text: string): AppcReference | undefined {
  const [first = '', ...pairs] = text.split(',');
  const colon = first.indexOf(':');
  const name = colon < 0 ? first : first.slice(0, colon);
  const host = name.split('/')[0] ?? '';
  if (!isAcIdentifier(name) || !(host.includes('.') || host === 'localhost')) return undefined;
  const labels = new Map<string, string>();
  const add = (key: string, value: string) => {
    const bad = (why: string) =>
      new TspodError('reference', `image ${JSON.stringify(text.slice(0, 200))}: ${why}`);
    if (!isAcIdentifier(key) || key === 'name') throw bad(`${JSON.stringify(key)} is no label`);
    if (labels.has(key)) throw bad(`the label ${key} is given twice`);
    if (value === '' || value.length > MAX_VALUE) {
      throw bad(`the label ${key} has no value of 1 to ${MAX_VALUE} characters`);
    }
    if (labels.size === MAX_LABELS) throw bad(`more than ${MAX_LABELS} labels`);
    labels.set(key, value);
  };
  if (colon >= 0) add('version', first.slice(colon + 1));
  for (const pair of pairs) {
    const equals = pair.indexOf('=');
    add(equals < 0 ? pair : pair.slice(0, equals), equals < 0 ? '' : pair.slice(equals + 1));
  }
  return { name, labels: [...labels].map(([key, value]) => ({ name: key, value })) };
}

/** `NAME[:VERSION][,LABEL=VALUE]*` again; other labels in order of their names. */
export function showAppcReference({ name, labels }: AppcReference): string {
  const version = labels.find(label => label.name === 'version');
  const others = labels
    .filter(label => label !== version)
    .map(label => `,${label.name}=${label.value}`)
    .sort();
  return `${name}${version === undefined ? '' : `:${version.value}`}${others.join('')}`;
}

/** Why the manifest is not of what was asked for; undefined when it is ("Validation"). */
export function whyNotReferred(
  { name, labels }: AppcReference,
  manifest: AppcImageManifest,
): string | undefined {
  if (manifest.name !== name) {
    return `its manifest says that it is ${JSON.stringify(manifest.name)}`;
  }
  const other = labels.find(
    label =>
      labelOf(manifest, label.name) !== label.value &&
      // What a server calls the latest has a version of its own.
      !(label.name === 'version' && label.value === 'latest'),
  );
  if (other === undefined) return undefined;
  const its = labelOf(manifest, other.name);
  const says =
    its === undefined ? 'has no such label' : `says ${JSON.stringify(its.slice(0, 100))}`;
  return `the label ${other.name} was asked to be ${JSON.stringify(other.value)}, and its manifest ${says}`;
}

/**
 * The image's URL by a template; undefined when it names a label that nobody has given. Defaults: version
 * `latest`, os and arch of this machine.
 */
export function renderTemplate(template: string, reference: AppcReference): string | undefined {
  const values = new Map<string, string>([
    ['version', 'latest'],
    ...Object.entries(hostLabels()),
    ...reference.labels.map(({ name, value }): [string, string] => [
      name,
      encodeURIComponent(value),
    ]),
    // An AC identifier is made of what a URL's path may have.
    ['name', reference.name],
    ['ext', 'aci'],
  ]);
  const url = template.replace(
    /\{([^{}]{1,100})\}/g,
    (whole, key: string) => values.get(key) ?? whole,
  );
  return /[{}]/.test(url) ? undefined : url;
}

/**
 * The name that the store has for an ACI's URL. What follows the `?` may be a credential, as in signed URLs of
 * object stores: only a digest of it is kept, and so two URLs never share a name.
 */
export function aciUrlName({ protocol, host, pathname, search }: URL): string {
  const plain = `${protocol}//${host}${pathname}`;
  if (search === '') return plain;
  return `${plain}?sha256=${createHash('sha256').update(search).digest('hex').slice(0, 32)}`;
}
