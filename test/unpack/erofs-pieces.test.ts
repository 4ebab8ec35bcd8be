/** Where one piece of an image ends and the next begins must not show in the image. */
import { expect, test } from 'vitest';
import { ErofsIndexer } from '../../stage0/unpack/erofs/index-writer.ts';
import { TarReader } from '../../stage0/unpack/tar-reader.ts';
import { type TarEntry, tar } from '../store/tar.ts';

function image(archive: Buffer, pieceBytes?: number): Buffer {
  const indexer = new ErofsIndexer();
  const reader = new TarReader(indexer);
  reader.write(archive);
  reader.end();
  // Kept while it is written, as a caller may.
  return Buffer.concat([...indexer.finish(archive.length, pieceBytes)]);
}

/** Records of every kind on both sides of any boundary: inodes, inline tails, blocks, shared attributes. */
function entries(): TarEntry[] {
  const long = (seed: number, length: number) => String(seed).padEnd(length, 'x');
  return Array.from({ length: 3000 }, (_, n): TarEntry => {
    const name = `folder-${n % 7}/sub-${n % 61}/${long(n, 3 + (n % 200))}`;
    switch (n % 5) {
      case 0:
        return { name, content: 'content' };
      case 1:
        return { name, type: '2', link: long(n, 1 + (n % 1500)) };
      case 2:
        return { name, type: '5' };
      case 3:
        return { name, type: '3', device: [1, n % 200] };
      default:
        return {
          name,
          content: '',
          pax: { [`SCHILY.xattr.user.${n % 40}`]: long(n % 9, 1 + ((n * 37) % 400)) },
        };
    }
  });
}

test.each([8192, 16_384, 40_000, 65_536])('pieces of %i bytes make the same image', piece => {
  const archive = tar(entries());
  expect(image(archive, piece).equals(image(archive, 64 * 1024 * 1024))).toBe(true);
});
