/** The launcher's steps for resolv.conf and hosts of an app in the host's network. */
import { existsSync } from 'node:fs';
import { hostsFile, resolvConf } from '../src/pod/dns.ts';
import type { Step } from '../src/pod/launch-plan.ts';
import type { Pod } from '../src/pod/pod.ts';

const FALLBACK_HOSTS = '127.0.0.1 localhost localhost.localdomain\n::1 localhost\n';

/**
 * resolv.conf: without `--dns` the host's, because the network is the host's; `none` leaves the image's
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
  const bindHostFile = (slot: string, path: string) => {
    hold.push(['hold', slot, path, 'single']);
    place.push(['attach', slot, root, path, 'ro', 'private']);
  };
  const { dns, hosts } = pod.options;
  if (dns.mode === 'servers')
    place.push(['file', root, '/etc/resolv.conf', '0644', resolvConf(dns), 'replace']);
  else if (dns.mode === 'host' || (dns.mode === 'default' && existsSync('/etc/resolv.conf'))) {
    bindHostFile(String(slot), '/etc/resolv.conf');
  }
  if (hosts.mode === 'host') bindHostFile(String(slot + 1), '/etc/hosts');
  else if (hosts.mode === 'entries')
    place.push(['file', root, '/etc/hosts', '0644', hostsFile(hosts.entries), 'replace']);
  else place.push(['file', root, '/etc/hosts', '0644', FALLBACK_HOSTS, 'if-missing']);
  return { hold, place };
}
