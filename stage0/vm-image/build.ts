/**
 * Makes the image that pods' machines boot: the kernel as the distribution has it, and an initial file system with our
 * own programs and just the modules that a machine needs. Written aside, fsynced, renamed to its digest; then `current`
 * leads to it. Two builds at once make the same, or two that both stay.
 */
import { createHash } from 'node:crypto';
import {
  chmodSync,
  closeSync,
  copyFileSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import type { Context } from '../../src/context.ts';
import { type CpioEntry, cpioArchive } from '../../src/cpio/newc.ts';
import { errnoOf, systemError, TspodError } from '../../src/errors.ts';
import {
  currentVmImage,
  readVmImage,
  VM_IMAGE_ID,
  type VmImage,
  vmImagesFolder,
} from '../../src/pod/vm-image.ts';
import { artifact } from '../../src/sys/artifacts.ts';
import { HOST_PLAN } from '../../stage1-flavors/kvm/places.ts';
import { findKernel } from './kernel.ts';
import { type Module, modulesFor } from './modules.ts';

/** Linux 6.4: "erofs: support sub-page blocks". */
const SMALL_BLOCKS_SINCE = [6, 4] as const;
/** How long an image stays that no pod names. */
const KEPT_MS = 60 * 60 * 1000;
/** In the machine, and in dist/. */
const PROGRAMS = [
  ['init', 'vm'],
  ['stage2', 'stage2'],
  ['launch', 'launch'],
] as const;

/**
 * The image for new pods, built now when there is none, or when it holds other programs than this version's.
 * @throws TspodError when it can't be built
 */
export async function ensureVmImage(context: Context): Promise<VmImage> {
  const id = currentVmImage(context.dir);
  const image = id === undefined ? undefined : readVmImage(context.dir, id);
  if (image === undefined) return buildVmImage(context, undefined);
  if (image.programs === programsMark()) return image;
  // Of another version of ours: the same kernel and modules, with this one's programs.
  return store(context.dir, {
    kernel: join(image.folder, 'kernel'),
    modules: readFileSync(join(image.folder, 'modules')),
    release: image.release,
    from: image.from,
  });
}

/** @param wanted see findKernel */
export async function buildVmImage(context: Context, wanted: string | undefined): Promise<VmImage> {
  const folder = vmImagesFolder(context.dir);
  say('building stage1 kvm: looking for a kernel');
  try {
    mkdirSync(folder, { recursive: true, mode: 0o755 });
  } catch (error) {
    throw systemError(`stage1 kvm: can't make ${folder}`, error);
  }
  const kernel = findKernel(wanted, folder);
  try {
    say(`building stage1 kvm: from ${kernel.from}`);
    const { file, release, from } = kernel;
    const modules = cpioArchive(moduleEntries(await modulesFor(kernel.modules)));
    return store(context.dir, { kernel: file, modules, release, from });
  } finally {
    kernel.dispose();
  }
}

interface Ingredients {
  /** a file */
  readonly kernel: string;
  /** a cpio archive */
  readonly modules: Uint8Array;
  readonly release: string;
  readonly from: string;
}

function store(dir: string, { kernel, modules, release, from }: Ingredients): VmImage {
  const folder = vmImagesFolder(dir);
  try {
    const aside = mkdtempSync(join(folder, '.build-'));
    try {
      // Archives may follow each other.
      const initramfs = Buffer.concat([cpioArchive(programEntries()), modules]);
      copyFileSync(kernel, join(aside, 'kernel'));
      writeFileSync(join(aside, 'modules'), modules);
      writeFileSync(join(aside, 'initramfs'), initramfs);
      // The machine's user reads them, by descriptor.
      for (const name of ['kernel', 'initramfs']) chmodSync(join(aside, name), 0o644);
      const info = {
        version: 1,
        release,
        from,
        smallBlocks: hasSmallBlocks(release),
        programs: programsMark(),
        builtAt: new Date().toISOString(),
      };
      writeFileSync(join(aside, 'info.json'), `${JSON.stringify(info)}\n`);
      for (const name of ['kernel', 'modules', 'initramfs', 'info.json', '.'])
        fsync(join(aside, name));
      const id = `sha256-${createHash('sha256')
        .update(readFileSync(join(aside, 'kernel')))
        .update(initramfs)
        .digest('hex')}`;
      putInPlace(aside, join(folder, id));
      makeCurrent(folder, id);
      removeUnused(dir, id);
      const image = readVmImage(dir, id);
      if (image === undefined) throw new Error('it is gone again');
      return image;
    } finally {
      rmSync(aside, { recursive: true, force: true });
    }
  } catch (error) {
    if (error instanceof TspodError) throw error;
    throw systemError("stage1 kvm: can't write the image", error);
  }
}

function* programEntries(): Generator<CpioEntry> {
  for (const name of ['dev', 'proc', 'sys', 'pod']) yield { type: 'folder', name, mode: 0o755 };
  yield { type: 'character-device', name: 'dev/console', mode: 0o600, major: 5, minor: 1 };
  for (const [name, part] of PROGRAMS)
    yield { type: 'file', name, mode: 0o755, content: readFileSync(artifact(part)) };
}

function* moduleEntries(modules: readonly Module[]): Generator<CpioEntry> {
  yield { type: 'folder', name: 'modules', mode: 0o755 };
  for (const { file, content } of modules)
    yield { type: 'file', name: `modules/${file}`, mode: 0o644, content };
  const order = modules.map(({ file }) => `/modules/${file}\n`).join('');
  yield { type: 'file', name: 'modules/order', mode: 0o644, content: Buffer.from(order) };
}

/** Sizes and times: who replaces a program replaces both. */
function programsMark(): string {
  return PROGRAMS.map(([, part]) => {
    const { size, mtimeMs } = statSync(artifact(part));
    return `${part}:${size}:${Math.floor(mtimeMs)}`;
  }).join(' ');
}

function hasSmallBlocks(release: string): boolean {
  const [, major = '0', minor = '0'] = /^(\d+)\.(\d+)/.exec(release) ?? [];
  const [wantedMajor, wantedMinor] = SMALL_BLOCKS_SINCE;
  return (
    Number(major) > wantedMajor || (Number(major) === wantedMajor && Number(minor) >= wantedMinor)
  );
}

function putInPlace(aside: string, place: string): void {
  try {
    renameSync(aside, place);
  } catch (error) {
    if (errnoOf(error) !== 'ENOTEMPTY' && errnoOf(error) !== 'EEXIST') throw error;
    // The same bytes, with another time in its programs' mark.
    renameSync(join(aside, 'info.json'), join(place, 'info.json'));
  }
  fsync(join(place, '..'));
}

function makeCurrent(folder: string, id: string): void {
  const aside = join(folder, `.current-${process.pid}`);
  rmSync(aside, { force: true });
  symlinkSync(id, aside);
  renameSync(aside, join(folder, 'current'));
  fsync(folder);
}

/**
 * Takes away images that no pod's plan names, but for those that a pod may be about to name. What a crash left of a
 * build goes, too.
 */
function removeUnused(dir: string, current: string): void {
  const folder = vmImagesFolder(dir);
  const old = readdirSync(folder).filter(name => {
    if (name === current || !(VM_IMAGE_ID.test(name) || /^\.(?:build|kernel)-/.test(name)))
      return false;
    const stat = statSync(join(folder, name), { throwIfNoEntry: false });
    return stat !== undefined && Date.now() - stat.mtimeMs > KEPT_MS;
  });
  if (old.length === 0) return;
  const pods = join(dir, 'pods');
  const phases = existsSync(pods) ? readdirSync(pods, { withFileTypes: true }) : [];
  const plans = phases
    .filter(phase => phase.isDirectory())
    .flatMap(({ name }) =>
      readdirSync(join(pods, name)).map(pod => join(pods, name, pod, HOST_PLAN)),
    )
    .filter(path => existsSync(path))
    .map(path => readFileSync(path, 'latin1'));
  for (const name of old)
    if (!plans.some(plan => plan.includes(name)))
      rmSync(join(folder, name), { recursive: true, force: true });
}

function fsync(path: string): void {
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** Progress, for people. */
function say(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`${text}\n`);
}
