/**
 * erofs-utils of Debian trixie, for oracles: bookworm's don't know tar indexes. Kept below the cache folder
 * with their libraries, and run by their own loader.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, renameSync } from 'node:fs';
import { join } from 'node:path';

const CACHE = join(process.env['TSPOD_TEST_CACHE'] ?? '/tmp/tspod-test-cache', 'unpack');
const ROOT = join(CACHE, 'erofs-utils-trixie');

function made(): string {
  if (existsSync(ROOT)) return ROOT;
  mkdirSync(CACHE, { recursive: true });
  const making = join(CACHE, `making-erofs-utils-${process.pid}`);
  const options = ['--variant=extract', '--mode=root', '--include=erofs-utils', 'trixie', making];
  const make = ['unshare', '-m', '--propagation', 'private', 'mmdebstrap', ...options];
  execFileSync('flock', [join(CACHE, 'lock'), ...make], { stdio: ['ignore', 'pipe', 'pipe'] });
  if (existsSync(ROOT)) execFileSync('rm', ['-rf', making]);
  else renameSync(making, ROOT);
  return ROOT;
}

export interface Said {
  readonly status: number | null;
  readonly text: string;
}

export function erofsUtil(
  name: 'fsck.erofs' | 'dump.erofs' | 'mkfs.erofs',
  ...args: readonly string[]
): Said {
  const root = made();
  const libraries = join(root, 'usr/lib', process.arch === 'arm64' ? ARM : INTEL);
  const loader = join(
    libraries,
    process.arch === 'arm64' ? 'ld-linux-aarch64.so.1' : 'ld-linux-x86-64.so.2',
  );
  const program = join(root, 'usr/bin', name);
  const { status, stdout, stderr } = spawnSync(
    loader,
    ['--library-path', libraries, program, ...args],
    { encoding: 'utf8', maxBuffer: 1 << 28 },
  );
  return { status, text: stdout + stderr };
}

const INTEL = 'x86_64-linux-gnu';
const ARM = 'aarch64-linux-gnu';
