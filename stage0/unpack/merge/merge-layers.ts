/**
 * Layers as one tar without whiteouts, as overlayfs would show them, without a file system: a first pass over
 * the layers' tars learns their names, a second one passes on the members that are left. Folders come first,
 * the files of each layer follow in its own order, a file's other names right behind it. So the same layers
 * always give the same bytes, and no more is kept in memory than names.
 */
import { createHash, type Hash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { TspodError } from '../../../src/errors.ts';
import { type Digest, digestAlgorithm } from '../../../src/image/digest.ts';
import type { AciTransform, Compression } from '../../../src/image/oci.ts';
import { usedUp } from '../../../src/sys/scavenge.ts';
import { AciRewriter } from '../aci-rewrite.ts';
import type { Bounds } from '../bounds.ts';
import { decompress } from '../decompress.ts';
import { Budget } from '../erofs/budget.ts';
import type { TarEntry, TarHandler } from '../tar-entry.ts';
import { TarReader } from '../tar-reader.ts';
import { keptXattrs, LayerTree } from './layer-tree.ts';
import { type Merged, mergeTrees } from './merge-trees.ts';
import { memberHeader, padding, TAR_END } from './tar-member.ts';

/** Bound on the memory for the names of all layers. */
const MOST_MEMORY = 1024 ** 3;
const CHUNK = 1024 * 1024;

export interface MergedLayer {
  /** Of its blob, which is read from its beginning, twice. */
  readonly fd: number;
  readonly compression: Compression;
  readonly transform: AciTransform | undefined;
  readonly diffId: Digest;
}

export interface MergeOptions {
  readonly bounds: Bounds;
  /** In front of every name, e.g. `rootfs/`; '' for none. */
  readonly prefix: string;
  /** Takes what is written, at once. */
  readonly write: (piece: Uint8Array) => void;
  /** Called now and then. */
  readonly working: () => void;
}

/**
 * @param layers lowest first
 * @throws TspodError 'digest' for a layer that is another than its diff-id says, and as the tar reader
 */
export async function mergeLayers(
  layers: readonly MergedLayer[],
  options: MergeOptions,
): Promise<void> {
  const budget = new Budget(MOST_MEMORY);
  const trees: LayerTree[] = [];
  for (const layer of layers) {
    const tree = new LayerTree(budget);
    const hash = createHash(digestAlgorithm(layer.diffId));
    const reader = new TarReader(tree, options.bounds);
    for await (const piece of layerTar(layer, options)) {
      hash.update(piece);
      reader.write(piece);
    }
    reader.end();
    checkDiffId(layer, hash);
    trees.push(tree);
  }
  const merged = mergeTrees(trees);
  writeFolders(merged, options);
  for (const [index, layer] of layers.entries()) {
    const tree = trees[index];
    const names = merged.names[index];
    if (tree === undefined || names === undefined || names.size === 0) continue;
    const writer = new MemberWriter(tree, names, options);
    const reader = new TarReader(writer, options.bounds);
    for await (const piece of layerTar(layer, options)) reader.write(piece);
    reader.end();
    if (writer.written !== names.size) throw changed(layer);
  }
  options.write(TAR_END);
}

/** The layer's tar as it is. @throws as mergeLayers, once all of it is written */
export async function copyLayer(layer: MergedLayer, options: MergeOptions): Promise<void> {
  const hash = createHash(digestAlgorithm(layer.diffId));
  for await (const piece of layerTar(layer, options)) {
    hash.update(piece);
    options.write(piece);
  }
  checkDiffId(layer, hash);
}

/** What the blob holds, before anything is made of it. */
export async function copyDecompressed(layer: MergedLayer, options: MergeOptions): Promise<void> {
  const whole = { ...layer, transform: undefined };
  for await (const piece of layerTar(whole, options)) options.write(piece);
}

function checkDiffId({ diffId }: MergedLayer, hash: Hash): void {
  const actual = `${digestAlgorithm(diffId)}:${hash.digest('hex')}`;
  if (actual === diffId) return;
  throw new TspodError('digest', `layer ${diffId}: its blob gives ${actual}`, {
    hint: 'run "image verify", and fetch the image again',
  });
}

function changed({ diffId }: MergedLayer): TspodError {
  return new TspodError('store', `layer ${diffId}: its blob changed while it was read`);
}

/** The layer's tar, from its blob. */
async function* layerTar(
  { fd, compression, transform }: MergedLayer,
  { bounds, working }: Pick<MergeOptions, 'bounds' | 'working'>,
): AsyncGenerator<Buffer> {
  const input = createReadStream('', { fd, start: 0, autoClose: false, highWaterMark: CHUNK });
  const rewriter = transform && new AciRewriter(transform, { bounds });
  for await (const chunk of decompress(input, compression, bounds)) {
    if (rewriter === undefined) yield chunk;
    else yield* rewriter.write(chunk);
    usedUp(chunk.length);
    working();
  }
  if (rewriter !== undefined) yield* rewriter.end();
}

function writeFolders({ folders }: Merged, { prefix, write }: MergeOptions): void {
  for (const { path, attributes } of folders) {
    const name = path === '' ? prefix || './' : `${prefix}${path}/`;
    write(
      memberHeader({
        ...attributes,
        type: 'directory',
        name,
        linkName: '',
        size: 0,
        major: 0,
        minor: 0,
        segments: undefined,
      }),
    );
  }
}

/** Passes the members on whose names are left. */
class MemberWriter implements TarHandler {
  readonly #tree: LayerTree;
  readonly #names: Merged['names'][number];
  readonly #options: MergeOptions;
  #first: string | undefined;
  #others: readonly string[] = [];
  #bytes = 0;
  written = 0;

  constructor(tree: LayerTree, names: Merged['names'][number], options: MergeOptions) {
    this.#tree = tree;
    this.#names = names;
    this.#options = options;
  }

  begin(entry: TarEntry): void {
    this.#first = undefined;
    const inode = this.#tree.member(entry.offset);
    const names = inode && this.#names.get(inode);
    if (names === undefined) return;
    const [first, ...others] = names;
    if (first === undefined) return;
    this.written += 1;
    this.#first = first;
    this.#others = others;
    this.#bytes = 0;
    this.#write(entry, first, {
      type: entry.type,
      linkName: entry.type === 'symlink' ? entry.linkName.toString('latin1') : '',
      size: entry.size,
      segments: entry.sparse ? entry.segments : undefined,
    });
  }

  data(_: TarEntry, chunk: Uint8Array): void {
    if (this.#first === undefined) return;
    this.#bytes += chunk.length;
    this.#options.write(chunk);
  }

  end(entry: TarEntry): void {
    const first = this.#first;
    if (first === undefined) return;
    this.#options.write(padding(this.#bytes));
    for (const name of this.#others) {
      this.#write(entry, name, {
        type: 'hardlink',
        linkName: this.#options.prefix + first,
        size: 0,
        segments: undefined,
      });
    }
  }

  #write(
    entry: TarEntry,
    name: string,
    rest: Pick<Parameters<typeof memberHeader>[0], 'type' | 'linkName' | 'size' | 'segments'>,
  ): void {
    const { mode, uid, gid, major, minor, mtimeSec, mtimeNsec } = entry;
    this.#options.write(
      memberHeader({
        ...rest,
        name: this.#options.prefix + name,
        mode,
        uid,
        gid,
        major,
        minor,
        mtimeSec,
        mtimeNsec,
        // Another name is the same file, and has all of this already.
        xattrs: rest.type === 'hardlink' ? [] : keptXattrs(entry),
      }),
    );
  }
}
