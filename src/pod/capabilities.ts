/** Linux capabilities by name (capabilities(7)): what retain and remove sets come to as a bit mask. */
import { TspodError } from '../errors.ts';

/** In the order of their numbers, linux/capability.h. */
const NAMES = `
  CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
  NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT
  SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE
  AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ
  PERFMON BPF CHECKPOINT_RESTORE`
  .trim()
  .split(/\s+/);

export const CAPABILITY_NAMES: readonly string[] = NAMES.map(name => `CAP_${name}`);

const ALL = (1n << BigInt(NAMES.length)) - 1n;

/**
 * Names as typed, with or without `CAP_`, in any case, to their standard form.
 * @throws TspodError 'pod' that names the unknown one
 */
export function capabilityNames(names: readonly string[], what: string): readonly string[] {
  if (names.length === 0) throw new TspodError('pod', `${what}: no capability is named`);
  const standard = names.map(name => {
    const bare = name.toUpperCase().replace(/^CAP_/, '');
    if (!NAMES.includes(bare)) {
      throw new TspodError('pod', `${what}: "${name.slice(0, 60)}" is not a capability`);
    }
    return `CAP_${bare}`;
  });
  return [...new Set(standard)];
}

/** The bounding set that a retain or a remove set asks for. */
export function boundingSet(mode: 'retain' | 'remove', names: readonly string[]): bigint {
  // None is a set, too: what is left of the default one when all of it is removed.
  const standard = names.length === 0 ? [] : capabilityNames(names, 'capabilities');
  const mask = standard.reduce(
    (sum, name) => sum | (1n << BigInt(NAMES.indexOf(name.slice('CAP_'.length)))),
    0n,
  );
  return mode === 'retain' ? mask : ALL & ~mask;
}
