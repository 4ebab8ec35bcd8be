/** The command line of a stage1 image's `run`: just what the version of its interface knows, in rkt's order. */
import { isMutable } from '../../src/pod/mutable.ts';
import type { Pod } from '../../src/pod/pod.ts';
import { stage1Of } from './check.ts';

const DEFAULT_DNS_CONF = 'resolv=default,hosts=default';

export function runWords(pod: Pod): readonly string[] {
  const { options, uuid } = pod;
  const { interfaceVersion, localConfig } = stage1Of(pod);
  const { insecure } = options;
  const dnsConf = dnsConfMode(pod);
  const flag = (given: boolean, name: string) => (given ? [`--${name}`] : []);
  return [
    ...flag(options.debug, 'debug'),
    `--net=${options.net ?? 'default'}`,
    ...flag(options.interactive, 'interactive'),
    `--local-config=${localConfig}`,
    ...flag(options.hostname !== undefined, `hostname=${options.hostname}`),
    ...flag(interfaceVersion >= 4 && dnsConf !== DEFAULT_DNS_CONF, `dns-conf-mode=${dnsConf}`),
    ...flag(insecure.capabilities, 'disable-capabilities-restriction'),
    ...flag(insecure.paths, 'disable-paths'),
    ...flag(insecure.seccomp, 'disable-seccomp'),
    ...flag(isMutable(pod.manifest), 'mutable'),
    ...flag(options.ipc !== undefined && interfaceVersion >= 6, `ipc=${options.ipc}`),
    uuid,
  ];
}

function dnsConfMode({ options: { dns, hosts } }: Pod): string {
  const resolv = dns.mode === 'servers' ? 'stage0' : dns.mode;
  return `resolv=${resolv},hosts=${hosts.mode === 'entries' ? 'stage0' : hosts.mode}`;
}
