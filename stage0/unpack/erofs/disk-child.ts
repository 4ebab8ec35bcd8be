/**
 * The process that makes a layer's disk for machines whose kernel mounts no blocks of 512 bytes (before Linux 6.4): a
 * self-contained image. It reads the layer's tar as the one who took it in did, by the same code, and is confined
 * likewise, in the layer's own folder. A lock on that folder lets one at a time work there.
 */
import { existsSync, openSync, renameSync, rmSync } from 'node:fs';
import { systemError } from '../../../src/errors.ts';
import { DISK_FILE } from '../../../src/store/disk-file.ts';
import { native } from '../../../src/sys/native.ts';
import { answerOf } from '../message.ts';
import { confine } from './confined.ts';
import { TAR_FILE } from './message.ts';
import { writeSelfContained } from './self-contained.ts';

const ASIDE = `${DISK_FILE}.new`;

function make(): void {
  // Held until the process ends.
  native().flock(openSync('.', 'r'), 'exclusive', true);
  if (existsSync(DISK_FILE)) return;
  // Of one that was killed.
  rmSync(ASIDE, { force: true });
  writeSelfContained({ form: 'erofs', tar: `tree/${TAR_FILE}` }, ASIDE);
  renameSync(ASIDE, DISK_FILE);
}

function main(): void {
  const { parent, root }: { parent: number; root: string } = JSON.parse(process.argv[2] ?? '');
  native().dieWithParent(parent);
  confine(root);
  try {
    make();
  } catch (error) {
    const failure = answerOf(systemError("layer: can't make its disk", error));
    process.stdout.write(JSON.stringify(failure));
  }
}

main();
