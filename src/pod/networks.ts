/** `net-info.json` in a pod's folder: rkt's record of the networks that the pod has, and what lists show of it. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { isObject } from '../image/json.ts';

export const NETWORKS_FILE = 'net-info.json';

/** rkt-1.30, networking/netinfo: the names of the fields are rkt's. */
export interface PodNetwork {
  readonly netName: string;
  /** The file that it was read from; '' for one that is built in. */
  readonly netConf: string;
  readonly pluginPath: string;
  readonly ifName: string;
  /** Without prefix; '' where the plugins gave none. */
  readonly ip: string;
  readonly args: string;
  readonly mask: string;
}

/** Those of the pod in `dir`; none where nothing has written them down. Of a damaged file what can be read. */
export function readNetworks(dir: string): readonly PodNetwork[] {
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(join(dir, NETWORKS_FILE), 'utf8'));
  } catch {
    return [];
  }
  if (!Array.isArray(value)) return [];
  return value.filter(isObject).map(one => {
    const text = (key: string) => {
      const found = one[key];
      return typeof found === 'string' ? found : '';
    };
    return {
      netName: text('netName'),
      netConf: text('netConf'),
      pluginPath: text('pluginPath'),
      ifName: text('ifName'),
      ip: text('ip'),
      args: text('args'),
      mask: text('mask'),
    };
  });
}

/** rkt's column: `default:ip4=172.16.28.2, other:ip6=fd00::2`. */
export function showNetworks(networks: readonly PodNetwork[]): string {
  return networks
    .map(({ netName, ip }) => {
      if (ip === '') return netName;
      return `${netName}:${ip.includes(':') ? 'ip6' : 'ip4'}=${ip}`;
    })
    .join(', ');
}
