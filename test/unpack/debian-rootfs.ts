/**
 * A real Debian root filesystem as a tar, made once from the machine's own apt mirror and kept with its
 * packages below the cache folder.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, renameSync } from 'node:fs';
import { join } from 'node:path';

/** A folder of its own in the cache, because every maker writes to its packages' folder. */
const CACHE = join(process.env['TSPOD_TEST_CACHE'] ?? '/tmp/tspod-test-cache', 'unpack');

/** Path of an uncompressed tar of a minbase Debian with `packages` added. */
export function debianRootfs(packages: readonly string[] = []): string {
  const name = ['debian-minbase', ...packages].join('+');
  const file = join(CACHE, `${name}.tar`);
  if (existsSync(file)) return file;
  const debs = join(CACHE, 'debs');
  mkdirSync(debs, { recursive: true });
  const making = join(CACHE, `making-${process.pid}-${name}.tar`);
  const hooks = [
    `--setup-hook=mkdir -p "$1"/var/cache/apt/archives`,
    `--setup-hook=sync-in ${debs} /var/cache/apt/archives`,
    `--customize-hook=sync-out /var/cache/apt/archives ${debs}`,
  ];
  const options = ['--variant=minbase', '--mode=root', '--skip=essential/unlink', ...hooks];
  if (packages.length > 0) options.push(`--include=${packages.join(',')}`);
  // mmdebstrap mounts /proc and /sys in the tree: in a mount namespace of its own
  const unshare = ['unshare', '-m', '--propagation', 'private'];
  const make = [...unshare, 'mmdebstrap', ...options, 'bookworm', making];
  // one maker at a time: test runs that overlap share the packages
  execFileSync('flock', [join(CACHE, 'lock'), ...make], { stdio: ['ignore', 'pipe', 'pipe'] });
  renameSync(making, file);
  return file;
}
