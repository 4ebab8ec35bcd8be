/**
 * Writes ACIs with GNU tar and the usual compressors, without any code of tspod (appc 0.8.11, "Image Archives").
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

export interface AciOptions {
  /** Fields of the ImageManifest in place of the defaults; undefined takes one away. */
  readonly manifest?: Readonly<Record<string, unknown>>;
  /** Fills the root file system. */
  readonly rootfs?: (root: string) => void;
  /** A tar that is unpacked into the root file system first. */
  readonly base?: string;
  readonly compression?: 'none' | 'gzip' | 'bzip2' | 'xz';
}

export interface WrittenAci {
  readonly path: string;
  /** `sha512-…` of the uncompressed archive */
  readonly id: string;
  readonly manifest: Readonly<Record<string, unknown>>;
}

const FLAGS = { none: [], gzip: ['-z'], bzip2: ['-j'], xz: ['-J'] } as const;

export const HOST_LABELS = [
  { name: 'os', value: 'linux' },
  { name: 'arch', value: process.arch === 'arm64' ? 'aarch64' : 'amd64' },
];

/** Writes an ACI with this name to `path`. */
export function writeAci(path: string, name: string, options: AciOptions = {}): WrittenAci {
  const manifest = {
    acKind: 'ImageManifest',
    acVersion: '0.8.11',
    name,
    labels: HOST_LABELS,
    ...options.manifest,
  };
  const folder = mkdtempSync(join(tmpdir(), 'tspod-aci-'));
  try {
    const root = join(folder, 'rootfs');
    mkdirSync(root);
    if (options.base !== undefined) {
      execFileSync('tar', ['--numeric-owner', '-xpf', options.base, '-C', root]);
    }
    options.rootfs?.(root);
    writeFileSync(join(folder, 'manifest'), JSON.stringify(manifest));
    const tar = (flags: readonly string[], file: string) =>
      execFileSync('tar', [
        '-C',
        folder,
        '--numeric-owner',
        '--sort=name',
        ...flags,
        '-cf',
        file,
        'manifest',
        'rootfs',
      ]);
    const plain = join(folder, 'plain.tar');
    tar([], plain);
    if (options.compression === undefined || options.compression === 'none')
      copyFileSync(plain, path);
    else {
      const [flag] = FLAGS[options.compression];
      execFileSync('tar', [
        '-C',
        folder,
        '--numeric-owner',
        '--sort=name',
        flag,
        '-cf',
        path,
        'manifest',
        'rootfs',
      ]);
    }
    const id = `sha512-${createHash('sha512').update(readFileSync(plain)).digest('hex')}`;
    return { path, id, manifest };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Files by path, folders made as needed. */
export function files(content: Readonly<Record<string, string>>): (root: string) => void {
  return root => {
    for (const [path, text] of Object.entries(content)) {
      mkdirSync(dirname(join(root, path)), { recursive: true });
      writeFileSync(join(root, path), text);
    }
  };
}

/** A static busybox and links to it. */
export function busybox(root: string): void {
  mkdirSync(join(root, 'bin'), { recursive: true });
  mkdirSync(join(root, 'tmp'), { recursive: true });
  copyFileSync('/usr/bin/busybox', join(root, 'bin/busybox'));
  for (const applet of ['sh', 'cat', 'ls', 'id', 'env', 'echo', 'pwd']) {
    symlinkSync('busybox', join(root, 'bin', applet));
  }
}

/** Whether the machine has the compressor that GNU tar calls. */
export function hasProgram(name: string): boolean {
  return spawnSync(name, ['--help'], { stdio: 'ignore' }).error === undefined;
}
