/** The first read of every file of an image: through EROFS and an overlay, beside a plain folder. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { imageLayout } from '../images/images.ts';
import { aim, type Contestant, compare, table } from './compare.ts';
import { must } from './peers.ts';

const AIM = 1.2;

export async function reading(work: string, tspod: string, rounds: number): Promise<void> {
  const layout = await imageLayout('large');
  const words = [tspod, `--dir=${work}/reading`, '--insecure-options=image'];
  const id = must(tspod, [...words.slice(1), 'fetch', '--full', `oci:${layout}:latest`]).trim();
  const plain = join(work, 'plain');
  must(tspod, [...words.slice(1), 'image', 'render', '--rootfs-only', id, plain]);
  const script = 'find /usr -xdev -type f -exec cat {} + >/dev/null';
  const forget = () => {
    must('sync', []);
    writeFileSync('/proc/sys/vm/drop_caches', '3');
    // The program itself is not what is measured.
    must(tspod, [...words.slice(1), 'version']);
    return [];
  };
  const contestants: readonly Contestant[] = [
    {
      name: 'erofs+overlay',
      argv: [...words, 'run', id, '--exec=/bin/sh', '--', '-c', script],
      before: forget,
    },
    { name: 'plain folder', argv: ['chroot', plain, '/bin/sh', '-c', script], before: forget },
  ];
  const figures = await compare(contestants, rounds);
  table(`first read of the files of a 535 MB image (${rounds} rounds)`, figures, 'plain folder');
  aim('erofs+overlay', 'plain folder', AIM, figures);
}
