/**
 * Where the images lie that pods' machines boot (flavor kvm), and how one is read: a folder in the data folder, named by
 * its digest, with `kernel`, `initramfs` and `info.json`. The link `current` leads to the one that new pods get.
 */
import { readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';

export interface VmImage {
  /** `sha256-…` */
  readonly id: string;
  /** absolute */
  readonly folder: string;
  readonly release: string;
  /** What it was made from: a file, or a package with its version. */
  readonly from: string;
  /** The guest's kernel mounts EROFS with blocks smaller than a page (Linux 6.4). */
  readonly smallBlocks: boolean;
  /** Of the programs in it, so that another version of them is noticed. */
  readonly programs: string;
  /** ISO 8601 */
  readonly builtAt: string;
}

export const VM_IMAGE_ID = /^sha256-[0-9a-f]{64}$/;

export function vmImagesFolder(dir: string): string {
  return join(dir, 'stage1', 'kvm');
}

/** The id that new pods get. */
export function currentVmImage(dir: string): string | undefined {
  try {
    const id = readlinkSync(join(vmImagesFolder(dir), 'current'));
    return VM_IMAGE_ID.test(id) ? id : undefined;
  } catch {
    return undefined;
  }
}

/** Undefined: there is no whole image of this id. */
export function readVmImage(dir: string, id: string): VmImage | undefined {
  const folder = join(vmImagesFolder(dir), id);
  let info: unknown;
  try {
    info = JSON.parse(readFileSync(join(folder, 'info.json'), 'utf8'));
  } catch {
    return undefined;
  }
  if (typeof info !== 'object' || info === null) return undefined;
  const { release, from, smallBlocks, programs, builtAt } = info as Record<string, unknown>;
  if (
    typeof release !== 'string' ||
    typeof from !== 'string' ||
    typeof smallBlocks !== 'boolean' ||
    typeof programs !== 'string' ||
    typeof builtAt !== 'string'
  )
    return undefined;
  return { id, folder, release, from, smallBlocks, programs, builtAt };
}
