/**
 * `trust.d` (a kind of tspod's own): whose signatures an image needs, by prefixes of image names
 * (docs/trust.md). The rule of the longest prefix decides alone; where no rule fits, the OpenPGP key stores do.
 * A file that is wrong is an error for every image: what it was meant to forbid is not known.
 */
import { isAbsolute } from 'node:path';
import type { JsonObject, JsonReader } from '../image/json.ts';
import type { Entry } from './config.ts';

/** A text is compared whole; a regular expression has to match the whole, too. */
export type Pattern = string | { readonly regexp: string };

export interface TrustedIdentity {
  readonly identity: Pattern;
  readonly issuer: Pattern;
}

export interface TrustRule {
  /** Whole components of image names, an absolute path of files, or `*`. */
  readonly prefix: string;
  /** `any`: one of what follows vouches; `all`: each; `none`: the image needs no signature. */
  readonly require: 'any' | 'all' | 'none';
  /** true: a key that the key stores trust for the name; or those of them with these fingerprints. */
  readonly openpgp: boolean | readonly string[];
  /** Public keys in PEM, or absolute paths of files of one. */
  readonly cosignKeys: readonly string[];
  readonly identities: readonly TrustedIdentity[];
  /** Absolute path of sigstore's trusted root; undefined: the public one that comes with tspod. */
  readonly trustedRoot: string | undefined;
  /** The file that the rule is in. */
  readonly file: string;
}

/** The rule for every image that no other one fits. */
export const ALL_NAMES = '*';

const KEYS: ReadonlySet<string> = new Set([
  'rktKind',
  'rktVersion',
  'prefixes',
  'require',
  'openpgp',
  'cosignKeys',
  'identities',
  'trustedRoot',
]);
const MAX_LIST = 64;
const MAX_PREFIX = 4096;
const HOST = /^[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?(?::[0-9]{1,5})?$|^\[[0-9a-f:]+\](?::[0-9]{1,5})?$/;
const COMPONENT = /^[a-z0-9](?:[a-z0-9._~-]*[a-z0-9])?$/;
const FINGERPRINT = /^(?:[0-9a-f]{40}|[0-9a-f]{64})$/;

export function readTrust(
  reader: JsonReader,
  object: JsonObject,
  file: string,
): readonly Entry<TrustRule>[] {
  // A misspelt key would be a demand that nobody makes.
  const unknown = Object.keys(object).find(key => !KEYS.has(key));
  if (unknown !== undefined) reader.fail(JSON.stringify(unknown.slice(0, 80)), 'is not known');
  const prefixes = reader.array(object.prefixes, 'prefixes', MAX_LIST).map((item, index) => {
    const path = `prefixes[${index}]`;
    const prefix = normalPrefix(reader.string(item, path));
    const fault = prefixFault(prefix);
    return fault === undefined ? prefix : reader.fail(path, fault);
  });
  if (prefixes.length === 0) reader.fail('prefixes', 'is empty');
  const require = reader.optionalString(object.require, 'require') ?? 'any';
  if (require !== 'any' && require !== 'all' && require !== 'none') {
    reader.fail('require', `${JSON.stringify(require.slice(0, 80))} is not any, all or none`);
  }
  const rule = {
    require,
    openpgp: readOpenPgp(reader, object.openpgp),
    cosignKeys: readCosignKeys(reader, object.cosignKeys),
    identities: readIdentities(reader, object.identities),
    trustedRoot: readPath(reader, object.trustedRoot, 'trustedRoot'),
    file,
  } as const;
  const asks = rule.openpgp !== false || rule.cosignKeys.length + rule.identities.length > 0;
  if (require === 'none' && asks) {
    reader.fail('require', 'is none, which does not go with keys and identities');
  }
  if (require !== 'none' && !asks) {
    reader.fail('require', `is ${require}, of nothing: give openpgp, cosignKeys or identities`);
  }
  return prefixes.map(prefix => ({ key: prefix, value: { prefix, ...rule } }));
}

/** `*` for the empty prefix; a slash at the end does not count. */
export function normalPrefix(prefix: string): string {
  if (prefix === '' || prefix === ALL_NAMES) return ALL_NAMES;
  return prefix.length > 1 ? prefix.replace(/\/$/, '') : prefix;
}

/** What is wrong with a (normal) prefix, to follow its key; undefined: nothing. */
export function prefixFault(prefix: string): string | undefined {
  const shown = JSON.stringify(prefix.slice(0, 100));
  if (prefix === ALL_NAMES || prefix === '/') return undefined;
  if (prefix.length > MAX_PREFIX) return `is longer than ${MAX_PREFIX} characters`;
  const scheme = /^([a-z][a-z0-9+.-]*:\/\/)/i.exec(prefix)?.[1];
  if (scheme !== undefined) return `${shown} has a scheme: leave out ${scheme}`;
  if (isAbsolute(prefix)) {
    const plain = prefix
      .slice(1)
      .split('/')
      .every(part => !['', '.', '..'].includes(part));
    return plain && !/\p{Cc}/u.test(prefix) ? undefined : `${shown} is not a plain path`;
  }
  const [host = '', ...components] = prefix.split('/');
  if (HOST.test(host) && components.every(part => COMPONENT.test(part))) return undefined;
  const why = /[A-Z]/.test(prefix) ? 'has to be lower case' : 'is not a prefix of image names';
  return `${shown} ${why} (for example docker.io/library, without tag)`;
}

/** The rule that decides about a name: the one of the longest prefix. */
export function ruleFor(
  rules: ReadonlyMap<string, TrustRule>,
  name: string,
): TrustRule | undefined {
  for (let prefix = name; prefix !== ''; ) {
    const rule = rules.get(prefix);
    if (rule !== undefined) return rule;
    const slash = prefix.lastIndexOf('/');
    prefix = slash > 0 ? prefix.slice(0, slash) : slash === 0 && prefix !== '/' ? '/' : '';
  }
  return rules.get(ALL_NAMES);
}

function readOpenPgp(reader: JsonReader, value: unknown): boolean | readonly string[] {
  if (value === undefined || value === null) return false;
  if (typeof value === 'boolean') return value;
  const fingerprints = reader.strings(value, 'openpgp', MAX_LIST).map((item, index) => {
    const fingerprint = item.replace(/ /g, '').toLowerCase();
    return FINGERPRINT.test(fingerprint)
      ? fingerprint
      : reader.fail(`openpgp[${index}]`, 'is not a fingerprint of 40 or 64 hex digits');
  });
  return fingerprints.length === 0 ? reader.fail('openpgp', 'is an empty list') : fingerprints;
}

function readCosignKeys(reader: JsonReader, value: unknown): readonly string[] {
  return reader.strings(value, 'cosignKeys', MAX_LIST).map((item, index) => {
    if (item.includes('-----BEGIN ') || isAbsolute(item)) return item;
    return reader.fail(`cosignKeys[${index}]`, 'is neither PEM nor an absolute path');
  });
}

function readIdentities(reader: JsonReader, value: unknown): readonly TrustedIdentity[] {
  if (value === undefined || value === null) return [];
  return reader.array(value, 'identities', MAX_LIST).map((item, index) => {
    const path = `identities[${index}]`;
    const object = reader.object(item, path);
    const known = ['identity', 'issuer', 'identityRegexp', 'issuerRegexp'];
    const unknown = Object.keys(object).find(key => !known.includes(key));
    if (unknown !== undefined) reader.fail(`${path}.${unknown.slice(0, 80)}`, 'is not known');
    return {
      identity: readPattern(reader, object, path, 'identity'),
      issuer: readPattern(reader, object, path, 'issuer'),
    };
  });
}

/** `identity` or `identityRegexp`, exactly one. */
function readPattern(reader: JsonReader, object: JsonObject, path: string, key: string): Pattern {
  const exact = object[key];
  const regexp = object[`${key}Regexp`];
  if ((exact === undefined) === (regexp === undefined)) {
    reader.fail(`${path}.${key}`, `or ${key}Regexp has to be given, one of them`);
  }
  if (exact !== undefined) return reader.nonEmptyString(exact, `${path}.${key}`);
  const text = reader.nonEmptyString(regexp, `${path}.${key}Regexp`);
  try {
    new RegExp(text, 'v');
  } catch {
    reader.fail(`${path}.${key}Regexp`, 'is not a regular expression');
  }
  return { regexp: text };
}

function readPath(reader: JsonReader, value: unknown, key: string): string | undefined {
  const path = reader.optionalString(value, key);
  if (path !== undefined && !isAbsolute(path)) reader.fail(key, 'is not an absolute path');
  return path;
}

/** A rule as it would be in a file. */
export function trustToJson(rule: TrustRule): object {
  const { prefix, require, openpgp, cosignKeys, identities, trustedRoot } = rule;
  return {
    rktKind: 'trust',
    rktVersion: 'v1',
    prefixes: [prefix],
    require,
    ...(openpgp === false ? {} : { openpgp }),
    ...(cosignKeys.length === 0 ? {} : { cosignKeys }),
    ...(identities.length === 0
      ? {}
      : {
          identities: identities.map(({ identity, issuer }) => ({
            ...showPattern('identity', identity),
            ...showPattern('issuer', issuer),
          })),
        }),
    ...(trustedRoot === undefined ? {} : { trustedRoot }),
  };
}

function showPattern(key: string, pattern: Pattern): object {
  return typeof pattern === 'string' ? { [key]: pattern } : { [`${key}Regexp`]: pattern.regexp };
}
