/**
 * Where a pod's machine gets its kernel: a file that was named, with its modules in /lib/modules; else the newest of
 * /boot that has modules; else the distribution's kernel for machines in clouds, which apt fetches and verifies.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { reasonOf, systemError, TspodError } from '../../src/errors.ts';

export interface Kernel {
  /** A bzImage (x86) or Image. */
  readonly file: string;
  /** lib/modules/RELEASE */
  readonly modules: string;
  readonly release: string;
  /** For people: a file or a package with its version. */
  readonly from: string;
  /** Takes away what was fetched for it. */
  readonly dispose: () => void;
}

const PACKAGE = process.arch === 'arm64' ? 'linux-image-cloud-arm64' : 'linux-image-cloud-amd64';
const PACKAGE_NAME = /^linux-image-[a-z0-9][a-z0-9.+-]*$/;
const RELEASE = /^[0-9][A-Za-z0-9._+~-]{0,100}$/;

/**
 * @param wanted a file, or a package linux-image-…; undefined: what the machine has, else PACKAGE
 * @param folder where packages may be unpacked
 * @throws TspodError that says what could not be had
 */
export function findKernel(wanted: string | undefined, folder: string): Kernel {
  if (wanted !== undefined)
    return PACKAGE_NAME.test(wanted) ? fromPackage(wanted, folder) : fromFile(wanted);
  return installed() ?? fromPackage(PACKAGE, folder);
}

function installed(): Kernel | undefined {
  const releases = namesIn('/boot')
    .filter(name => name.startsWith('vmlinuz-'))
    .map(name => name.slice('vmlinuz-'.length))
    .filter(release => RELEASE.test(release) && hasModules(`/lib/modules/${release}`))
    // A kernel for clouds is smaller, and has all that a machine needs.
    .sort((a, b) => Number(a.includes('cloud')) - Number(b.includes('cloud')) || compare(a, b));
  const release = releases.at(-1);
  if (release === undefined) return undefined;
  return kernelOf(`/boot/vmlinuz-${release}`, '/lib/modules', release);
}

function fromFile(file: string): Kernel {
  const release = releaseOf(file);
  if (!hasModules(`/lib/modules/${release}`)) {
    throw new TspodError(
      'not-found',
      `stage1 kvm: kernel ${file} is ${release}, and there is no /lib/modules/${release}`,
      { hint: 'install its package, or name a package: --kernel=linux-image-…' },
    );
  }
  return kernelOf(file, '/lib/modules', release);
}

function kernelOf(file: string, modules: string, release: string): Kernel {
  return { file, modules: join(modules, release), release, from: file, dispose: () => undefined };
}

/** The Linux boot protocol keeps it behind the offset at 0x20e (Documentation/arch/x86/boot.rst, "kernel_version"). */
function releaseOf(file: string): string {
  let head: Buffer;
  try {
    head = readFileSync(file).subarray(0, 0x10000);
  } catch (error) {
    throw systemError(`stage1 kvm: can't read the kernel ${file}`, error);
  }
  const at = head.length > 0x210 ? head.readUInt16LE(0x20e) + 0x200 : 0;
  const release = head.toString('latin1', at, at + 128).split(/[ \0]/)[0] ?? '';
  if (head.toString('latin1', 0x202, 0x206) === 'HdrS' && RELEASE.test(release)) return release;
  throw new TspodError('usage', `stage1 kvm: ${file} is no Linux kernel (bzImage)`, {
    hint: 'give a vmlinuz file, or the name of a package: --kernel=linux-image-…',
  });
}

function fromPackage(name: string, folder: string): Kernel {
  const place = mkdtempSync(join(folder, '.kernel-'));
  const dispose = () => rmSync(place, { recursive: true, force: true });
  try {
    // One that only names the newest of its kind has no kernel itself.
    const image = dependencyOf(name) ?? name;
    apt(['-o', 'APT::Sandbox::User=root', 'download', image], place, image);
    const archive = namesIn(place).find(file => file.endsWith('.deb'));
    if (archive === undefined) throw noPackage(image, 'apt fetched nothing');
    program('dpkg-deb', ['-x', archive, 'tree'], place, image);
    const modules = [join(place, 'tree/lib/modules'), join(place, 'tree/usr/lib/modules')].find(
      path => namesIn(path).length > 0,
    );
    const release = modules === undefined ? undefined : namesIn(modules)[0];
    const boot = join(place, 'tree/boot');
    const file = namesIn(boot).find(one => one.startsWith('vmlinuz-'));
    if (modules === undefined || release === undefined || file === undefined)
      throw noPackage(image, 'it holds no kernel with modules');
    const version = basename(archive).split('_')[1]?.replaceAll('%3a', ':') ?? '';
    return {
      file: join(boot, file),
      modules: join(modules, release),
      release,
      from: `${image} ${version}`,
      dispose,
    };
  } catch (error) {
    dispose();
    throw error;
  }
}

function dependencyOf(name: string): string | undefined {
  const { stdout } = spawnSync('apt-cache', ['depends', '--important', name], { encoding: 'utf8' });
  return /^\s*Depends: (linux-image-\S+)$/m.exec(stdout ?? '')?.[1];
}

function apt(words: readonly string[], cwd: string, image: string): void {
  program('apt-get', ['-q', ...words], cwd, image);
}

function program(name: string, words: readonly string[], cwd: string, image: string): void {
  const { status, stderr, error } = spawnSync(name, words, { cwd, encoding: 'utf8' });
  if (status === 0) return;
  const said = error === undefined ? (stderr ?? '').trim().split('\n').at(-1) : reasonOf(error);
  throw noPackage(image, `${name}: ${said}`);
}

function noPackage(image: string, why: string): TspodError {
  return new TspodError('not-found', `stage1 kvm: can't get the kernel package ${image}: ${why}`, {
    hint: 'run "apt-get update", or name a kernel: tspod stage1 build kvm --kernel=FILE',
  });
}

function hasModules(path: string): boolean {
  return statSync(join(path, 'kernel'), { throwIfNoEntry: false }) !== undefined;
}

function namesIn(folder: string): readonly string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

/** 6.1.0-9 before 6.1.0-56 */
function compare(a: string, b: string): number {
  return a.localeCompare(b, 'en', { numeric: true });
}
