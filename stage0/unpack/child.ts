/**
 * The process that unpacks a layer, copies layers together or makes one tar of them. What an image holds is parsed here and
 * nowhere else: chrooted into the place that it may write, without new privileges, with the capabilities
 * that owners, devices and attributes need, and killed with its parent. All code is loaded before the
 * chroot, nothing is run or loaded after it.
 */
import { createHash } from 'node:crypto';
import { closeSync, fstatSync, readdirSync, readFileSync, writeSync } from 'node:fs';
import { errnoOf, TspodError } from '../../src/errors.ts';
import type { AciTransform } from '../../src/image/oci.ts';
import { native } from '../../src/sys/native.ts';
import { usedUp } from '../../src/sys/scavenge.ts';
import { AciRewriter } from './aci-rewrite.ts';
import { overBound } from './bounds.ts';
import { decompress } from './decompress.ts';
import { Extractor } from './extractor.ts';
import { flattenTrees } from './flatten-trees.ts';
import { copyDecompressed, copyLayer, mergeLayers } from './merge/merge-layers.ts';
import {
  type Answer,
  answerOf,
  EXTRA_FD,
  FIRST_BLOB_FD,
  type Job,
  TAR_FD,
  type TarJob,
  type Unpacked,
} from './message.ts';
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

/** Owners, devices and attributes need these; reading needs none. */
const WRITING = Object.values(CAPABILITIES);

const PROGRESS_MS = 2000;

function confine(root: string, capabilities: readonly number[] = WRITING): void {
  process.umask(0);
  closeFolders();
  const { chroot, confine: reduce } = native();
  chroot(root);
  process.chdir('/');
  reduce(capabilities.reduce((mask, bit) => mask | (1n << BigInt(bit)), 0n));
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

/** What the parent says on descriptor 3. */
function readTransform(): AciTransform {
  const transform: AciTransform = JSON.parse(readExtra());
  return transform;
}

function readExtra(): string {
  const text = readFileSync(EXTRA_FD, 'utf8');
  closeSync(EXTRA_FD);
  return text;
}

/** Standard input, with its time-out. Everything that needs a path is done: shuts the process in. */
function openInput(job: Extract<Job, { job: 'unpack' | 'inspect-aci' }>): NodeJS.ReadStream {
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
  return input;
}

/** The archive, decompressed; says now and then that it goes on. */
async function* readArchive(
  input: NodeJS.ReadStream,
  { compression, bounds }: Extract<Job, { job: 'unpack' | 'inspect-aci' }>,
): AsyncGenerator<Buffer> {
  const working = reporter();
  for await (const chunk of decompress(input, compression, bounds)) {
    yield chunk;
    usedUp(chunk.length);
    working();
  }
}

/** What it returns is called often, and now and then says that it goes on. */
function reporter(): () => void {
  let reported = performance.now();
  return () => {
    const now = performance.now();
    if (now - reported < PROGRESS_MS) return;
    reported = now;
    writeSync(1, '\n');
  };
}

async function unpack(job: Extract<Job, { job: 'unpack' }>): Promise<Unpacked> {
  const rewriter = job.aci ? new AciRewriter(readTransform(), { bounds: job.bounds }) : undefined;
  const input = openInput(job);
  const hash = createHash(job.algorithm);
  const extractor = new Extractor({ plain: job.plain === true });
  const reader = new TarReader(extractor, job.bounds);
  const take = (piece: Buffer) => {
    hash.update(piece);
    reader.write(piece);
  };
  for await (const chunk of readArchive(input, job)) {
    if (rewriter === undefined) take(chunk);
    else for (const piece of rewriter.write(chunk)) take(piece);
  }
  for (const piece of rewriter?.end() ?? []) take(piece);
  reader.end();
  extractor.finish();
  return {
    diffId: `${job.algorithm}:${hash.digest('hex')}`,
    bytes: extractor.bytes,
    entries: extractor.entries,
  };
}

async function inspectAci(job: Extract<Job, { job: 'inspect-aci' }>): Promise<Unpacked> {
  const transform = readTransform();
  const input = openInput(job);
  const id = createHash('sha512');
  const layer = createHash('sha256');
  let manifest = '';
  let bytes = 0;
  const rewriter = new AciRewriter(transform, {
    bounds: job.bounds,
    onManifest: content => {
      manifest = Buffer.from(content).toString('base64');
    },
  });
  for await (const chunk of readArchive(input, job)) {
    id.update(chunk);
    bytes += chunk.length;
    if (bytes > job.bounds.archiveBytes)
      throw overBound('archive', job.bounds.archiveBytes, 'bytes');
    for (const piece of rewriter.write(chunk)) layer.update(piece);
  }
  for (const piece of rewriter.end()) layer.update(piece);
  return {
    diffId: `sha256:${layer.digest('hex')}`,
    bytes,
    entries: 0,
    aci: { id: `sha512:${id.digest('hex')}`, manifest },
  };
}

function flatten(job: Extract<Job, { job: 'flatten' }>): undefined {
  const root = commonFolder([...job.layers, job.target]);
  confine(root === '' ? '/' : root);
  const inside = (path: string) => path.slice(root.length) || '/';
  flattenTrees(job.layers.map(inside), inside(job.target), reporter());
}

/** One tar of several layers, or of one, to the parent. */
async function giveTar(job: TarJob): Promise<undefined> {
  const transforms: readonly (AciTransform | null)[] = JSON.parse(readExtra());
  const layers = job.layers.map(({ compression, diffId }, index) => ({
    fd: FIRST_BLOB_FD + index,
    compression,
    diffId,
    transform: transforms[index] ?? undefined,
  }));
  confine(job.folder, []);
  const { bounds, prefix } = job;
  const options = { bounds, prefix, write: writeTar, working: reporter() };
  if (job.job === 'merge') await mergeLayers(layers, options);
  else if (job.job === 'layer-tar') for (const layer of layers) await copyLayer(layer, options);
  else for (const layer of layers) await copyDecompressed(layer, options);
  closeSync(TAR_FD);
}

function writeTar(piece: Uint8Array): void {
  for (let at = 0; at < piece.length; ) at += writeSync(TAR_FD, piece, at);
}

/** The longest path above all of these, '' for the root. */
function commonFolder(paths: readonly string[]): string {
  const [first = [], ...rest] = paths.map(path => path.split('/'));
  let length = 0;
  while (length < first.length && rest.every(parts => parts[length] === first[length])) length += 1;
  return first.slice(0, length).join('/');
}

function work(job: Job): Promise<Unpacked | undefined> | undefined {
  switch (job.job) {
    case 'unpack':
      return unpack(job);
    case 'inspect-aci':
      return inspectAci(job);
    case 'flatten':
      return flatten(job);
    case 'merge':
    case 'layer-tar':
    case 'decompress':
      return giveTar(job);
  }
}

async function main(): Promise<void> {
  let answer: Answer;
  try {
    const job: Job = JSON.parse(process.argv[2] ?? '');
    native().dieWithParent(job.parent);
    const result = await work(job);
    answer = { ok: true, result };
  } catch (error) {
    answer = answerOf(error);
  }
  const text = Buffer.from(`${JSON.stringify(answer)}\n`);
  for (let at = 0; at < text.length; ) at += writeSync(1, text, at);
  // At once: on a failure nobody reads the rest of the input.
  process.exit(answer.ok ? 0 : 1);
}

await main();
