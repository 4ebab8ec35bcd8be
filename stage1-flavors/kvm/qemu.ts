/** QEMU's command line (qemu(1)). */
import { existsSync } from 'node:fs';
import { unsupported } from '../isolation.ts';

const QEMU = ['/usr/bin/qemu-system-x86_64', '/usr/local/bin/qemu-system-x86_64'];
/** The one of QEMU itself until 7.2, and the one that took its place. */
const FILE_SERVERS = ['/usr/libexec/virtiofsd', '/usr/lib/qemu/virtiofsd', '/usr/bin/virtiofsd'];

/** @throws TspodError 'unsupported' where it is not installed */
export function findQemu(): string {
  if (process.arch !== 'x64')
    throw unsupported(`flavor kvm: machines of ${process.arch} are not in this version`);
  const found = QEMU.find(path => existsSync(path));
  if (found !== undefined) return found;
  throw unsupported(
    'flavor kvm: there is no qemu-system-x86_64',
    'install it (Debian: qemu-system-x86), or use another flavor: --stage1-name=nspawn',
  );
}

/** @throws TspodError 'unsupported' where it is not installed */
export function findFileServer(): string {
  const found = FILE_SERVERS.find(path => existsSync(path));
  if (found !== undefined) return found;
  throw unsupported(
    'flavor kvm: there is no virtiofsd, which serves volumes to the machine',
    'install it (Debian: virtiofsd, or qemu-system-common until 12)',
  );
}

/** @param shared the folder to serve, relative to the pod's; its last word is added by who starts it */
export function fileServerWords(program: string, shared: string): readonly string[] {
  // It wants an absolute path; where the pod's folder is, is known when it starts.
  const folder = `@folder@/${shared}`;
  return program.endsWith('qemu/virtiofsd')
    ? [program, '-o', `source=${folder},cache=auto,sandbox=namespace,xattr,posix_acl`]
    : [
        program,
        '--shared-dir',
        folder,
        '--cache=auto',
        '--sandbox=namespace',
        '--xattr',
        '--posix-acl',
        '--announce-submounts',
        '--log-level=error',
      ];
}

export interface Boot {
  readonly accel: 'kvm' | 'tcg';
  readonly cpus: number;
  /** bytes */
  readonly memory: number;
  /** Shared with a file server. */
  readonly sharedMemory?: boolean;
}

/**
 * A machine with nothing but what is said: no firmware beyond what loads a kernel, no PCI, no display. Its clock is
 * there because a kernel under emulation takes its time from it.
 */
export function bootWords({ accel, cpus, memory, sharedMemory }: Boot): readonly string[] {
  const machine = `microvm,rtc=on,accel=${accel}${sharedMemory ? ',memory-backend=memory' : ''}`;
  const size = `${Math.ceil(memory / (1024 * 1024))}M`;
  return [
    '-nodefaults',
    '-no-user-config',
    '-display',
    'none',
    '-no-reboot',
    '-machine',
    machine,
    '-cpu',
    accel === 'kvm' ? 'host' : 'max',
    // File servers want devices as virtio 1.0 has them.
    '-global',
    'virtio-mmio.force-legacy=false',
    '-smp',
    String(cpus),
    '-m',
    size,
    ...(sharedMemory ? ['-object', `memory-backend-memfd,id=memory,size=${size},share=on`] : []),
    '-append',
    kernelWords(accel),
  ];
}

/**
 * A machine whose kernel has panicked ends. An emulated processor has no holes to close, and its clock is exactly
 * 1 GHz: a kernel that measures it on a busy host now and then finds none, and waits for ever.
 */
function kernelWords(accel: Boot['accel']): string {
  const always = 'console=ttyS0 quiet panic=-1 reboot=t no_timer_check random.trust_cpu=on';
  return accel === 'tcg' ? `${always} mitigations=off tsc_early_khz=1000000 lpj=4000000` : always;
}

/** What a QEMU that was taken over could do: nothing but what it needs. */
export const SANDBOX = [
  '-sandbox',
  'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny',
] as const;
