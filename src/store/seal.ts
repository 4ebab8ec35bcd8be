/**
 * fs-verity for layers: a sealed file can't be written any more, and the kernel checks each block that it reads
 * from the disk against a tree of hashes, so that damage is an error (EIO) to the app instead of wrong content.
 * (Linux, filesystems/fsverity.rst.)
 *
 * Sealing waits until the file is on the disk and reads it whole; a fetch would take that much longer. gc does it
 * when nobody waits. Blobs are not sealed: who reads one hashes it.
 */
import { rmSync, writeFileSync } from 'node:fs';
import { errnoOf, systemError } from '../errors.ts';
import { native } from '../sys/native.ts';
import { isTrusted, layerPlaces } from './layers.ts';
import type { Layout } from './layout.ts';
import type { LayerForm } from './types.ts';

/** Neither the kernel nor the file system has to have it; 4096-byte blocks are not for every kernel. */
const UNSUPPORTED: ReadonlySet<string> = new Set([
  'ENOTTY',
  'EOPNOTSUPP',
  'ENOTSUP',
  'ENOSYS',
  'EINVAL',
  'EROFS',
]);

/**
 * Seals all layers in the store that are not sealed yet.
 * @returns one sentence for each failure; that it can't be had here is none
 */
export function sealLayers(layout: Layout, forms: readonly LayerForm[]): string[] {
  const failures: string[] = [];
  for (const { form, path } of layerPlaces(layout)) {
    const files = forms.find(each => each.name === form)?.files ?? [];
    if (files.length === 0 || !isTrusted(path)) continue;
    for (const name of files) {
      const file = `${path}/tree/${name}`;
      try {
        if (!native().hasVerity(file)) native().enableVerity(file);
      } catch (error) {
        const errno = errnoOf(error) ?? '';
        if (UNSUPPORTED.has(errno)) return failures;
        // Sealed or removed by another gc; or a loop device has it open, and the next gc tries again.
        if (['EEXIST', 'ENOENT', 'ETXTBSY', 'EBUSY'].includes(errno)) continue;
        failures.push(systemError(`can't seal ${file}`, error).message);
        if (errno === 'ENOSPC') return failures;
      }
    }
  }
  return failures;
}

/** Why layers can't be sealed, one clause; undefined when they can. Finds out by sealing a file. */
export function sealingUnavailable(layout: Layout): string | undefined {
  const path = `${layout.tmp}/record.verity.${process.pid}`;
  try {
    layout.make();
    writeFileSync(path, 'sealed', { mode: 0o600 });
    native().enableVerity(path);
    return undefined;
  } catch (error) {
    if (UNSUPPORTED.has(errnoOf(error) ?? '')) {
      return 'the kernel or the file system of the data folder has no fs-verity';
    }
    return error instanceof Error ? error.message : String(error);
  } finally {
    rmSync(path, { force: true });
  }
}
