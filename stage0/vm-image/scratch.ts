/** The disk on which a machine keeps what its apps write: a sparse file with an empty file system. */
import { spawnSync } from 'node:child_process';
import { closeSync, ftruncateSync, openSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import '../hot.ts';
import { reasonOf, systemError, TspodError } from '../../src/errors.ts';
import { SCRATCH } from '../../stage1-flavors/kvm/places.ts';

/**
 * Nothing is kept that a crash of the machine could spoil for anybody: no journal.
 * @param dir the pod's folder
 * @param size bytes
 * @throws TspodError
 */
export function makeScratch(dir: string, size: number): void {
  const path = join(dir, SCRATCH);
  try {
    rmSync(path, { force: true });
    const fd = openSync(path, 'wx', 0o600);
    try {
      ftruncateSync(fd, size);
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    throw systemError(`--disk-size: can't make ${path}`, error);
  }
  const options = [
    '-q',
    '-F',
    '-m',
    '0',
    '-O',
    '^has_journal',
    '-E',
    'lazy_itable_init=1,nodiscard',
  ];
  const { status, stderr, error } = spawnSync('mkfs.ext4', [...options, path], {
    encoding: 'utf8',
  });
  if (status === 0) return;
  const why = error === undefined ? stderr.trim().split('\n').at(-1) : reasonOf(error);
  throw new TspodError('unsupported', `--disk-size: can't make a file system: mkfs.ext4: ${why}`, {
    hint: 'install e2fsprogs, or leave --disk-size out',
  });
}
