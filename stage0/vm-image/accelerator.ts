/**
 * Whether a machine can have KVM. A /dev/kvm that opens proves nothing: in some machines a guest then hangs. So the
 * kernel that pods boot is started with it, once per boot and image, with an initial file system that says a line.
 */
import { spawn } from 'node:child_process';
import {
  accessSync,
  constants,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { cpioArchive } from '../../src/cpio/newc.ts';
import { TspodError } from '../../src/errors.ts';
import type { VmImage } from '../../src/pod/vm-image.ts';
import { artifact } from '../../src/sys/artifacts.ts';
import { bootWords, findQemu } from '../../stage1-flavors/kvm/qemu.ts';

const CACHE = '/run/tspod/qemu-accelerator';
/** A kernel under KVM boots in less than one. */
const PROBE_MS = 8000;
/** What `vm guest` says where there is no pod. */
const SIGN = 'tspod: this machine works';

/** @throws TspodError 'unsupported' when kvm was asked for and does not work */
export async function chooseAccelerator(
  wanted: 'kvm' | 'tcg' | 'auto',
  image: VmImage,
): Promise<'kvm' | 'tcg'> {
  if (wanted === 'tcg') return 'tcg';
  const works = await kvmWorks(image);
  if (works === true) return 'kvm';
  if (wanted === 'auto') return 'tcg';
  throw new TspodError('unsupported', `--qemu-accel=kvm: KVM does not work here: ${works}`, {
    hint: 'use --qemu-accel=tcg, which emulates a processor',
  });
}

/** True, or why not. */
async function kvmWorks(image: VmImage): Promise<true | string> {
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
  } catch {
    return 'there is no /dev/kvm that can be opened';
  }
  const known = readCache(image);
  if (known !== undefined) return known === '' ? true : known;
  const why = await tryKvm(image);
  writeCache(image, why);
  return why === '' ? true : why;
}

async function tryKvm(image: VmImage): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'tspod-kvm-'));
  try {
    const initramfs = join(folder, 'initramfs');
    writeFileSync(
      initramfs,
      cpioArchive([
        { type: 'folder', name: 'dev', mode: 0o755 },
        { type: 'character-device', name: 'dev/console', mode: 0o600, major: 5, minor: 1 },
        { type: 'file', name: 'init', mode: 0o755, content: readFileSync(artifact('vm')) },
      ]),
    );
    const words = [
      ...bootWords({ accel: 'kvm', cpus: 1, memory: 128 * 1024 * 1024 }),
      '-kernel',
      join(image.folder, 'kernel'),
      '-initrd',
      initramfs,
      '-serial',
      'stdio',
    ];
    return await new Promise<string>((resolve, reject) => {
      const child = spawn(findQemu(), words, { stdio: ['ignore', 'pipe', 'ignore'] });
      let said = '';
      const timer = setTimeout(() => child.kill('SIGKILL'), PROBE_MS);
      child.stdout.on('data', chunk => {
        said = `${said}${chunk}`.slice(-65_536);
      });
      child.once('error', reject);
      child.once('close', () => {
        clearTimeout(timer);
        resolve(said.includes(SIGN) ? '' : 'a machine that was tried did not start');
      });
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** It holds for this boot and this image. */
function key(image: VmImage): string {
  const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
  return `${boot} ${image.id}`;
}

/** '' for yes. */
function readCache(image: VmImage): string | undefined {
  try {
    const [known, why = ''] = readFileSync(CACHE, 'utf8').split('\n');
    return known === key(image) ? why : undefined;
  } catch {
    return undefined;
  }
}

function writeCache(image: VmImage, why: string): void {
  try {
    mkdirSync('/run/tspod', { recursive: true, mode: 0o755 });
    const aside = `${CACHE}.${process.pid}`;
    writeFileSync(aside, `${key(image)}\n${why}\n`);
    renameSync(aside, CACHE);
  } catch {
    // It is found out again the next time.
  }
}
