/**
 * The guests of the rig: a Debian with systemd as PID 1 and cgroup v2 alone, made by mmdebstrap from the machine's
 * apt sources and kept in the cache as a kernel, an initramfs and an ext4 image, keyed by this recipe. Nothing is
 * mounted on this machine: mke2fs fills the image from a folder.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CACHE } from '../images/images.ts';

/** trixie: systemd 257, Linux 6.12, EROFS straight from files. bookworm: systemd 252, Linux 6.1, loop devices. */
export type Suite = 'trixie' | 'bookworm';

export interface Guest {
  readonly kernel: string;
  readonly initramfs: string;
  /** ext4; is to be used with a snapshot on top. */
  readonly root: string;
}

const PACKAGES = [
  'systemd-sysv',
  'systemd-container',
  'dbus',
  'udev',
  'kmod',
  'procps',
  'python3-minimal',
  'libpython3-stdlib',
  'iproute2',
  'nftables',
  'iptables',
  'containernetworking-plugins',
  'busybox-static',
  'libatomic1',
  'linux-image-cloud-amd64',
];

/** Under this name the agent is neither a service's nor a user's child: as a shell over ssh would be. */
const AGENT_UNIT = `[Unit]
Description=Agent of the test rig
After=dbus.service basic.target
Requires=dbus.service

[Service]
ExecStart=/usr/bin/systemd-run --quiet --scope --unit=session-rig --slice=user.slice /usr/bin/python3 -u /opt/agent.py
Environment=HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin:/opt/tspod/bin

[Install]
WantedBy=multi-user.target
`;

/** What only costs time in a guest that lives for a minute. */
const MASKED = [
  'apt-daily.timer',
  'apt-daily-upgrade.timer',
  'dpkg-db-backup.timer',
  'e2scrub_all.timer',
  'e2scrub_reap.service',
  'fstrim.timer',
  'getty@tty1.service',
  'getty.target',
  'serial-getty@ttyS0.service',
  'systemd-networkd.service',
  'systemd-pcrphase.service',
  'systemd-random-seed.service',
  'systemd-update-utmp.service',
  'kmod-static-nodes.service',
  'nftables.service',
  'remote-fs.target',
  'cron.service',
  'dev-hugepages.mount',
  'dev-mqueue.mount',
  'sys-kernel-debug.mount',
  'sys-kernel-tracing.mount',
  'modprobe@efi_pstore.service',
  'modprobe@drm.service',
  'systemd-pstore.service',
];

const INIT = `#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for module in $(/bin/busybox cat /order); do /bin/busybox insmod "/modules/$module"; done
while [ ! -b /dev/vda ]; do /bin/busybox usleep 10000; done
/bin/busybox mount -t ext4 -o noatime /dev/vda /root
/bin/busybox mount -t ext4 -o ro /dev/vdb /root/opt/tspod
/bin/busybox mount -t ext4 -o ro /dev/vdc /root/srv/layouts
/bin/busybox mount --move /dev /root/dev
exec /bin/busybox switch_root /root /lib/systemd/systemd
`;

const here = dirname(fileURLToPath(import.meta.url));

/** Makes the guest unless it is there. */
export function guest(suite: Suite): Guest {
  const key = createHash('sha256');
  for (const file of ['guest.ts', 'agent.py']) key.update(readFileSync(join(here, file)));
  const folder = join(CACHE, `vm-${suite}-${key.digest('hex').slice(0, 12)}`);
  if (!existsSync(folder)) make(suite, folder);
  return {
    kernel: join(folder, 'vmlinuz'),
    initramfs: join(folder, 'initramfs'),
    root: join(folder, 'root.ext4'),
  };
}

function make(suite: Suite, folder: string): void {
  mkdirSync(CACHE, { recursive: true });
  const making = mkdtempSync(`${folder}.making-`);
  try {
    const tree = join(making, 'tree');
    debootstrap(suite, tree);
    configure(tree);
    copyFileSync(only(join(tree, 'boot'), /^vmlinuz-/), join(making, 'vmlinuz'));
    initramfs(tree, making);
    rmSync(join(tree, 'boot'), { recursive: true });
    diskOf(tree, join(making, 'root.ext4'), 3 * 1024);
    rmSync(tree, { recursive: true });
    rename(making, folder);
  } finally {
    rmSync(making, { recursive: true, force: true });
  }
}

function debootstrap(suite: Suite, tree: string): void {
  const options = ['--quiet', '--variant=minbase', '--mode=root', '--format=directory'];
  const more = [
    `--include=${PACKAGES.join(',')}`,
    '--dpkgopt=path-exclude=/usr/share/{doc,man,locale}/*',
  ];
  // mmdebstrap mounts /proc and /sys in the tree: in a mount namespace of its own
  const args = ['-m', '--propagation', 'private', 'mmdebstrap', ...options, ...more, suite, tree];
  execFileSync('unshare', args, { stdio: ['ignore', 'pipe', 'pipe'], timeout: 900_000 });
}

function configure(tree: string): void {
  const put = (path: string, text: string) => {
    mkdirSync(dirname(join(tree, path)), { recursive: true });
    writeFileSync(join(tree, path), text);
  };
  put('etc/fstab', '');
  put('etc/hostname', 'guest\n');
  put('etc/machine-id', '0123456789abcdef0123456789abcdef\n');
  put('etc/systemd/journald.conf.d/rig.conf', '[Journal]\nStorage=persistent\nRateLimitBurst=0\n');
  put('etc/systemd/system.conf.d/rig.conf', '[Manager]\nDefaultTimeoutStopSec=20s\n');
  put('etc/systemd/system/agent.service', AGENT_UNIT);
  copyFileSync(join(here, 'agent.py'), join(tree, 'opt/agent.py'));
  for (const name of ['opt/tspod', 'srv/layouts']) mkdirSync(join(tree, name), { recursive: true });
  const systemctl = (...args: readonly string[]) =>
    execFileSync('systemctl', [`--root=${tree}`, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  systemctl('enable', 'agent.service');
  systemctl('mask', ...MASKED);
}

/** Modules that the root disk needs, with what they need, uncompressed and in order, and busybox to insert them. */
function initramfs(tree: string, making: string): void {
  const files = join(making, 'initramfs.d');
  for (const name of ['bin', 'dev', 'modules', 'root'])
    mkdirSync(join(files, name), { recursive: true });
  copyFileSync(join(tree, 'usr/bin/busybox'), join(files, 'bin/busybox'));
  const modules = only(join(tree, 'usr/lib/modules'), /./);
  const needs = new Map<string, string[]>();
  for (const line of readFileSync(join(modules, 'modules.dep'), 'utf8').split('\n')) {
    const [path = '', rest = ''] = line.split(':');
    needs.set(
      path,
      rest.split(' ').filter(word => word !== ''),
    );
  }
  const order: string[] = [];
  const add = (path: string) => {
    for (const other of [...(needs.get(path) ?? [])].reverse()) add(other);
    if (!order.includes(path)) order.push(path);
  };
  for (const name of ['virtio_pci', 'virtio_blk', 'crc32c_generic', 'ext4']) {
    const path = [...needs.keys()].find(key => key.includes(`/${name}.ko`));
    if (path !== undefined) add(path); // else it is built in
  }
  const names = order.map(path => {
    const name = (path.split('/').at(-1) ?? '').replace(/\.xz$/, '');
    const bytes = path.endsWith('.xz')
      ? execFileSync('xz', ['-dc', join(modules, path)], { maxBuffer: 1 << 26 })
      : readFileSync(join(modules, path));
    writeFileSync(join(files, 'modules', name), bytes);
    return name;
  });
  writeFileSync(join(files, 'order'), `${names.join('\n')}\n`);
  writeFileSync(join(files, 'init'), INIT, { mode: 0o755 });
  execFileSync(
    'sh',
    ['-c', 'cd "$0" && find . | busybox cpio -o -H newc >"$1"', files, join(making, 'initramfs')],
    {
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  );
  rmSync(files, { recursive: true });
}

/** An ext4 image with what is in a folder, sparse. */
export function diskOf(folder: string, image: string, mebibytes: number): void {
  writeFileSync(image, '');
  truncateSync(image, mebibytes * 1024 * 1024);
  const options = ['-q', '-F', '-t', 'ext4', '-m', '0', '-E', 'lazy_itable_init=1,nodiscard'];
  execFileSync('mke2fs', [...options, '-d', folder, image], {
    env: { ...process.env, PATH: `${process.env['PATH']}:/usr/sbin:/sbin` },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

/** Another run may have been first. */
export function rename(making: string, target: string): void {
  try {
    renameSync(making, target);
  } catch (error) {
    if (!existsSync(target)) throw error;
  }
}

function only(folder: string, pattern: RegExp): string {
  const [name, ...others] = readdirSync(folder).filter(entry => pattern.test(entry));
  if (name === undefined || others.length > 0) throw new Error(`${folder}: not one ${pattern}`);
  return join(folder, name);
}
