/** Unpacks bytes as the store does, and with GNU tar, into folders that are gone afterwards. */
import { execFileSync } from 'node:child_process';
import { createReadStream, mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import type { Compression, Packing } from '../../src/image/oci.ts';
import { removeTree } from '../../src/store/remove-tree.ts';
import type { LayerForm } from '../../src/store/types.ts';
import { directoryForm } from '../../stage0/unpack/directory.ts';

/** A folder of the test's own, removed when the test ends. */
export function testFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'tspod-unpack-'));
  onTestFinished(() => {
    removeTree(folder);
  });
  return folder;
}

export interface Result {
  readonly root: string;
  readonly diffId: string;
  readonly bytes: number;
  readonly entries: number;
}

/** The archive unpacked by the directory form into `<folder>/ours`. */
export async function unpack(
  archive: Buffer | string,
  options: { folder?: string; compression?: Compression; packing?: Packing; form?: LayerForm } = {},
): Promise<Result> {
  const root = join(options.folder ?? testFolder(), 'ours');
  mkdirSync(root);
  const sink = (options.form ?? directoryForm).begin(
    root,
    options.packing ?? options.compression ?? 'none',
    'sha256',
  );
  try {
    const source: AsyncIterable<Uint8Array> | Buffer[] =
      typeof archive === 'string'
        ? createReadStream(archive, { highWaterMark: 1 << 20 })
        : [archive];
    for await (const chunk of source) await sink.write(chunk);
    return { root, ...(await sink.finish()) };
  } catch (error) {
    await sink.abort();
    throw error;
  }
}

/** The archive unpacked by GNU tar into `<folder>/gnu`. */
export function gnuUnpack(archive: Buffer | string, folder: string, flags: string[] = []): string {
  const root = join(folder, 'gnu');
  mkdirSync(root);
  let file = archive;
  if (typeof file !== 'string') {
    file = join(folder, 'archive.tar');
    writeFileSync(file, archive);
  }
  const own = ['--xattrs', '--xattrs-include=*', '--numeric-owner', '--same-owner', '-xpf', file];
  execFileSync('tar', [...own, '-C', root, ...flags], { stdio: ['ignore', 'pipe', 'pipe'] });
  return root;
}
