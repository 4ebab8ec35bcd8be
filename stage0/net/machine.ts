/**
 * Gives the interfaces that networks made in a pod's namespace to its machine: what arrives at one goes on to a tap
 * device as it is, and back (tc(8), "ingress" and "mirred"), so the machine's card has the same hardware address and
 * every plugin's promises (addresses, routes, neighbours) hold for it. All of it lies in the namespace and ends with it.
 */
import { spawnSync } from 'node:child_process';
import '../hot.ts';
import { reasonOf, TspodError } from '../../src/errors.ts';
import { isObject } from '../../src/image/json.ts';
import { readNetworks } from '../../src/pod/networks.ts';
import type { MachineInterface } from '../../src/pod/pod.ts';

const TIMEOUT_MS = 10_000;

/** @throws TspodError 'network', 'unsupported' */
export function takeOverInterfaces(uuid: string, dir: string): readonly MachineInterface[] {
  const netns = `tspod-${uuid}`;
  return readNetworks(dir).map(({ ifName }, index) => {
    const tap = `tap${index}`;
    const found = interfaceOf(netns, ifName, tap);
    run('ip', ['-n', netns, 'tuntap', 'add', 'dev', tap, 'mode', 'tap', 'vnet_hdr']);
    run('ip', ['-n', netns, 'link', 'set', 'dev', tap, 'mtu', String(found.mtu), 'up']);
    // The namespace itself must not answer for what is the machine's.
    run('ip', ['-n', netns, 'addr', 'flush', 'dev', ifName, 'scope', 'global']);
    redirect(netns, ifName, tap);
    redirect(netns, tap, ifName);
    return found;
  });
}

function redirect(netns: string, from: string, to: string): void {
  run('tc', ['-n', netns, 'qdisc', 'add', 'dev', from, 'ingress']);
  run('tc', [
    '-n',
    netns,
    'filter',
    'add',
    'dev',
    from,
    'parent',
    'ffff:',
    'protocol',
    'all',
    'u32',
    'match',
    'u8',
    '0',
    '0',
    'action',
    'mirred',
    'egress',
    'redirect',
    'dev',
    to,
  ]);
}

function interfaceOf(netns: string, name: string, tap: string): MachineInterface {
  const [link] = list(run('ip', ['-n', netns, '-j', 'addr', 'show', 'dev', name]));
  const mac = text(link, 'address');
  if (!/^[0-9a-f]{2}(?::[0-9a-f]{2}){5}$/.test(mac)) {
    throw new TspodError('unsupported', `network interface ${name}: it is no Ethernet`, {
      hint: 'a machine needs networks of Ethernet, e.g. --net=default',
    });
  }
  const addresses = objects(link, 'addr_info')
    .filter(one => text(one, 'scope') === 'global')
    .map(one => `${text(one, 'local')}/${number(one, 'prefixlen')}`);
  const routes = ['-4', '-6'].flatMap(family =>
    list(run('ip', [family, '-n', netns, '-j', 'route', 'show', 'dev', name]))
      // What the kernel made of an address it makes again.
      .filter(route => text(route, 'protocol') !== 'kernel')
      .map(route => {
        const to = text(route, 'dst');
        const gateway = text(route, 'gateway');
        const all = family === '-4' ? '0.0.0.0/0' : '::/0';
        return {
          to: to === 'default' ? all : to,
          gateway: gateway === '' ? undefined : gateway,
        };
      }),
  );
  // A gateway must be reachable before it is used.
  const ordered = [...routes].sort(
    (a, b) => Number(a.gateway !== undefined) - Number(b.gateway !== undefined),
  );
  return { name, tap, mac, mtu: number(link, 'mtu') || 1500, addresses, routes: ordered };
}

function run(program: string, words: readonly string[]): string {
  const { status, stdout, stderr, error } = spawnSync(program, words, {
    encoding: 'utf8',
    timeout: TIMEOUT_MS,
  });
  if (status === 0) return stdout;
  const why = error === undefined ? stderr.trim().split('\n')[0] : reasonOf(error);
  throw new TspodError('network', `can't give the machine its network: ${program}: ${why}`, {
    hint: 'install iproute2, or use --net=none',
  });
}

function list(json: string): readonly Record<string, unknown>[] {
  const value: unknown = json.trim() === '' ? [] : JSON.parse(json);
  return Array.isArray(value) ? value.filter(isObject) : [];
}

function objects(value: Record<string, unknown> | undefined, key: string) {
  const found = value?.[key];
  return Array.isArray(found) ? found.filter(isObject) : [];
}

function text(value: Record<string, unknown> | undefined, key: string): string {
  const found = value?.[key];
  return typeof found === 'string' ? found : '';
}

function number(value: Record<string, unknown> | undefined, key: string): number {
  const found = value?.[key];
  return typeof found === 'number' ? found : 0;
}
