/**
 * What layers' trees show together, as overlayfs would: a folder is merged from the topmost layer down to the
 * first that hides what is below (another type, a whiteout, an opaque folder). Nothing is followed.
 */
import { FolderInode, type Inode } from '../erofs/inodes.ts';
import { isWhiteout } from '../erofs/tree.ts';
import { type FolderAttributes, type LayerTree, UNNAMED_FOLDER } from './layer-tree.ts';

export interface MergedFolder {
  /** Relative, one character per byte; '' for the root. */
  readonly path: string;
  readonly attributes: FolderAttributes;
}

export interface Merged {
  /** In an order in which none comes before the one that it is in. */
  readonly folders: readonly MergedFolder[];
  /** For each layer, lowest first: the names that are left of each of its files, in order of bytes. */
  readonly names: readonly ReadonlyMap<Inode, readonly string[]>[];
}

/** One layer's folder. */
interface Part {
  readonly layer: number;
  readonly folder: FolderInode;
}

/** @param layers lowest first */
export function mergeTrees(layers: readonly LayerTree[]): Merged {
  const merger = new Merger(layers);
  merger.merge(layers.map((tree, layer) => ({ layer, folder: tree.root })).reverse(), '');
  return { folders: merger.folders, names: merger.names };
}

class Merger {
  readonly folders: MergedFolder[] = [];
  readonly names: Map<Inode, string[]>[];
  readonly #layers: readonly LayerTree[];

  constructor(layers: readonly LayerTree[]) {
    this.#layers = layers;
    this.names = layers.map(() => new Map());
  }

  /** @param parts topmost first */
  merge(parts: readonly Part[], path: string): void {
    this.folders.push({ path, attributes: this.#attributes(parts, path) });
    const shown = new Map<
      string,
      { readonly layer: number; readonly inode: Inode; parts: Part[] }
    >();
    const closed = new Set<string>();
    for (const { layer, folder } of parts) {
      for (const [name, inode] of folder.children) {
        if (closed.has(name)) continue;
        if (isWhiteout(inode)) {
          closed.add(name);
          continue;
        }
        const above = shown.get(name);
        const isFolder = inode instanceof FolderInode;
        if (isFolder) {
          const part = { layer, folder: inode };
          if (above === undefined) shown.set(name, { layer, inode, parts: [part] });
          else above.parts.push(part);
        } else if (above === undefined) {
          shown.set(name, { layer, inode, parts: [] });
        }
        if (!isFolder || inode.opaque) closed.add(name);
      }
      if (folder.opaque) break;
    }
    for (const [name, { layer, inode, parts: below }] of [...shown].sort(byName)) {
      const inner = path === '' ? name : `${path}/${name}`;
      if (inode instanceof FolderInode) this.merge(below, inner);
      else this.#name(layer, inode, inner);
    }
  }

  #name(layer: number, inode: Inode, path: string): void {
    const names = this.names[layer]?.get(inode);
    if (names === undefined) this.names[layer]?.set(inode, [path]);
    else names.push(path);
  }

  #attributes(parts: readonly Part[], path: string): FolderAttributes {
    const all = parts.map(({ layer, folder }) => this.#layers[layer]?.attributes(folder));
    if (path !== '') return all[0] ?? UNNAMED_FOLDER;
    // The topmost layer with an entry for its root decides, where that says anything.
    return (
      all.find(one => one !== undefined && !isDefault(one)) ??
      all.find(one => one) ??
      UNNAMED_FOLDER
    );
  }
}

function isDefault({ mode, uid, gid }: FolderAttributes): boolean {
  return mode === 0o755 && uid === 0 && gid === 0;
}

function byName([a]: readonly [string, unknown], [b]: readonly [string, unknown]): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
