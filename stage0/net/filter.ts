/**
 * The packet filter's rules of a pod, in one nftables table of its own (nft(8)): put there in one transaction, and gone
 * in one. Neither iptables nor anything of other tables is touched; a FORWARD chain of somebody else's that drops
 * everything goes on dropping.
 */
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { TspodError } from '../../src/errors.ts';
import { ANY, type PortMapping } from './ports.ts';

const PLACES = '/usr/sbin:/sbin:/usr/bin:/bin';

export interface FilterRules {
  readonly uuid: string;
  /** Addresses (CIDR) whose packets leave the host as its own. */
  readonly masquerade: readonly string[];
  readonly ports: readonly PortMapping[];
  /** The pod's addresses that ports lead to, at most one per family, without prefix. */
  readonly targets: readonly string[];
  /** Through which those are reached. */
  readonly hostInterfaces: readonly string[];
}

/** @throws TspodError 'not-found' without nft, 'network' with its words */
export function addRules(rules: FilterRules): void {
  if (rules.masquerade.length === 0 && rules.ports.length === 0) return;
  const ended = nft(ruleset(rules));
  if (ended.error !== undefined) {
    throw new TspodError('not-found', `can't run nft: ${ended.error.message}`, {
      hint: 'install it (Debian: nftables)',
    });
  }
  if (ended.status !== 0) {
    const [why = 'it failed'] = ended.stderr.trim().split('\n');
    throw new TspodError('network', `nft: ${why.slice(0, 300)}`);
  }
  if (rules.ports.length > 0) letLocalhostThrough(rules.hostInterfaces);
}

/** Idempotent. */
export function removeRules(uuid: string): void {
  // Making it first makes removing it right whether it was there or not.
  const table = tableOf(uuid);
  const ended = nft(`table inet ${table} {}\ndelete table inet ${table}\n`);
  // Without nft there were never any.
  if (ended.error !== undefined || ended.status === 0) return;
  const [why = 'it failed'] = ended.stderr.trim().split('\n');
  throw new TspodError('network', `nft: ${why.slice(0, 300)}`);
}

function nft(input: string) {
  const path = [process.env['PATH'], PLACES].filter(text => text !== undefined).join(':');
  return spawnSync('nft', ['-f', '-'], { input, encoding: 'utf8', env: { PATH: path } });
}

function tableOf(uuid: string): string {
  return `tspod_${uuid.replaceAll('-', '_')}`;
}

export function ruleset({ uuid, masquerade, ports, targets }: FilterRules): string {
  const forwards = ports.flatMap(port =>
    targets.flatMap(target => {
      const isIp6 = target.includes(':');
      if (port.hostIp !== ANY && port.hostIp.includes(':') !== isIp6) return [];
      const family = isIp6 ? 'ip6' : 'ip';
      const where = port.hostIp === ANY ? 'fib daddr type local' : `${family} daddr ${port.hostIp}`;
      const to = isIp6 ? `[${target}]:${port.podPort}` : `${target}:${port.podPort}`;
      const of = `meta nfproto ${isIp6 ? 'ipv6' : 'ipv4'}`;
      return [`${of} ${where} ${port.protocol} dport ${port.hostPort} dnat ${family} to ${to}`];
    }),
  );
  const back = ports.length === 0 ? [] : targets.flatMap(backRules);
  const out = masquerade.map(cidr => {
    const family = cidr.includes(':') ? 'ip6' : 'ip';
    const many = family === 'ip' ? '224.0.0.0/4' : 'ff00::/8';
    const [address = ''] = cidr.split('/');
    return `${family} saddr ${address} ${family} daddr != { ${cidr}, ${many} } masquerade`;
  });
  const table = tableOf(uuid);
  // What an earlier try has left is replaced.
  return [
    `table inet ${table} {}`,
    `delete table inet ${table}`,
    `table inet ${table} {`,
    chain('prerouting', 'prerouting', 'dstnat', forwards),
    chain('output', 'output', '-100', forwards),
    chain('postrouting', 'postrouting', 'srcnat', [...back, ...out]),
    '}',
    '',
  ].join('\n');
}

/** The answers have to come back: to the host's own localhost, and to the pod that asks itself. */
function backRules(target: string): readonly string[] {
  if (target.includes(':')) return [`ip6 saddr ${target} ip6 daddr ${target} masquerade`];
  return [
    `ip saddr 127.0.0.0/8 ip daddr ${target} masquerade`,
    `ip saddr ${target} ip daddr ${target} masquerade`,
  ];
}

function chain(name: string, hook: string, priority: string, rules: readonly string[]): string {
  return [
    `\tchain ${name} {`,
    `\t\ttype nat hook ${hook} priority ${priority};`,
    ...rules.map(rule => `\t\t${rule}`),
    '\t}',
  ].join('\n');
}

/** Else the kernel drops what has 127.0.0.1 and leaves by another interface (IPv6 has no such switch). */
function letLocalhostThrough(hostInterfaces: readonly string[]): void {
  for (const name of hostInterfaces) {
    if (!/^[A-Za-z0-9_.-]{1,15}$/.test(name) || name.startsWith('.')) continue;
    writeFileSync(`/proc/sys/net/ipv4/conf/${name}/route_localnet`, '1');
  }
}
