/** A disk that fills up at every place in turn: one clear error, nothing half done, and it works after. */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { temporaryFolder } from './support.ts';

const CHILD = fileURLToPath(new URL('disk-full-child.ts', import.meta.url));

test('a full disk is one clear error, and leaves nothing behind', () => {
  using folder = temporaryFolder();
  // The mount exists only in the namespace of this child, and goes with it.
  const result = spawnSync(
    'unshare',
    [
      '-m',
      '--propagation',
      'private',
      'sh',
      '-c',
      'mount -t tmpfs -o size=2m,mode=0700 tmpfs "$1" && exec "$2" "$3" "$1"',
      'sh',
      folder.path,
      process.execPath,
      CHILD,
    ],
    { encoding: 'utf8' },
  );
  expect(result.stderr).toBe('');
  expect(result.stdout).toMatch(/^ok after \d+ full disks\n$/);
});
