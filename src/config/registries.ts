/**
 * `registries.d` (a kind of tspod's own): how registries are reached. Mirrors are tried in their order
 * before the registry itself; each follows its own entry, if any, for TLS and plain HTTP.
 */
import { isAbsolute } from 'node:path';
import type { JsonObject, JsonReader } from '../image/json.ts';
import { parseRegistryReference } from '../image/reference.ts';
import type { Entry } from './config.ts';

export interface Mirror {
  /** HOST[:PORT] */
  readonly registry: string;
  /** Put before the repository's name; '' or ending in a slash. */
  readonly prefix: string;
}

export interface RegistrySettings {
  readonly registry: string;
  readonly mirrors: readonly Mirror[];
  /** `tls`: its certificate is not checked; `http`: it is asked over plain HTTP if it has no TLS. */
  readonly insecure: ReadonlySet<'tls' | 'http'>;
  /** Absolute paths of PEM files. */
  readonly caCertificate?: string;
  readonly clientCertificate?: string;
  readonly clientKey?: string;
  /** Where OpenPGP signatures of its images lie: an https URL or the URL of a folder. */
  readonly lookaside?: URL;
}

const MAX_LIST = 100;

export function readRegistries(
  reader: JsonReader,
  object: JsonObject,
): readonly Entry<RegistrySettings>[] {
  const registries = reader.array(object.registries, 'registries', MAX_LIST);
  if (registries.length === 0) reader.fail('registries', 'is empty');
  const hosts = registries.map((item, index) => {
    const path = `registries[${index}]`;
    const { registry, prefix } = location(reader, item, path);
    if (prefix !== '') reader.fail(path, 'has to be HOST[:PORT]');
    return registry;
  });
  const mirrors = reader
    .strings(object.mirrors, 'mirrors', MAX_LIST)
    .map((item, index) => location(reader, item, `mirrors[${index}]`));
  const insecure = new Set<'tls' | 'http'>();
  reader.strings(object.insecure, 'insecure', 2).forEach((item, index) => {
    if (item !== 'tls' && item !== 'http') reader.fail(`insecure[${index}]`, 'is not tls or http');
    insecure.add(item);
  });
  const caCertificate = file(reader, object, 'caCertificate');
  const clientCertificate = file(reader, object, 'clientCertificate');
  const clientKey = file(reader, object, 'clientKey');
  if ((clientCertificate === undefined) !== (clientKey === undefined)) {
    reader.fail('clientCertificate', 'and clientKey go together');
  }
  const lookaside = readLookaside(reader, object);
  const rest = {
    mirrors,
    insecure,
    ...(caCertificate === undefined ? {} : { caCertificate }),
    ...(clientCertificate === undefined ? {} : { clientCertificate }),
    ...(clientKey === undefined ? {} : { clientKey }),
    ...(lookaside === undefined ? {} : { lookaside }),
  };
  return hosts.map(registry => ({ key: registry, value: { registry, ...rest } }));
}

function file(reader: JsonReader, object: JsonObject, key: string): string | undefined {
  const path = reader.optionalString(object[key], key);
  if (path !== undefined && !isAbsolute(path)) reader.fail(key, 'is not an absolute path');
  return path;
}

function readLookaside(reader: JsonReader, object: JsonObject): URL | undefined {
  const text = reader.optionalString(object.lookaside, 'lookaside');
  if (text === undefined) return undefined;
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const known = url !== undefined && ['https:', 'http:', 'file:'].includes(url.protocol);
  if (!known || url.search !== '' || url.hash !== '' || url.username !== '') {
    return reader.fail('lookaside', 'is not an https: or file: URL without query and user');
  }
  return url;
}

/** HOST[:PORT][/PREFIX], by the grammar of references. */
function location(reader: JsonReader, value: unknown, path: string): Mirror {
  const text = reader.nonEmptyString(value, path);
  const slash = text.indexOf('/');
  const host = slash < 0 ? text : text.slice(0, slash);
  const prefix = slash < 0 ? '' : text.slice(slash + 1).replace(/\/$/, '');
  try {
    // A host without dot or port would be read as a part of a Docker Hub name.
    const spelled = /[.:]/.test(host) ? host : host === 'localhost' ? host : undefined;
    if (spelled === undefined) throw new Error('no host');
    const parsed = parseRegistryReference(`${spelled}/${prefix === '' ? '' : `${prefix}/`}x/x`);
    return { registry: parsed.registry, prefix: prefix === '' ? '' : `${prefix}/` };
  } catch {
    return reader.fail(path, `${JSON.stringify(text)} is not HOST[:PORT] with a dot or a port`);
  }
}
