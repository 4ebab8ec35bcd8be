/**
 * What is to be undone of a pod's networks, in the pod's folder: one file below `net` per network, written before
 * anything is done and again with the result. So a DEL always knows what its ADD knew, after a crash or a reboot, and
 * whatever has become of the configuration. `net-info.json` is rkt's, for whoever lists pods.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { errnoOf, systemError } from '../../src/errors.ts';
import { type JsonObject, JsonReader, parseBoundedJson } from '../../src/image/json.ts';
import { replaceFile } from '../../src/pod/folder.ts';
import { NETWORKS_FILE, type PodNetwork } from '../../src/pod/networks.ts';
import type { NetworkConfig } from './config.ts';

const FOLDER = 'net';
const MAX_BYTES = 4 * 1024 * 1024;
const MAX_PLUGINS = 64;
const NAME = /^[0-9]{2}\.json$/;

export interface NetworkRecord {
  readonly network: NetworkConfig;
  readonly cniVersion: string;
  readonly ifName: string;
  readonly args: string;
  readonly runtimeConfig: JsonObject;
  /** Where else plugins are looked for. */
  readonly localConfig: string;
  /** Null: ADD has not come to its end. */
  readonly result: JsonObject | null;
}

export function writeRecord(dir: string, number: number, record: NetworkRecord): void {
  const folder = join(dir, FOLDER);
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    replaceFile(join(folder, `${String(number).padStart(2, '0')}.json`), JSON.stringify(record));
  } catch (error) {
    throw systemError(`can't write ${folder}`, error);
  }
}

/** Whether there may be something to undo. */
export function hasRecords(dir: string): boolean {
  return filesIn(dir) !== undefined;
}

/** With the name of each, in the order in which they were added. */
export function readRecords(dir: string): readonly (readonly [file: string, NetworkRecord])[] {
  return (filesIn(dir) ?? []).map(name => {
    const path = join(dir, FOLDER, name);
    return [path, readRecord(path)] as const;
  });
}

export function forgetRecords(dir: string): void {
  rmSync(join(dir, FOLDER), { recursive: true, force: true });
}

export function writeInfo(dir: string, networks: readonly PodNetwork[]): void {
  try {
    replaceFile(join(dir, NETWORKS_FILE), JSON.stringify(networks));
  } catch (error) {
    throw systemError(`can't write ${join(dir, NETWORKS_FILE)}`, error);
  }
}

function filesIn(dir: string): readonly string[] | undefined {
  try {
    return readdirSync(join(dir, FOLDER))
      .filter(name => NAME.test(name))
      .sort();
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === 'ENOENT' || errno === 'ENOTDIR') return undefined;
    throw systemError(`can't read ${join(dir, FOLDER)}`, error);
  }
}

function readRecord(path: string): NetworkRecord {
  const reader = new JsonReader({ what: path, code: 'config' });
  const top = reader.object(parseBoundedJson(readFileSync(path), MAX_BYTES, reader.kind), '');
  const network = reader.object(top['network'], 'network');
  return {
    network: {
      name: reader.string(network['name'], 'network.name'),
      versions: reader.strings(network['versions'], 'network.versions', MAX_PLUGINS),
      plugins: reader
        .array(network['plugins'], 'network.plugins', MAX_PLUGINS)
        .map((value, index) => {
          const at = `network.plugins[${index}]`;
          const plugin = reader.object(value, at);
          const capabilities = reader.object(plugin['capabilities'], `${at}.capabilities`);
          return {
            type: reader.string(plugin['type'], `${at}.type`),
            config: reader.object(plugin['config'], `${at}.config`),
            capabilities: Object.fromEntries(
              Object.entries(capabilities).map(([key, value]) => [key, value === true]),
            ),
          };
        }),
      masquerade: network['masquerade'] === true,
    },
    cniVersion: reader.string(top['cniVersion'], 'cniVersion'),
    ifName: reader.string(top['ifName'], 'ifName'),
    args: reader.string(top['args'], 'args'),
    runtimeConfig: reader.object(top['runtimeConfig'], 'runtimeConfig'),
    localConfig: reader.string(top['localConfig'], 'localConfig'),
    result: reader.optionalObject(top['result'], 'result') ?? null,
  };
}
