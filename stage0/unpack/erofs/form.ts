/**
 * The `erofs` form of a layer: the tar stays as it is, and beside it lies an index that the kernel mounts
 * (docs/erofs.md). No file of the image is ever created, so taking a layer in ends when its download ends.
 */
import { readFileSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { systemError, TspodError } from '../../../src/errors.ts';
import { type DigestAlgorithm, parseDigest } from '../../../src/image/digest.ts';
import { compressionOf, type Packing, transformOf } from '../../../src/image/oci.ts';
import { removeTree } from '../../../src/store/remove-tree.ts';
import type { LayerForm, LayerRoot, LayerSink } from '../../../src/store/types.ts';
import { type Bounds, DEFAULT_BOUNDS } from '../bounds.ts';
import { type ErofsRecord, META_FILE, RECORD_FILE, TAR_FILE } from './message.ts';
import { IndexProcess, type IndexStream } from './process.ts';
import { erofsSupport } from './support.ts';

const IDLE_MS = 5 * 60_000;

export interface ErofsOptions {
  readonly bounds?: Bounds;
  readonly idleMs?: number;
}

/** @param dir the data folder: whether the kernel can mount from files depends on its file system */
export function makeErofsForm(dir: string, options: ErofsOptions = {}): LayerForm {
  /** By the folder that a child is confined to. */
  let child: { readonly root: string; readonly process: IndexProcess } | undefined;
  const processFor = (root: string): IndexProcess => {
    if (child?.root !== root || child.process.ended) {
      child = { root, process: new IndexProcess(root, options.idleMs ?? IDLE_MS) };
    }
    return child.process;
  };
  return {
    name: 'erofs',
    files: [TAR_FILE, META_FILE],
    unavailable: () => erofsSupport(dir).unavailable,
    begin: (folder, packing, algorithm) =>
      new ErofsSink(
        resolve(folder),
        { packing, algorithm, bounds: options.bounds ?? DEFAULT_BOUNDS },
        processFor,
      ),
    tree: folder => ({
      form: 'erofs',
      meta: `${folder}/${META_FILE}`,
      tar: `${folder}/${TAR_FILE}`,
      by: erofsSupport(dir).by ?? 'file',
    }),
    root: folder => readRecord(folder).root,
    expect(tmp) {
      processFor(tmp);
    },
    async rest() {
      const resting = child;
      child = undefined;
      await resting?.process.close();
    },
  };
}

export function readRecord(folder: string): ErofsRecord {
  const path = `${folder}/${RECORD_FILE}`;
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw systemError(`can't read ${path}`, error);
  }
  if (isErofsRecord(value)) return value;
  throw new TspodError('store', `${path}: it is damaged`, {
    hint: 'remove the image and fetch it again',
  });
}

function isErofsRecord(value: unknown): value is ErofsRecord {
  return (
    isObject(value) &&
    value.version === 1 &&
    typeof value.tarBytes === 'number' &&
    isLayerRoot(value.root)
  );
}

function isLayerRoot(value: unknown): value is LayerRoot {
  return (
    isObject(value) &&
    typeof value.mode === 'number' &&
    typeof value.uid === 'number' &&
    typeof value.gid === 'number' &&
    typeof value.opaque === 'boolean'
  );
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** `FOLDER` is three below the store's folder for what is being written: `layer.…/new/tree`. */
const LEVELS = 3;

interface Wanted {
  readonly packing: Packing;
  readonly algorithm: DigestAlgorithm;
  readonly bounds: Bounds;
}

class ErofsSink implements LayerSink {
  readonly #folder: string;
  readonly #stream: Promise<IndexStream>;

  constructor(
    folder: string,
    { packing, algorithm, bounds }: Wanted,
    processFor: (root: string) => IndexProcess,
  ) {
    this.#folder = folder;
    let root = folder;
    let inside = '';
    for (let level = 0; level < LEVELS; level++) {
      inside = join(basename(root), inside);
      root = dirname(root);
    }
    const transform = transformOf(packing);
    this.#stream = processFor(root).begin({
      folder: `/${inside}`,
      compression: compressionOf(packing),
      algorithm,
      bounds,
      ...(transform === undefined ? {} : { transform }),
    });
    // Whoever writes, finishes or aborts hears of it.
    this.#stream.catch(() => {});
  }

  async write(chunk: Uint8Array): Promise<void> {
    await (await this.#stream).write(chunk);
  }

  async finish(): ReturnType<LayerSink['finish']> {
    const { diffId, bytes, entries } = await (await this.#stream).finish();
    return { diffId: parseDigest(diffId, 'layer'), bytes, entries };
  }

  async abort(): Promise<void> {
    try {
      await (await this.#stream).abort();
    } catch {
      // It never began, or the child is dead: then nobody writes there either.
    }
    removeTree(this.#folder);
  }
}
