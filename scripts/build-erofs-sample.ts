/** The layer that tspod mounts to find out whether this machine can mount EROFS (stage0/unpack/erofs/support.ts). */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ErofsIndexer } from '../stage0/unpack/erofs/index-writer.ts';
import { TarReader } from '../stage0/unpack/tar-reader.ts';

export function buildErofsSample(root: string): void {
  const tar = sampleTar();
  const indexer = new ErofsIndexer();
  const reader = new TarReader(indexer);
  reader.write(tar);
  reader.end();
  writeFileSync(join(root, 'dist/erofs-sample.tar'), tar);
  writeFileSync(
    join(root, 'dist/erofs-sample.meta'),
    Buffer.concat([...indexer.finish(tar.length)]),
  );
}

/** One file of one block (POSIX.1-2017, pax, "ustar Interchange Format"). */
function sampleTar(): Buffer {
  const tar = Buffer.alloc(2048);
  tar.write('sample');
  tar.write('0000644\0', 100);
  tar.write('0000000\0', 108);
  tar.write('0000000\0', 116);
  tar.write('00000000007\0', 124);
  tar.write('00000000000\0', 136);
  tar.write('        0', 148);
  tar.write('ustar\x0000', 257);
  const sum = tar.subarray(0, 512).reduce((total, byte) => total + byte, 0);
  tar.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  tar.write('sample\n', 512);
  return tar;
}
