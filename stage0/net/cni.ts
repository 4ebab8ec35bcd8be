/**
 * Plugins of the Container Network Interface, executed (CNI specification 1.1, sections 2 to 5; 0.1 to 1.0 alike):
 * the operation in the environment, the configuration on standard input, a result or an error on standard output.
 */
import { spawnSync } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';
import { errnoOf, TspodError } from '../../src/errors.ts';
import { isObject, type JsonObject, JsonReader, parseBoundedJson } from '../../src/image/json.ts';
import type { NetworkConfig, PluginConfig } from './config.ts';

/** Besides net.d, where rkt looks too: our own, rkt's, Debian's, and where others put them. */
export const PLUGIN_FOLDERS = [
  '/usr/lib/tspod/plugins/net',
  '/usr/lib/rkt/plugins/net',
  '/usr/lib/cni',
  '/usr/libexec/cni',
  '/opt/cni/bin',
];
const MAX_ANSWER = 1024 * 1024;
const MAX_LIST = 256;
const TIMEOUT_MS = 60_000;

export interface Attachment {
  readonly containerId: string;
  /** Path of the network namespace; undefined when it is gone (DEL only). */
  readonly netns: string | undefined;
  readonly ifName: string;
  /** CNI_ARGS */
  readonly args: string;
  /** By capability; a plugin gets those that it says it has. */
  readonly runtimeConfig: JsonObject;
}

/** What of a result anybody here needs, of every version. */
export interface CniResult {
  readonly ips: readonly {
    /** CIDR */
    readonly address: string;
    readonly gateway: string | undefined;
  }[];
  /** Destinations, CIDR. */
  readonly routes: readonly string[];
  /** Interfaces on the host's side. */
  readonly hostInterfaces: readonly string[];
  readonly dns: {
    readonly nameservers: readonly string[];
    readonly domain: string;
    readonly search: readonly string[];
    readonly options: readonly string[];
  };
  /** As the last plugin gave it; null: it gave nothing. */
  readonly raw: JsonObject | null;
}

/** The plugin's program. @throws TspodError 'not-found' that says which package may have it */
export function findPlugin(type: string, localConfig: string): string {
  for (const folder of pluginFolders(localConfig)) {
    const path = join(folder, type);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch (error) {
      const errno = errnoOf(error);
      if (errno !== 'ENOENT' && errno !== 'EACCES' && errno !== 'ENOTDIR') throw error;
    }
  }
  throw new TspodError('not-found', `network plugin "${type}": there is no such program`, {
    hint: 'install the plugins (Debian: containernetworking-plugins), or give --net=none or --net=host',
  });
}

export function pluginFolders(localConfig: string): readonly string[] {
  return [join(localConfig, 'net.d'), ...PLUGIN_FOLDERS];
}

/** The newest of the network's versions that all of its plugins speak. @throws TspodError 'unsupported' */
export function commonVersion(network: NetworkConfig, localConfig: string): string {
  const [only, ...others] = network.versions;
  if (only !== undefined && others.length === 0) return only;
  const spoken = network.plugins.map(({ type }) =>
    supportedVersions(findPlugin(type, localConfig)),
  );
  const common = network.versions.find(version => spoken.every(list => list.includes(version)));
  if (common !== undefined) return common;
  throw new TspodError(
    'unsupported',
    `network "${network.name}": its plugins speak none of the versions ${network.versions.join(', ')}`,
    { hint: 'install newer plugins, or give the configuration an older cniVersion' },
  );
}

function supportedVersions(program: string): readonly string[] {
  const input = JSON.stringify({ cniVersion: '1.0.0' });
  const { status, stdout } = spawnSync(program, [], {
    input,
    env: { CNI_COMMAND: 'VERSION', PATH: process.env['PATH'] },
    timeout: TIMEOUT_MS,
    maxBuffer: MAX_ANSWER,
  });
  // Older ones than 0.2 know no VERSION.
  if (status !== 0) return ['0.1.0'];
  const reader = new JsonReader({ what: `${program}: its versions`, code: 'protocol' });
  const answer = reader.object(parseBoundedJson(stdout, MAX_ANSWER, reader.kind), '');
  return reader.strings(answer['supportedVersions'], 'supportedVersions', MAX_LIST);
}

/** ADD of every plugin in order, each with the result before it. @throws TspodError 'network' */
export function addNetwork(
  network: NetworkConfig,
  version: string,
  attachment: Attachment,
  localConfig: string,
): CniResult {
  let previous: JsonObject | null = null;
  for (const plugin of network.plugins) {
    const config = configFor(network, version, plugin, attachment, previous);
    previous = execute('ADD', network, plugin, config, attachment, localConfig) ?? previous;
  }
  return readResult(previous, `network "${network.name}"`);
}

/**
 * DEL of every plugin in the reverse order; all of them are asked, whatever one of them says.
 * @param previous the result of ADD; null when it never came
 * @throws TspodError the first failure
 */
export function deleteNetwork(
  network: NetworkConfig,
  version: string,
  attachment: Attachment,
  localConfig: string,
  previous: JsonObject | null,
): void {
  let failure: unknown;
  for (const plugin of [...network.plugins].reverse()) {
    // From 0.4.0 on a DEL gets the result of ADD.
    const before = /^0\.[1-3]\./.test(version) ? null : previous;
    const config = configFor(network, version, plugin, attachment, before);
    try {
      execute('DEL', network, plugin, config, attachment, localConfig);
    } catch (error) {
      failure ??= error;
    }
  }
  if (failure !== undefined) throw failure;
}

function configFor(
  network: NetworkConfig,
  cniVersion: string,
  { config, capabilities }: PluginConfig,
  { runtimeConfig }: Attachment,
  previous: JsonObject | null,
): JsonObject {
  const wanted = Object.entries(runtimeConfig).filter(([key]) => capabilities[key] === true);
  return {
    ...config,
    name: network.name,
    cniVersion,
    ...(wanted.length === 0 ? {} : { runtimeConfig: Object.fromEntries(wanted) }),
    ...(previous === null ? {} : { prevResult: previous }),
  };
}

function execute(
  command: 'ADD' | 'DEL',
  network: NetworkConfig,
  { type }: PluginConfig,
  config: JsonObject,
  attachment: Attachment,
  localConfig: string,
): JsonObject | undefined {
  const what = `network "${network.name}": plugin ${type}`;
  const ended = spawnSync(findPlugin(type, localConfig), [], {
    input: JSON.stringify(config),
    env: {
      CNI_COMMAND: command,
      CNI_CONTAINERID: attachment.containerId,
      ...(attachment.netns === undefined ? {} : { CNI_NETNS: attachment.netns }),
      CNI_IFNAME: attachment.ifName,
      CNI_ARGS: ['IgnoreUnknown=1', attachment.args].filter(text => text !== '').join(';'),
      CNI_PATH: pluginFolders(localConfig).join(':'),
      PATH: process.env['PATH'] ?? '/usr/sbin:/usr/bin:/sbin:/bin',
    },
    timeout: TIMEOUT_MS,
    killSignal: 'SIGKILL',
    maxBuffer: MAX_ANSWER,
  });
  const { status, signal, error, stdout, stderr } = ended;
  if (status === 0) {
    const text = stdout.toString().trim();
    if (text === '') return undefined;
    return asObject(stdout, `${what}: its result`);
  }
  const why =
    errorIn(stdout) ??
    lastLine(stderr) ??
    (error === undefined ? `it ended with ${signal ?? `status ${status}`}` : error.message);
  throw new TspodError('network', `${what}: ${why}`);
}

function asObject(bytes: Uint8Array, what: string): JsonObject {
  const reader = new JsonReader({ what, code: 'protocol' });
  return reader.object(parseBoundedJson(bytes, MAX_ANSWER, reader.kind), '');
}

/** Section 5, "Error": code, msg, details. One line of it. */
function errorIn(stdout: Uint8Array): string | undefined {
  let answer: unknown;
  try {
    answer = parseBoundedJson(stdout, MAX_ANSWER, { what: 'error', code: 'protocol' });
  } catch {
    return undefined;
  }
  if (!isObject(answer)) return undefined;
  const texts = [answer['msg'], answer['details']].filter(
    text => typeof text === 'string' && text !== '',
  );
  return texts.length === 0 ? undefined : oneLine(texts.join(': '));
}

function lastLine(bytes: Uint8Array): string | undefined {
  const line = Buffer.from(bytes).toString().trim().split('\n').at(-1);
  return line === undefined || line === '' ? undefined : oneLine(line);
}

function oneLine(text: string): string {
  return text.replace(/[\p{Cc}\s]+/gu, ' ').slice(0, 500);
}

/** Section 5, "Success", and its forms of 0.1 to 0.4. @throws TspodError 'protocol' */
export function readResult(raw: JsonObject | null, what: string): CniResult {
  const reader = new JsonReader({ what: `${what}: its result`, code: 'protocol' });
  const dns = reader.optionalObject(raw?.['dns'], 'dns');
  const common = {
    dns: {
      nameservers: reader.strings(dns?.['nameservers'], 'dns.nameservers', MAX_LIST),
      domain: reader.optionalString(dns?.['domain'], 'dns.domain') ?? '',
      search: reader.strings(dns?.['search'], 'dns.search', MAX_LIST),
      options: reader.strings(dns?.['options'], 'dns.options', MAX_LIST),
    },
    raw,
  };
  if (raw?.['ip4'] !== undefined || raw?.['ip6'] !== undefined) {
    return { ...common, ...readOld(reader, raw), hostInterfaces: [] };
  }
  const list = (value: unknown, path: string) =>
    value === undefined || value === null
      ? []
      : reader.array(value, path, MAX_LIST).map((one, at) => reader.object(one, `${path}[${at}]`));
  return {
    ...common,
    ips: list(raw?.['ips'], 'ips').map((ip, at) => ({
      address: address(reader, ip['address'], `ips[${at}].address`),
      gateway: reader.optionalString(ip['gateway'], `ips[${at}].gateway`),
    })),
    routes: list(raw?.['routes'], 'routes').map((route, at) =>
      reader.string(route['dst'], `routes[${at}].dst`),
    ),
    hostInterfaces: list(raw?.['interfaces'], 'interfaces')
      .filter(one => one['sandbox'] === undefined || one['sandbox'] === '')
      .map((one, at) => reader.string(one['name'], `interfaces[${at}].name`)),
  };
}

function readOld(reader: JsonReader, raw: JsonObject): Pick<CniResult, 'ips' | 'routes'> {
  const ips: CniResult['ips'][number][] = [];
  const routes: string[] = [];
  for (const key of ['ip4', 'ip6']) {
    const one = reader.optionalObject(raw[key], key);
    if (one === undefined) continue;
    ips.push({
      address: address(reader, one['ip'], `${key}.ip`),
      gateway: reader.optionalString(one['gateway'], `${key}.gateway`),
    });
    const given = one['routes'];
    if (given === undefined || given === null) continue;
    for (const [at, route] of reader.array(given, `${key}.routes`, MAX_LIST).entries()) {
      const path = `${key}.routes[${at}]`;
      routes.push(reader.string(reader.object(route, path)['dst'], `${path}.dst`));
    }
  }
  return { ips, routes };
}

/** It goes into rules of the packet filter. */
function address(reader: JsonReader, value: unknown, path: string): string {
  const text = reader.string(value, path);
  if (!/^[0-9a-fA-F:.]{2,45}\/[0-9]{1,3}$/.test(text)) reader.fail(path, 'is not an address');
  return text;
}
