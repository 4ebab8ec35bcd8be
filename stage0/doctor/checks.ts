/**
 * What of tspod works on this machine, and why the rest does not. Each check looks at the thing itself where
 * that is possible (the EROFS one mounts a layer), and says what would make it better.
 */
import { existsSync, readFileSync, statfsSync } from 'node:fs';
import { release } from 'node:os';
import { errnoOf } from '../../src/errors.ts';
import { Layout } from '../../src/store/layout.ts';
import { sealingUnavailable } from '../../src/store/seal.ts';
import { existingPart } from '../../src/sys/existing.ts';
import { overlayUnavailable } from '../../src/sys/overlay.ts';
import { PLUGIN_FOLDERS as NET_PLACES } from '../net/cni.ts';
import { erofsSupport } from '../unpack/erofs/support.ts';

export interface Check {
  readonly name: string;
  /** `fail`: no pod can run; `warn`: something is slower or can't be had. */
  readonly state: 'ok' | 'warn' | 'fail';
  readonly detail: string;
  /** What to do about it. */
  readonly hint?: string;
}

/** The system calls that mounting by descriptor needs (mount_setattr). */
const OLDEST_KERNEL = [5, 12] as const;

/** @param dir the data folder */
export function examine(dir: string): readonly Check[] {
  return [
    root(),
    kernel(),
    dataFolder(dir),
    overlay(dir),
    layers(dir),
    verity(dir),
    cgroups(),
    seccomp(),
    networks(),
  ];
}

function root(): Check {
  const uid = process.geteuid?.() ?? -1;
  if (uid === 0) return { name: 'user', state: 'ok', detail: 'root' };
  return {
    name: 'user',
    state: 'fail',
    detail: `user ${uid}: pods and layers need root`,
    hint: 'run tspod as root, for instance with sudo',
  };
}

function kernel(): Check {
  const [major = 0, minor = 0] = release().split('.').map(Number);
  const old = major < OLDEST_KERNEL[0] || (major === OLDEST_KERNEL[0] && minor < OLDEST_KERNEL[1]);
  if (!old) return { name: 'kernel', state: 'ok', detail: release() };
  return {
    name: 'kernel',
    state: 'fail',
    detail: `${release()} is older than ${OLDEST_KERNEL.join('.')}`,
    hint: 'use a newer kernel',
  };
}

function dataFolder(dir: string): Check {
  try {
    const layout = new Layout(dir);
    layout.check();
    const there = existingPart(dir);
    const { bavail, bsize } = statfsSync(there);
    const free = `${Math.floor((bavail * bsize) / 1024 ** 3)} GiB free`;
    const detail = there === dir ? `${dir}, ${free}` : `${dir} (not made yet), ${free}`;
    return { name: 'data folder', state: 'ok', detail };
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    return { name: 'data folder', state: 'fail', detail: message };
  }
}

function overlay(dir: string): Check {
  const why = overlayUnavailable(dir);
  if (why === undefined) return { name: 'overlay', state: 'ok', detail: 'a pod shares its layers' };
  return {
    name: 'overlay',
    state: 'warn',
    detail: `${why}: each pod gets a copy of its image`,
    hint: 'put the data folder on ext4, xfs or btrfs',
  };
}

function layers(dir: string): Check {
  const name = 'layers';
  const { by, unavailable } = erofsSupport(dir);
  if (by === 'file') {
    return { name, state: 'ok', detail: 'erofs: mounted straight from files, never unpacked' };
  }
  if (by === 'loop') {
    return {
      name,
      state: 'ok',
      detail: 'erofs by loop devices, never unpacked (from Linux 6.12 on without loop devices)',
    };
  }
  return {
    name,
    state: 'warn',
    detail: `directory: layers are unpacked, because ${unavailable}`,
    hint: 'a kernel with EROFS (6.12 or newer) makes fetching several times faster',
  };
}

function verity(dir: string): Check {
  const name = 'fs-verity';
  const why = sealingUnavailable(new Layout(dir));
  if (why === undefined) {
    return {
      name,
      state: 'ok',
      detail: '"image gc" seals layers: the kernel checks them at every read',
    };
  }
  return {
    name,
    state: 'ok',
    detail: `not in use, because ${why}: "image verify" checks layers`,
  };
}

function cgroups(): Check {
  const name = 'cgroups';
  const controllers = read('/sys/fs/cgroup/cgroup.controllers')?.trim();
  if (controllers !== undefined && controllers !== '') {
    return { name, state: 'ok', detail: `version 2 with ${controllers.split(' ').join(', ')}` };
  }
  const first = read('/proc/self/cgroup')
    ?.split('\n')
    .flatMap(line => line.split(':')[1]?.split(',') ?? [])
    .filter(word => word !== '' && !word.includes('='));
  if (first !== undefined && first.length > 0) {
    return { name, state: 'ok', detail: `version 1 with ${first.sort().join(', ')}` };
  }
  return {
    name,
    state: 'warn',
    detail: 'none with a controller: --memory, --cpu and --cpu-shares are refused',
    hint: 'mount a cgroup hierarchy',
  };
}

function seccomp(): Check {
  const name = 'seccomp';
  const actions = read('/proc/sys/kernel/seccomp/actions_avail')?.trim();
  if (actions !== undefined) return { name, state: 'ok', detail: `filters with ${actions}` };
  return { name, state: 'warn', detail: 'the kernel has no filters: --seccomp is refused' };
}

/** Of flavor nspawn; fly has the host's. */
function networks(): Check {
  const name = 'networks';
  const hint = 'install them (Debian: containernetworking-plugins, nftables)';
  const plugin = BUILT_IN_PLUGINS.find(type => !NET_PLACES.some(at => existsSync(`${at}/${type}`)));
  if (plugin !== undefined) {
    return {
      name,
      state: 'warn',
      detail: `no plugin ${plugin}: pods need --net=none or host`,
      hint,
    };
  }
  if (!PROGRAMS.some(folder => existsSync(`${folder}/nft`))) {
    return { name, state: 'warn', detail: 'no nft: neither the default network nor ports', hint };
  }
  return { name, state: 'ok', detail: 'by CNI plugins and nftables' };
}

/** What `--net=default` consists of. */
const BUILT_IN_PLUGINS = ['ptp', 'host-local'];
const PROGRAMS = ['/usr/sbin', '/sbin', '/usr/bin', '/bin'];

function read(path: string): string | undefined {
  try {
    return existsSync(path) ? readFileSync(path, 'utf8') : undefined;
  } catch (error) {
    if (errnoOf(error) !== undefined) return undefined;
    throw error;
  }
}
