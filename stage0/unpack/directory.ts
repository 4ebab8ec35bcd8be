/**
 * The `directory` form of a layer: plain files, unpacked by a confined child (child.ts). For kernels and
 * places where a layer can't be mounted straight from an image, and for copied root filesystems.
 */
import { lstatSync } from 'node:fs';
import { resolve } from 'node:path';
import { errnoOf, systemError, TspodError } from '../../src/errors.ts';
import { type DigestAlgorithm, parseDigest } from '../../src/image/digest.ts';
import { compressionOf, type Packing, transformOf } from '../../src/image/oci.ts';
import { removeTree } from '../../src/store/remove-tree.ts';
import type { LayerForm, LayerSink } from '../../src/store/types.ts';
import { native } from '../../src/sys/native.ts';
import { type Bounds, DEFAULT_BOUNDS } from './bounds.ts';
import { UnpackChild } from './child-process.ts';

/** The source may be a slow network with retries of its own; this is for one that never comes back. */
const INPUT_IDLE_MS = 15 * 60_000;
const CHILD_IDLE_MS = 5 * 60_000;

export interface DirectoryOptions {
  readonly bounds?: Bounds;
  readonly inputIdleMs?: number;
  readonly childIdleMs?: number;
}

/** The form with bounds of one's own; `directoryForm` has the default ones. */
export function makeDirectoryForm(options: DirectoryOptions = {}): LayerForm {
  return {
    name: 'directory',
    unavailable: () => (process.geteuid?.() === 0 ? undefined : 'unpacking layers needs root'),
    begin: (folder, packing, algorithm) =>
      new DirectorySink(resolve(folder), packing, algorithm, options),
    tree: folder => ({ form: 'directory', path: folder }),
    root: folder => {
      const { mode, uid, gid } = lstatSync(folder);
      return { mode: mode & 0o7777, uid, gid, opaque: isOpaque(folder) };
    },
  };
}

export const directoryForm: LayerForm = makeDirectoryForm();

function isOpaque(tree: string): boolean {
  try {
    return Buffer.from(native().lgetxattr(tree, 'trusted.overlay.opaque')).toString() === 'y';
  } catch (error) {
    if (errnoOf(error) === 'ENODATA' || errnoOf(error) === 'ENOTSUP') return false;
    throw systemError(`can't read the attributes of layer ${tree}`, error);
  }
}

class DirectorySink implements LayerSink {
  readonly #folder: string;
  readonly #child: UnpackChild;

  constructor(
    folder: string,
    packing: Packing,
    algorithm: DigestAlgorithm,
    options: DirectoryOptions,
  ) {
    const compression = compressionOf(packing);
    this.#folder = folder;
    this.#child = new UnpackChild(
      {
        job: 'unpack',
        folder,
        compression,
        algorithm,
        bounds: options.bounds ?? DEFAULT_BOUNDS,
        idleMs: options.inputIdleMs ?? INPUT_IDLE_MS,
      },
      options.childIdleMs ?? CHILD_IDLE_MS,
      transformOf(packing),
    );
  }

  write(chunk: Uint8Array): Promise<void> {
    return this.#child.write(chunk);
  }

  async finish(): ReturnType<LayerSink['finish']> {
    const unpacked = await this.#child.finish();
    if (unpacked === undefined)
      throw new TspodError('unpack', 'layer: the unpacker gave no digest');
    const { diffId, bytes, entries } = unpacked;
    return { diffId: parseDigest(diffId, 'layer'), bytes, entries };
  }

  async abort(): Promise<void> {
    await this.#child.kill();
    removeTree(this.#folder);
  }
}
