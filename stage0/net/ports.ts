/**
 * Which ports of the host are which pod's: one empty file per port below /run/tspod/ports, `tcp-8080-ADDRESS-UUID`. A
 * claim counts as long as the pod's network namespace is kept. Two pods, or a pod and a program of the host, would
 * otherwise share a port without a word: the packet filter would just give everything to the first.
 */
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
} from 'node:fs';
import { join } from 'node:path';
import { errnoOf, systemError, TspodError } from '../../src/errors.ts';
import type { App, ExposedPort } from '../../src/image/appc.ts';
import { netnsPath } from '../../src/pod/net-request.ts';
import { native } from '../../src/sys/native.ts';

const FOLDER = '/run/tspod/ports';
const LOCK = '/run/tspod/ports.lock';
const CLAIM = /^(tcp|udp|sctp)-([0-9]{1,5})-([0-9a-f.:]+)-([0-9a-f-]{36})$/;
/** All addresses of the host. */
export const ANY = '*';
const ANY_IN_NAME = '0.0.0.0';

export interface PortMapping {
  /** For messages: the name of the port. */
  readonly name: string;
  readonly protocol: 'tcp' | 'udp' | 'sctp';
  readonly hostPort: number;
  /** `*` for all. */
  readonly hostIp: string;
  readonly podPort: number;
}

/** @throws TspodError 'pod' for a protocol that nobody can forward */
export function portMappings(
  exposed: readonly ExposedPort[],
  apps: readonly { readonly app: Pick<App, 'ports'> }[],
): readonly PortMapping[] {
  const ports = new Map(apps.flatMap(({ app }) => app.ports ?? []).map(one => [one.name, one]));
  const mappings = exposed.flatMap(
    ({ name, hostPort, hostIP, podPort }): readonly PortMapping[] => {
      const port = podPort ?? ports.get(name);
      if (port === undefined) throw new TspodError('pod', `--port=${name}: no app has such a port`);
      const { protocol } = port;
      if (protocol !== 'tcp' && protocol !== 'udp' && protocol !== 'sctp') {
        throw new TspodError('pod', `--port=${name}: ${protocol} can't be forwarded`, {
          hint: 'tcp, udp and sctp can',
        });
      }
      const isAny = hostIP === undefined || hostIP === '0.0.0.0' || hostIP === '::';
      return Array.from({ length: Math.max(1, port.count ?? 1) }, (_, index) => ({
        name,
        protocol,
        hostPort: hostPort + index,
        hostIp: isAny ? ANY : hostIP,
        podPort: port.port + index,
      }));
    },
  );
  for (const [index, one] of mappings.entries()) {
    const same = (other: PortMapping) =>
      other.protocol === one.protocol &&
      other.hostPort === one.hostPort &&
      (other.hostIp === one.hostIp || other.hostIp === ANY || one.hostIp === ANY);
    if (mappings.slice(0, index).some(same))
      throw new TspodError(
        'pod',
        `--port=${one.name}: port ${one.hostPort} of the host is given twice`,
      );
  }
  return mappings;
}

/** @throws TspodError 'busy' that says whose a port is */
export function claimPorts(uuid: string, mappings: readonly PortMapping[]): void {
  if (mappings.length === 0) return;
  try {
    mkdirSync(FOLDER, { recursive: true, mode: 0o755 });
    whileLocked(() => {
      const taken = claims();
      for (const mapping of mappings) {
        const { protocol, hostPort, hostIp, name } = mapping;
        const other = taken.find(
          one =>
            one.protocol === protocol &&
            one.port === hostPort &&
            one.uuid !== uuid &&
            (one.ip === hostIp || one.ip === ANY || hostIp === ANY),
        );
        const busy = (whose: string) =>
          new TspodError('busy', `--port=${name}: port ${hostPort} of the host is ${whose}`, {
            hint: 'give another one, or stop what has it',
          });
        if (other !== undefined) throw busy(`pod ${other.uuid}'s`);
        if (isListening(protocol, hostPort, hostIp)) throw busy("a program's on the host");
        closeSync(openSync(join(FOLDER, nameOf(mapping, uuid)), 'w', 0o644));
      }
    });
  } catch (error) {
    throw systemError(`can't claim ports in ${FOLDER}`, error);
  }
}

export function releasePorts(uuid: string): void {
  for (const name of namesIn()) {
    if (name.endsWith(`-${uuid}`)) rmSync(join(FOLDER, name), { force: true });
  }
}

function whileLocked(action: () => void): void {
  const fd = openSync(LOCK, 'a', 0o600);
  try {
    native().flock(fd, 'exclusive', true);
    action();
  } finally {
    closeSync(fd);
  }
}

function nameOf({ protocol, hostPort, hostIp }: PortMapping, uuid: string): string {
  return `${protocol}-${hostPort}-${hostIp === ANY ? ANY_IN_NAME : hostIp.toLowerCase()}-${uuid}`;
}

function claims(): readonly { protocol: string; port: number; ip: string; uuid: string }[] {
  return namesIn().flatMap(name => {
    const [, protocol, port, ip, uuid] = CLAIM.exec(name) ?? [];
    if (protocol === undefined || ip === undefined || uuid === undefined) return [];
    if (!existsSync(netnsPath(uuid))) return [];
    return [{ protocol, port: Number(port), ip: ip === ANY_IN_NAME ? ANY : ip, uuid }];
  });
}

function namesIn(): readonly string[] {
  try {
    return readdirSync(FOLDER);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw systemError(`can't read ${FOLDER}`, error);
  }
}

/** proc(5), /proc/net/tcp: local address and port in hexadecimal, state 0A listens; udp 07 is bound. */
function isListening(protocol: string, port: number, ip: string): boolean {
  const wanted = protocol === 'tcp' ? '0A' : '07';
  for (const family of ['', '6']) {
    let table: string;
    try {
      table = readFileSync(`/proc/net/${protocol}${family}`, 'latin1');
    } catch {
      continue; // no IPv6, or no table of that protocol
    }
    for (const line of table.split('\n').slice(1)) {
      const [, local = '', , state] = line.trim().split(/\s+/);
      const [address = '', hex = ''] = local.split(':');
      if (state !== wanted || Number.parseInt(hex, 16) !== port) continue;
      if (ip === ANY || /^0+$/.test(address) || address === hexOf(ip)) return true;
    }
  }
  return false;
}

/** As the kernel prints an IPv4 address there: in the byte order of this machine. */
function hexOf(ip: string): string {
  if (ip.includes(':')) return '';
  const bytes = ip.split('.').map(part => Number(part).toString(16).padStart(2, '0'));
  return bytes.reverse().join('').toUpperCase();
}
