/**
 * What an app under nspawn has when nobody says otherwise: rkt's 14 capabilities and its default set of
 * system calls (rkt-1.30, Documentation/capabilities-guide.md, seccomp-guide.md).
 */
import type { Isolation } from '../../src/pod/isolators.ts';
import type { Pod, PodApp } from '../../src/pod/pod.ts';
import { isolationOf } from '../isolation.ts';

export const DEFAULT_CAPABILITIES = [
  'CAP_AUDIT_WRITE',
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_FSETID',
  'CAP_FOWNER',
  'CAP_KILL',
  'CAP_MKNOD',
  'CAP_NET_RAW',
  'CAP_NET_BIND_SERVICE',
  'CAP_SETUID',
  'CAP_SETGID',
  'CAP_SETPCAP',
  'CAP_SETFCAP',
  'CAP_SYS_CHROOT',
];

/** rkt: what is removed is removed from the default set. */
function capabilities(
  { capabilities: asked }: Isolation,
  off: boolean,
): Pick<Isolation, 'capabilities'> {
  if (off || asked?.mode === 'retain') return {};
  const removed = new Set(asked?.names);
  const names = DEFAULT_CAPABILITIES.filter(name => !removed.has(name));
  return { capabilities: { mode: 'retain', names } };
}

export function confinedIsolation(pod: Pod, app: PodApp): Isolation {
  const isolation = isolationOf(pod, app);
  const { insecure } = pod.options;
  return {
    ...isolation,
    ...capabilities(isolation, insecure.capabilities),
    ...(isolation.seccomp === undefined && !insecure.seccomp
      ? { seccomp: { mode: 'retain', set: ['@rkt/default-whitelist'] } }
      : {}),
  };
}
