/**
 * Images of three sizes for the fetch benches, from the contents of Debian's packages, unpacked as they are:
 * one layer per line, gzip, kept in the tests' cache.
 */
import { createHash } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
} from 'node:fs';
import { join } from 'node:path';
import { CACHE, imageLayout } from '../images/images.ts';
import { tarFolder, writeImage, writeLayer } from '../images/oci-writer.ts';
import { must } from './peers.ts';

const MIDDLE = ['git vim-runtime perl-modules-5.36', 'llvm-14 gcc-12'];

/** 1.9 GB, 60,000 entries. */
const LARGE = [
  'golang-1.19-go',
  'llvm-14-dev',
  'openjdk-17-jre-headless openjdk-17-jdk-headless',
  'libboost1.74-dev golang-1.19-src',
  'libreoffice-core libreoffice-common',
  'chromium',
  'python3-scipy python3-numpy libpython3.11-stdlib gcc-12',
  'texlive-latex-extra texlive-pictures texlive-base texlive-fonts-recommended',
];

export type Size = 'small' | 'middle' | 'large';

/** The layout of an image; made when it is not in the cache yet. */
export async function benchImage(size: Size): Promise<string> {
  if (size === 'small') return imageLayout('busybox');
  const lines = size === 'middle' ? MIDDLE : LARGE;
  const key = createHash('sha256').update(lines.join('\n')).digest('hex').slice(0, 12);
  const layout = join(CACHE, `bench-${size}-${key}`);
  if (existsSync(layout)) return layout;
  mkdirSync(CACHE, { recursive: true });
  const work = mkdtempSync(join(CACHE, 'making-'));
  try {
    const making = join(work, 'layout');
    const layers = [];
    for (const [index, line] of lines.entries()) {
      const tar = unpacked(join(work, String(index)), line.split(' '));
      layers.push(await writeLayer(making, tar, 'gzip'));
      rmSync(tar);
    }
    writeImage(making, 'latest', layers, { Cmd: ['/bin/true'] });
    renameSync(making, layout);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  return layout;
}

/** @returns a tar of what the packages hold */
function unpacked(work: string, packages: readonly string[]): string {
  const debs = join(work, 'debs');
  const tree = join(work, 'tree');
  mkdirSync(debs, { recursive: true });
  mkdirSync(tree);
  chmodSync(tree, 0o755);
  must('sh', ['-ec', 'cd "$0"; apt-get download -q "$@"', debs, ...packages]);
  for (const deb of readdirSync(debs)) must('dpkg-deb', ['-x', join(debs, deb), tree]);
  tarFolder(tree, `${work}.tar`);
  rmSync(work, { recursive: true, force: true });
  return `${work}.tar`;
}
