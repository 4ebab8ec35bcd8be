/** The kernel modules that a pod's machine needs, in the order in which they are to be loaded. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { gunzipSync, zstdDecompressSync } from 'node:zlib';
import { systemError, TspodError } from '../../src/errors.ts';
import { decodeXz } from '../unpack/xz.ts';

/** By name. What a kernel has built in is in none of these files. */
const WANTED = [
  'virtio_mmio',
  'virtio_pci',
  'virtio_console',
  'virtio_blk',
  'virtio_net',
  'virtio_balloon',
  'virtiofs',
  'overlay',
  'erofs',
  'ext4',
  'crc32c_generic',
  'crc32c_intel',
];
/** Of these a machine must have each, as a module or built in. */
const REQUIRED = ['virtio_console', 'virtio_blk', 'overlay', 'erofs'];

export interface Module {
  /** e.g. virtio_blk.ko */
  readonly file: string;
  readonly content: Uint8Array;
}

/**
 * What each needs is read from the modules themselves: a package that was only unpacked has no modules.dep.
 * @param folder /lib/modules/RELEASE
 * @throws TspodError 'unsupported' when the kernel lacks what no machine can do without
 */
export async function modulesFor(folder: string): Promise<readonly Module[]> {
  const paths = new Map(
    readdirSync(folder, { recursive: true, encoding: 'utf8' })
      .filter(path => MODULE.test(path))
      .map(path => [nameOf(path), path]),
  );
  const builtIn = new Set(
    textOf(join(folder, 'modules.builtin')).split('\n').filter(Boolean).map(nameOf),
  );
  const missing = REQUIRED.find(name => !paths.has(name) && !builtIn.has(name));
  if (missing !== undefined) {
    throw new TspodError('unsupported', `stage1 kvm: the kernel has no module ${missing}`, {
      hint: 'name another kernel: --kernel',
    });
  }
  const modules = new Map<string, Module>();
  const add = async (name: string): Promise<void> => {
    const path = paths.get(name);
    if (path === undefined || modules.has(name)) return;
    const module = await readModule(join(folder, path));
    for (const needed of needsOf(module.content)) await add(needed);
    modules.set(name, module);
  };
  for (const name of WANTED) await add(nameOf(name));
  return [...modules.values()];
}

const MODULE = /\.ko(?:\.(?:xz|gz|zst))?$/;

/** `depends=` and `softdep=pre:` of the module's .modinfo: texts that end with NUL (include/linux/module.h). */
function needsOf(module: Uint8Array): readonly string[] {
  const text = Buffer.from(module).toString('latin1');
  const hard = /\0depends=([^\0]*)\0/.exec(text)?.[1] ?? '';
  const soft = [...text.matchAll(/\0softdep=pre: ([^\0]*)\0/g)].flatMap(([, names = '']) =>
    names.replace(/ post:.*$/, '').split(' '),
  );
  return [...hard.split(','), ...soft].filter(Boolean).map(nameOf);
}

/** The kernel takes - and _ for the same. */
function nameOf(path: string): string {
  return basename(path).replace(MODULE, '').replaceAll('-', '_');
}

async function readModule(path: string): Promise<Module> {
  try {
    const packed = readFileSync(path);
    const file = basename(path).replace(/\.(?:xz|gz|zst)$/, '');
    if (path.endsWith('.gz')) return { file, content: gunzipSync(packed) };
    if (path.endsWith('.zst')) return { file, content: zstdDecompressSync(packed) };
    return { file, content: path.endsWith('.xz') ? await unxz(packed) : packed };
  } catch (error) {
    throw systemError(`stage1 kvm: can't read the kernel module ${path}`, error);
  }
}

async function unxz(packed: Buffer): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of decodeXz(once(packed))) parts.push(part);
  return Buffer.concat(parts);
}

async function* once(bytes: Buffer): AsyncGenerator<Buffer> {
  yield bytes;
}

function textOf(path: string): string {
  return existsSync(path) ? readFileSync(path, 'utf8') : '';
}
