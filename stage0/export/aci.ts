/**
 * An image as an ACI (appc 0.8.11, "Image Archives"): of what came as one, the tar as it came, uncompressed, as
 * rkt exports it; of anything else its manifest in appc's words and one root file system, packed by GNU tar in
 * the order of names, so that the same image gives the same bytes.
 */
import { spawn } from 'node:child_process';
import { createReadStream, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Context } from '../../src/context.ts';
import { TspodError } from '../../src/errors.ts';
import { compressionOf } from '../../src/image/oci.ts';
import { packingOfBlob } from '../../src/store/ensure-layers.ts';
import { removeTree } from '../../src/store/remove-tree.ts';
import type { ImageRecord, Store } from '../../src/store/types.ts';
import { DEFAULT_BOUNDS } from '../unpack/bounds.ts';
import { decompress } from '../unpack/decompress.ts';
import { renderImage } from './render.ts';
import { writeAll } from './write-all.ts';

const CHUNK = 1024 * 1024;
const SAID_CAP = 4096;

export async function writeAci(
  context: Context,
  store: Store,
  image: ImageRecord,
  fd: number,
): Promise<void> {
  if (image.appc !== undefined) return writeOwn(store, image, fd);
  const work = mkdtempSync(join(tmpdir(), 'tspod-export-'));
  try {
    await renderImage(context, image, 'all', work);
    await pack(work, fd);
  } finally {
    removeTree(work);
  }
}

async function writeOwn(store: Store, image: ImageRecord, fd: number): Promise<void> {
  const layer = image.layers.at(-1);
  const described = store.manifest(image).value.layers.at(-1);
  if (layer === undefined) throw new Error('an ACI is a layer');
  const path = store.blobs.path(layer.blob.digest);
  const compression = compressionOf(await packingOfBlob(path, described ?? layer.blob));
  const input = createReadStream(path, { highWaterMark: CHUNK });
  for await (const chunk of decompress(input, compression, DEFAULT_BOUNDS)) {
    await writeAll(fd, chunk);
  }
}

/** Nothing of the caller's environment changes what GNU tar does. */
async function pack(folder: string, fd: number): Promise<void> {
  const words = [
    '--create',
    '--format=posix',
    '--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime',
    '--numeric-owner',
    '--sort=name',
    '--xattrs',
    '--xattrs-include=*',
    '--xattrs-exclude=trusted.overlay.*',
    `--directory=${folder}`,
    'manifest',
    'rootfs',
  ];
  const child = spawn('tar', words, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' },
  });
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => {
    if (said.length < SAID_CAP) said += chunk.toString();
  });
  const ended = new Promise<void>((resolve, reject) => {
    child.once('error', error => {
      reject(new TspodError('system', `can't run tar: ${error.message}`, { hint: 'install tar' }));
    });
    child.once('close', status => {
      if (status === 0) resolve();
      else reject(new TspodError('system', `tar ended with ${status}: ${said.split('\n')[0]}`));
    });
  });
  // Whoever waits for it hears of it.
  ended.catch(() => {});
  try {
    for await (const chunk of child.stdout) await writeAll(fd, chunk);
  } catch (error) {
    child.kill('SIGKILL');
    throw error;
  }
  await ended;
}
