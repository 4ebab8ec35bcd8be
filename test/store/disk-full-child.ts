/**
 * Run by disk-full.test.ts on a tmpfs of its own: fills it up to a few bytes, tries to fetch, frees a
 * little more each time until the fetch goes through.
 */
import { readdirSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { TspodError } from '../../src/errors.ts';
import { imageNumber } from './images.ts';
import { addTestImage, assertWhole, openTestStore } from './support.ts';

const [dir = ''] = process.argv.slice(2);
const ballast = join(dir, 'ballast');
const PAGE = 4096;

let full = 0;
for (let pages = 0; ; pages++) {
  rmSync(ballast, { force: true });
  const { bavail, bsize } = statfsSync(dir);
  writeFileSync(ballast, Buffer.alloc(Math.max(0, bavail * bsize - pages * PAGE)));
  const store = openTestStore(dir);
  try {
    await addTestImage(store, imageNumber(0), 'name');
    assertWhole(store);
    if (store.byName('name') === undefined) throw new Error('the image is not there');
    break;
  } catch (error) {
    if (!(error instanceof TspodError) || error.code !== 'disk-full') throw error;
    full++;
    assertWhole(store);
    const left = safeList(join(dir, 'cas/v1/tmp'));
    if (left.length > 0) throw new Error(`left in tmp after "${error.line}": ${left.join(' ')}`);
  } finally {
    store.close();
  }
}
// On a disk without a free byte, gc must be able to make room.
rmSync(ballast, { force: true });
const crowded = openTestStore(dir);
await addTestImage(crowded, imageNumber(5), 'other');
const { bavail, bsize } = statfsSync(dir);
writeFileSync(ballast, Buffer.alloc(bavail * bsize));
if (statfsSync(dir).bavail !== 0) throw new Error('the disk is not full');
const { images, failures } = crowded.gc({ graceMs: -1, inUse: () => [] });
if (images.length !== 2 || failures.length > 0) throw new Error('gc did not make room');
crowded.close();

process.stdout.write(`ok after ${full} full disks\n`);

function safeList(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
