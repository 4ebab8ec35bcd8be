/**
 * The process that unpacks a layer or copies layers together. What an image holds is parsed here and
 * nowhere else: chrooted into the place that it may write, without new privileges, with the capabilities
 * that owners, devices and attributes need, and killed with its parent. All code is loaded before the
 * chroot, nothing is run or loaded after it.
 */
import { createHash } from 'node:crypto';
import { closeSync, fstatSync, readdirSync, writeSync } from 'node:fs';
import { errnoOf, TspodError } from '../../src/errors.ts';
import { native } from '../../src/sys/native.ts';
import { usedUp } from '../../src/sys/scavenge.ts';
import { decompress } from './decompress.ts';
import { Extractor } from './extractor.ts';
import { flattenTrees } from './flatten-trees.ts';
import { type Answer, answerOf, type Job, type Unpacked } from './message.ts';
import { TarReader } from './tar-reader.ts';

/** Bits of linux/capability.h. */
const CAPABILITIES = {
  CHOWN: 0,
  DAC_OVERRIDE: 1,
  FOWNER: 3,
  FSETID: 4,
  SYS_ADMIN: 21, // trusted.* attributes
  MKNOD: 27,
  SETFCAP: 31,
} as const;

const PROGRESS_MS = 2000;

function confine(root: string): void {
  process.umask(0);
  closeFolders();
  const { chroot, confine: reduce } = native();
  chroot(root);
  process.chdir('/');
  reduce(Object.values(CAPABILITIES).reduce((mask, bit) => mask | (1n << BigInt(bit)), 0n));
}

/** A folder that tspod was started with as an open file would be a way out of the changed root. */
function closeFolders(): void {
  for (const name of readdirSync('/proc/self/fd')) {
    const fd = Number(name);
    try {
      if (fstatSync(fd).isDirectory()) closeSync(fd);
    } catch (error) {
      // the one that listed them is closed already
      if (errnoOf(error) !== 'EBADF') throw error;
    }
  }
}

async function unpack(job: Extract<Job, { job: 'unpack' }>): Promise<Unpacked> {
  const input = process.stdin; // opened before the chroot
  const idle = setTimeout(() => {
    input.destroy(
      new TspodError('unpack', `layer: no data came for ${Math.round(job.idleMs / 1000)} s`, {
        hint: 'try again',
      }),
    );
  }, job.idleMs);
  input.on('data', () => idle.refresh());
  input.on('end', () => clearTimeout(idle));
  input.pause();
  confine(job.folder);
  const hash = createHash('sha256');
  const extractor = new Extractor();
  const reader = new TarReader(extractor, job.bounds);
  let reported = performance.now();
  for await (const chunk of decompress(input, job.compression, job.bounds)) {
    hash.update(chunk);
    reader.write(chunk);
    usedUp(chunk.length);
    const now = performance.now();
    if (now - reported > PROGRESS_MS) {
      reported = now;
      writeSync(1, '\n');
    }
  }
  clearTimeout(idle);
  reader.end();
  extractor.finish();
  return {
    diffId: `sha256:${hash.digest('hex')}`,
    bytes: extractor.bytes,
    entries: extractor.entries,
  };
}

function flatten(job: Extract<Job, { job: 'flatten' }>): undefined {
  const root = commonFolder([...job.layers, job.target]);
  confine(root === '' ? '/' : root);
  const inside = (path: string) => path.slice(root.length) || '/';
  let reported = performance.now();
  flattenTrees(job.layers.map(inside), inside(job.target), () => {
    const now = performance.now();
    if (now - reported < PROGRESS_MS) return;
    reported = now;
    writeSync(1, '\n');
  });
}

/** The longest path above all of these, '' for the root. */
function commonFolder(paths: readonly string[]): string {
  const [first = [], ...rest] = paths.map(path => path.split('/'));
  let length = 0;
  while (length < first.length && rest.every(parts => parts[length] === first[length])) length += 1;
  return first.slice(0, length).join('/');
}

async function main(): Promise<void> {
  let answer: Answer;
  try {
    const job: Job = JSON.parse(process.argv[2] ?? '');
    native().dieWithParent(job.parent);
    const result = job.job === 'unpack' ? await unpack(job) : flatten(job);
    answer = { ok: true, result };
  } catch (error) {
    answer = answerOf(error);
  }
  writeSync(1, `${JSON.stringify(answer)}\n`);
  // At once: on a failure nobody reads the rest of the input.
  process.exit(answer.ok ? 0 : 1);
}

await main();
