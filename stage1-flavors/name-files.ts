/** The launcher's steps for resolv.conf and hosts of an app. */
import { existsSync, readFileSync } from 'node:fs';
import { hostsFile, resolvConf } from '../src/pod/dns.ts';
import type { Step } from '../src/pod/launch-plan.ts';
import type { Pod } from '../src/pod/pod.ts';

const FALLBACK_HOSTS = '127.0.0.1 localhost localhost.localdomain\n::1 localhost\n';

const RESOLV_CONF = '/etc/resolv.conf';
/** systemd-resolved(8): the name servers themselves, where /etc/resolv.conf names its stub on the loopback. */
const RESOLVED_CONF = '/run/systemd/resolve/resolv.conf';

/** What helps in a network namespace of the pod's own, where the host's loopback can't be reached. */
export function reachableResolvConf(): string {
  const servers = [...readFileSync(RESOLV_CONF, 'latin1').matchAll(/^\s*nameserver\s+(\S+)/gm)];
  const isLocal = ([, server = '']: readonly string[]) => /^127\.|^::1$/.test(server);
  return servers.every(isLocal) && existsSync(RESOLVED_CONF) ? RESOLVED_CONF : RESOLV_CONF;
}

/**
 * resolv.conf: without `--dns` the host's, because its network is the host's, or leads there; `none` leaves the image's
 * file. hosts: a fallback where the image has none, as rkt.
 * @param slot the first of two slots of the launcher
 */
export function nameFiles(
  pod: Pod,
  root: string,
  slot: number,
): { readonly hold: readonly Step[]; readonly place: readonly Step[] } {
  const hold: Step[] = [];
  const place: Step[] = [];
  const bindHostFile = (slot: string, path: string, source = path) => {
    hold.push(['hold', slot, source, 'single']);
    place.push(['attach', slot, root, path, 'ro', 'private']);
  };
  const { dns, hosts } = pod.options;
  if (dns.mode === 'servers')
    place.push(['file', root, '/etc/resolv.conf', '0644', resolvConf(dns), 'replace']);
  else if (dns.mode === 'host' || (dns.mode === 'default' && existsSync('/etc/resolv.conf'))) {
    const hostNetwork = pod.options.net === undefined || pod.options.net === 'host';
    bindHostFile(String(slot), RESOLV_CONF, hostNetwork ? RESOLV_CONF : reachableResolvConf());
  }
  if (hosts.mode === 'host') bindHostFile(String(slot + 1), '/etc/hosts');
  else if (hosts.mode === 'entries')
    place.push(['file', root, '/etc/hosts', '0644', hostsFile(hosts.entries), 'replace']);
  else place.push(['file', root, '/etc/hosts', '0644', FALLBACK_HOSTS, 'if-missing']);
  return { hold, place };
}
