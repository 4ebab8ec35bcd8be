/**
 * Unpacked layers by diff-id, each in its folder:
 *
 *   layers/<form>/<algorithm>/<hex>/tree/        what the form unpacked
 *   layers/<form>/<algorithm>/<hex>/layer.json   size, entries, and the boot it was committed in
 *   layers/<form>/<algorithm>/<hex>/synced       it is on the disk
 *
 * A layer is thousands of files; an fsync for each, or a syncfs that also waits for everybody else's data,
 * would be the slowest part of a fetch. So commit syncs nothing and notes the boot instead. In the same boot
 * a committed layer is whole, because the kernel's cache is; after a reboot one without `synced` may have
 * lost anything, is taken for absent, and is unpacked again from its verified blob. `settle` syncs what is
 * not yet synced, once for all, when nobody waits for it (docs/store.md has the figures).
 */
import {
  chmodSync,
  closeSync,
  constants,
  existsSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  writeFileSync,
} from 'node:fs';
import { errnoOf, systemError, TspodError } from '../errors.ts';
import { type Digest, digestAlgorithm, isDigest } from '../image/digest.ts';
import type { Packing } from '../image/oci.ts';
import { faultPoint } from '../sys/fault.ts';
import { native } from '../sys/native.ts';
import { DISK_FILE } from './disk-file.ts';
import { type Layout, unwritable } from './layout.ts';
import { LockWait, lockEntry } from './locks.ts';
import { removeTree } from './remove-tree.ts';
import { discard, moveToTrash } from './trash.ts';
import { treeDifference } from './tree-difference.ts';
import type { LayerForm, LayerSink, LayerStore } from './types.ts';

const RECORD_VERSION = 1;
export const LAYER_TMP_PREFIX = 'layer.';

export interface LayerInfo {
  /** bytes of the unpacked files */
  readonly bytes: number;
  readonly entries: number;
  /** /proc/sys/kernel/random/boot_id */
  readonly boot: string;
}

/** A layer's folder, wherever it is in the store. */
export interface LayerPlace {
  readonly form: string;
  readonly diffId: Digest;
  readonly path: string;
}

/** What the store itself needs beyond the interface. */
export interface Layers extends LayerStore {
  /** Undefined when the layer is not there. */
  info(diffId: Digest): LayerInfo | undefined;
}

type Unpacked = Awaited<ReturnType<LayerSink['finish']>>;
type LayerWriter = NonNullable<Awaited<ReturnType<LayerStore['open']>>>;

export function openLayerStore(layout: Layout, forms: readonly LayerForm[]): Layers {
  const find = (diffId: Digest) =>
    forms.find(
      form =>
        isTrusted(layout.layer(form.name, diffId)) &&
        // One that was unpacked before the kernel or the file system changed may be of no use now.
        (forms.length === 1 || form.unavailable() === undefined),
    );
  const held = (diffId: Digest) => {
    const form = find(diffId);
    if (form !== undefined) return { form, folder: `${layout.layer(form.name, diffId)}/tree` };
    throw new TspodError('store', `layer ${diffId}: it is not in the store`, {
      hint: 'fetch the image again',
    });
  };
  return {
    has: diffId => find(diffId) !== undefined,
    form: diffId => find(diffId)?.name,
    sealed(diffId) {
      const form = find(diffId);
      const folder = form && `${layout.layer(form.name, diffId)}/tree`;
      return form?.files?.every(name => native().hasVerity(`${folder}/${name}`)) ?? false;
    },
    tree(diffId) {
      const { form, folder } = held(diffId);
      return form.tree(folder);
    },
    root(diffId) {
      const { form, folder } = held(diffId);
      return form.root(folder);
    },
    expect() {
      layout.make();
      usable(forms).expect?.(layout.tmp);
    },
    async rest() {
      for (const form of forms) await form.rest?.();
    },
    async verify(diffId, packing, blob, inUse) {
      const form = find(diffId);
      if (form === undefined) return { state: 'absent' };
      const writer = lockLayer(layout, form, diffId, packing);
      if (writer === undefined) {
        throw new TspodError('store', `layer ${diffId}: another process is writing it`, {
          hint: 'verify it again later',
        });
      }
      return writer.verify(blob, inUse);
    },
    info(diffId) {
      const form = find(diffId);
      return form && readInfo(layout.layer(form.name, diffId));
    },
    async open(diffId, packing, onWait, signal) {
      const wait = new LockWait(onWait, signal);
      for (;;) {
        if (find(diffId) !== undefined) return undefined;
        const writer = lockLayer(layout, usable(forms), diffId, packing);
        if (writer !== undefined) {
          // Whoever held the lock before may have completed it between the look and the lock.
          if (find(diffId) === undefined) return writer.begin();
          writer.close();
          return undefined;
        }
        await wait.pause();
      }
    },
  };
}

function usable(forms: readonly LayerForm[]): LayerForm {
  const reasons: string[] = [];
  for (const form of forms) {
    const reason = form.unavailable();
    if (reason === undefined) return form;
    reasons.push(`${form.name}: ${reason}`);
  }
  throw new TspodError(
    'unsupported',
    `no form of layers can be used here: ${reasons.join(', ') || 'none was offered'}`,
  );
}

function lockLayer(
  layout: Layout,
  form: LayerForm,
  diffId: Digest,
  packing: Packing,
): PartialLayer | undefined {
  layout.make();
  const path = `${layout.tmp}/${LAYER_TMP_PREFIX}${form.name}.${diffId.replace(':', '.')}`;
  try {
    const fd = lockEntry(path, () => {
      makeIfMissing(path);
      return openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
    });
    return fd === undefined
      ? undefined
      : new PartialLayer({ layout, form, diffId, packing, path, fd });
  } catch (error) {
    // gc may have taken the folder away between mkdir and open.
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw unwritable(layout.dir, error);
  }
}

class PartialLayer {
  readonly #layout: Layout;
  readonly #form: LayerForm;
  readonly #diffId: Digest;
  readonly #packing: Packing;
  readonly #path: string;
  #fd: number | undefined;

  constructor(at: {
    layout: Layout;
    form: LayerForm;
    diffId: Digest;
    packing: Packing;
    path: string;
    fd: number;
  }) {
    this.#layout = at.layout;
    this.#form = at.form;
    this.#diffId = at.diffId;
    this.#packing = at.packing;
    this.#path = at.path;
    this.#fd = at.fd;
  }

  /** The folder that becomes the layer's. */
  get #folder(): string {
    return `${this.#path}/new`;
  }

  begin(): LayerWriter {
    const sink = this.#begin();
    return {
      write: async chunk => {
        this.#held();
        try {
          await sink.write(chunk);
        } catch (error) {
          throw systemError(`layer ${this.#diffId}: can't unpack`, error);
        }
      },
      commit: async () => {
        this.#held();
        try {
          await this.#place(await this.#finish(sink));
        } catch (error) {
          await this.#abort(sink);
          throw systemError(`layer ${this.#diffId}: can't unpack`, error);
        }
        this.close();
      },
      abort: async () => {
        if (this.#fd !== undefined) await this.#abort(sink);
      },
    };
  }

  /** See LayerStore.verify. */
  async verify(blob: AsyncIterable<Uint8Array>, inUse: boolean): ReturnType<LayerStore['verify']> {
    const sink = this.#begin();
    try {
      for await (const chunk of blob) await sink.write(chunk);
      const unpacked = await this.#finish(sink);
      const kept = `${this.#layout.layer(this.#form.name, this.#diffId)}/tree`;
      const times = this.#form.name === 'directory';
      const difference = treeDifference(kept, `${this.#folder}/tree`, { times });
      if (difference === undefined || inUse) {
        await this.#abort(sink);
        return difference === undefined ? { state: 'whole' } : { state: 'in-use', difference };
      }
      await this.#place(unpacked);
      this.close();
      return { state: 'rebuilt', difference };
    } catch (error) {
      if (this.#fd !== undefined) await this.#abort(sink);
      throw systemError(`layer ${this.#diffId}: can't verify`, error);
    }
  }

  #begin(): LayerSink {
    try {
      // What a killed writer left; its child may still be dying in there, so it gets a name of its own.
      discard(this.#layout, this.#folder);
      const tree = `${this.#folder}/tree`;
      mkdirSync(this.#folder, { mode: 0o700 });
      mkdirSync(tree);
      // The root of an image that has no entry for it; mkdir's mode is subject to the umask.
      chmodSync(tree, 0o755);
      faultPoint('store-layer-begin');
      return this.#form.begin(tree, this.#packing, digestAlgorithm(this.#diffId));
    } catch (error) {
      this.#remove();
      throw systemError(`layer ${this.#diffId}: can't unpack`, error);
    }
  }

  async #finish(sink: LayerSink): Promise<Unpacked> {
    const unpacked = await sink.finish();
    if (unpacked.diffId !== this.#diffId) {
      throw new TspodError(
        'digest',
        `layer ${this.#diffId}: its uncompressed content has the digest ${unpacked.diffId}`,
      );
    }
    faultPoint('store-layer-verified');
    return unpacked;
  }

  async #place(unpacked: Unpacked): Promise<void> {
    writeFileSync(
      `${this.#folder}/layer.json`,
      JSON.stringify({
        version: RECORD_VERSION,
        diffId: this.#diffId,
        bytes: unpacked.bytes,
        entries: unpacked.entries,
        boot: bootId(),
      }),
      { mode: 0o600 },
    );
    faultPoint('store-layer-recorded');
    this.#layout.makeLayerFolder(this.#form.name, this.#diffId);
    const final = this.#layout.layer(this.#form.name, this.#diffId);
    // One that an earlier boot did not get to the disk.
    const stale = moveToTrash(this.#layout, final);
    renameSync(this.#folder, final);
    faultPoint('store-layer-renamed');
    if (stale !== undefined) removeTree(stale);
  }

  async #abort(sink: LayerSink): Promise<void> {
    try {
      await sink.abort();
    } finally {
      this.#remove();
    }
  }

  #remove(): void {
    discard(this.#layout, this.#folder);
    this.close();
  }

  /** Lets go of the lock and of the empty folder that carried it. */
  close(): void {
    if (this.#fd === undefined) return;
    discard(this.#layout, this.#path);
    closeSync(this.#fd);
    this.#fd = undefined;
  }

  #held(): void {
    if (this.#fd === undefined) throw new Error('the layer writer was closed');
  }
}

/** Whether the layer in this folder can be used: it is on the disk, or was committed in this boot. */
export function isTrusted(path: string): boolean {
  return existsSync(`${path}/synced`) || readInfo(path)?.boot === bootId();
}

/** What removing the layer in this folder gives back. */
export function bytesOnDisk(path: string): number {
  const disk = lstatSync(`${path}/${DISK_FILE}`, { throwIfNoEntry: false })?.size ?? 0;
  return (readInfo(path)?.bytes ?? 0) + disk;
}

export function readInfo(path: string): LayerInfo | undefined {
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(`${path}/layer.json`, 'utf8'));
  } catch (error) {
    const errno = errnoOf(error);
    if (error instanceof SyntaxError || errno === 'ENOENT' || errno === 'ENOTDIR') return undefined;
    throw systemError(`can't read ${path}/layer.json`, error);
  }
  if (
    typeof value === 'object' &&
    value !== null &&
    'bytes' in value &&
    'entries' in value &&
    'boot' in value &&
    typeof value.bytes === 'number' &&
    typeof value.entries === 'number' &&
    typeof value.boot === 'string'
  ) {
    return { bytes: value.bytes, entries: value.entries, boot: value.boot };
  }
  return undefined;
}

/** Every layer's folder, of whichever form, also of forms that this version does not know. */
export function* layerPlaces(layout: Layout): Generator<LayerPlace> {
  for (const form of namesIn(layout.layersRoot)) {
    for (const algorithm of namesIn(`${layout.layersRoot}/${form}`)) {
      for (const hex of namesIn(`${layout.layersRoot}/${form}/${algorithm}`)) {
        const diffId = `${algorithm}:${hex}`;
        if (isDigest(diffId)) {
          yield { form, diffId, path: `${layout.layersRoot}/${form}/${algorithm}/${hex}` };
        }
      }
    }
  }
}

/** See Store.settle. */
export function settleLayers(layout: Layout): void {
  const pending = [...layerPlaces(layout)].filter(
    ({ path }) => !existsSync(`${path}/synced`) && isTrusted(path),
  );
  if (pending.length === 0) return;
  const fd = openSync(layout.root, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    native().syncfs(fd);
  } catch (error) {
    throw systemError("store: can't sync the layers to the disk", error);
  } finally {
    closeSync(fd);
  }
  faultPoint('store-settle-synced');
  for (const { path } of pending) {
    try {
      // The mark itself needs no sync: if it is lost, the layer is unpacked once more than needed.
      closeSync(openSync(`${path}/synced`, 'a', 0o600));
    } catch (error) {
      // gc in another process took the layer away.
      if (errnoOf(error) !== 'ENOENT') throw systemError(`can't mark ${path} as synced`, error);
    }
  }
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return [];
    throw systemError(`can't read ${folder}`, error);
  }
}

function makeIfMissing(path: string): void {
  if (lstatSync(path, { throwIfNoEntry: false }) !== undefined) return;
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST') throw error;
  }
}

let boot: string | undefined;

function bootId(): string {
  boot ??= readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
  return boot;
}
