/**
 * The networks of this machine: files `*.conf`, `*.json` and `*.conflist` in net.d of the local configuration, in the
 * order of their names (CNI specification, section 1: configuration lists; a single configuration is a list of one),
 * and two that are always there: `default` and `default-restricted`, as rkt has them, unless a file has that name.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { errnoOf, systemError, TspodError } from '../../src/errors.ts';
import { type JsonObject, JsonReader, parseBoundedJson } from '../../src/image/json.ts';
import type { NetworksRequest } from '../../src/pod/net-request.ts';

/** The newest version that this runtime speaks. */
export const NEWEST = '1.1.0';
/** In order. */
export const VERSIONS = ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', NEWEST] as const;
/** What a configuration without a version is of (libcni). */
const OLDEST = '0.1.0';

const MAX_BYTES = 1024 * 1024;
const MAX_PLUGINS = 32;
const FILES = /\.(?:conf|json|conflist)$/;
const NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$/;
/** A plugin is a file in one of the folders; a slash would lead out of them. */
const TYPE = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$/;
/** Gone at a reboot, as are the pods that have the addresses. */
const LEASES = '/run/tspod/networks';

export interface PluginConfig {
  readonly type: string;
  readonly capabilities: Readonly<Record<string, boolean>>;
  /** As it stands in the file. */
  readonly config: JsonObject;
}

export interface NetworkConfig {
  readonly name: string;
  /** Versions that the configuration may be used in, newest first. */
  readonly versions: readonly string[];
  readonly plugins: readonly PluginConfig[];
  /** Where it was read; undefined: it is built in. */
  readonly path?: string;
  /** What leaves the pod by this network gets an address of the host's: by us, without iptables. */
  readonly masquerade: boolean;
}

/** @throws TspodError 'not-found' in rkt's words, 'config' for a file that is wrong */
export function chosenNetworks(
  localConfig: string,
  request: NetworksRequest,
): readonly { readonly network: NetworkConfig; readonly args: string }[] {
  const found = configuredNetworks(localConfig);
  if (request.kind === 'all') {
    const configured = found.filter(({ name }) => name !== 'default-restricted');
    return configured.map(network => ({ network, args: '' }));
  }
  const missing = request.networks.filter(({ name }) => !found.some(one => one.name === name));
  if (missing.length > 0) {
    throw new TspodError(
      'not-found',
      `networks not found: ${missing.map(({ name }) => name).join(', ')}`,
      {
        hint: `${join(localConfig, 'net.d')} has them as *.conf or *.conflist`,
      },
    );
  }
  return request.networks.flatMap(({ name, args }) => {
    const network = found.find(one => one.name === name);
    return network === undefined ? [] : [{ network, args }];
  });
}

/** Files first, in order, then what is built in and not overridden. @throws TspodError 'config' */
export function configuredNetworks(localConfig: string): readonly NetworkConfig[] {
  const folder = join(localConfig, 'net.d');
  const networks: NetworkConfig[] = [];
  for (const name of filesIn(folder)) {
    const network = readNetwork(join(folder, name));
    const other = networks.find(one => one.name === network.name);
    if (other !== undefined) {
      throw new TspodError(
        'config',
        `${network.path}: network "${network.name}" is in ${other.path} already`,
        {
          hint: 'give one of them another name',
        },
      );
    }
    networks.push(network);
  }
  const builtIn = [
    ptp('default', '172.16.28.0/24', true),
    ptp('default-restricted', '172.31.0.0/16', false),
  ];
  return [...networks, ...builtIn.filter(one => !networks.some(({ name }) => name === one.name))];
}

function filesIn(folder: string): readonly string[] {
  try {
    return readdirSync(folder)
      .filter(name => FILES.test(name) && !name.startsWith('.'))
      .sort();
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw systemError(`can't read ${folder}`, error);
  }
}

function readNetwork(path: string): NetworkConfig {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    throw systemError(`can't read ${path}`, error);
  }
  return { ...parseNetwork(bytes, path), path };
}

/** @param what for messages. @throws TspodError 'config', 'limit' */
export function parseNetwork(bytes: Uint8Array, what: string): NetworkConfig {
  const reader = new JsonReader({ what, code: 'config' });
  const top = reader.object(parseBoundedJson(bytes, MAX_BYTES, reader.kind), '');
  const name = reader.nonEmptyString(top['name'], 'name');
  if (!NAME.test(name)) reader.fail('name', 'is not the name of a network');
  const isList = top['plugins'] !== undefined;
  const plugins = isList
    ? reader.array(top['plugins'], 'plugins', MAX_PLUGINS)
    : [without(top, ['name', 'cniVersion', 'cniVersions'])];
  if (plugins.length === 0) reader.fail('plugins', 'is empty');
  return {
    name,
    versions: versionsOf(reader, top),
    plugins: plugins.map((one, index) =>
      readPlugin(reader, one, isList ? `plugins[${index}]` : ''),
    ),
    masquerade: false,
  };
}

function without(object: JsonObject, keys: readonly string[]): JsonObject {
  return Object.fromEntries(Object.entries(object).filter(([key]) => !keys.includes(key)));
}

function readPlugin(reader: JsonReader, value: unknown, path: string): PluginConfig {
  const config = reader.object(value, path);
  const at = (key: string) => (path === '' ? key : `${path}.${key}`);
  const type = reader.nonEmptyString(config['type'], at('type'));
  if (!TYPE.test(type)) reader.fail(at('type'), 'is not the name of a plugin');
  const capabilities: Record<string, boolean> = Object.create(null);
  const given = reader.optionalObject(config['capabilities'], at('capabilities'));
  for (const key of reader.keys(given, at('capabilities'), MAX_PLUGINS)) {
    const value = given?.[key];
    if (typeof value !== 'boolean') reader.fail(at(`capabilities.${key}`), 'is not a boolean');
    capabilities[key] = value;
  }
  return { type, capabilities, config };
}

/** `cniVersions` says what else it may be used in (1.1, section 1). */
function versionsOf(reader: JsonReader, top: JsonObject): readonly string[] {
  const one = reader.optionalString(top['cniVersion'], 'cniVersion') ?? OLDEST;
  const more = reader.strings(top['cniVersions'], 'cniVersions', MAX_PLUGINS);
  const all = [...new Set([one, ...more])];
  const known = VERSIONS.filter(version => all.includes(version)).reverse();
  if (known.length === 0) {
    reader.fail(
      'cniVersion',
      `is ${JSON.stringify(one.slice(0, 40))}; known are ${VERSIONS.join(', ')}`,
    );
  }
  // 1.1 adds verbs and fields that none of ours uses, and most plugins speak 1.0.
  return known.includes(NEWEST) && !known.includes('1.0.0') ? [...known, '1.0.0'] : known;
}

function ptp(name: string, subnet: string, isDefault: boolean): NetworkConfig {
  const ipam = {
    type: 'host-local',
    dataDir: LEASES,
    ranges: [[{ subnet }]],
    ...(isDefault ? { routes: [{ dst: '0.0.0.0/0' }] } : {}),
  };
  return {
    name,
    versions: ['1.0.0', '0.4.0', '0.3.1'],
    plugins: [{ type: 'ptp', capabilities: {}, config: { type: 'ptp', ipam } }],
    masquerade: isDefault,
  };
}
