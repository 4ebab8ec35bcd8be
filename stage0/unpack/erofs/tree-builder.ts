/**
 * From archive members to a layer's tree in memory, by the Extractor's rules: what a name means, what replaces
 * what, what a whiteout hides. What is kept of a member is its owner's to say.
 */
import { whiteoutKind } from '../overlay-xattrs.ts';
import { refused } from '../refusal.ts';
import { showName, type TarEntry } from '../tar-entry.ts';
import { components, Resolver } from '../tree-path.ts';
import type { Budget } from './budget.ts';
import { FolderInode, type Inode, SymlinkInode } from './inodes.ts';
import { isWhiteout, Tree, whiteout } from './tree.ts';

export interface Inodes {
  /** The inode of a file, link, device or FIFO. */
  make(entry: TarEntry): Inode;
  /** Owner, mode, times and attributes; of a folder perhaps several times, the last says. */
  describe(inode: Inode, entry: TarEntry): void;
}

export class TreeBuilder {
  readonly #tree: Tree;
  readonly #resolver: Resolver<FolderInode>;
  readonly #inodes: Inodes;

  constructor(budget: Budget, inodes: Inodes) {
    this.#tree = new Tree(budget);
    this.#resolver = new Resolver(this.#tree);
    this.#inodes = inodes;
  }

  get root(): FolderInode {
    return this.#tree.root;
  }

  /** @throws TspodError that says why the member can't be; the caller adds its name */
  add(entry: TarEntry): void {
    const parts = components(entry.name.toString('latin1'));
    if (parts === undefined) throw refused('its name leaves the root');
    const kind = whiteoutKind(parts);
    const base = parts.pop();
    switch (kind.kind) {
      case 'ignored':
        return;
      case 'malformed':
        throw refused('names that begin with .wh. are whiteouts, and this one hides nothing');
      case 'opaque':
        this.#resolver.folder(parts, true).opaque = true;
        return;
      case 'whiteout':
        this.#hide(this.#resolver.folder(parts, true), kind.name);
        return;
    }
    if (base !== undefined) this.#make(entry, this.#resolver.folder(parts, true), base);
    else if (entry.type === 'directory') this.#inodes.describe(this.#tree.root, entry);
    else throw refused('the entry for the root may only be a folder');
  }

  #make(entry: TarEntry, folder: FolderInode, name: string): void {
    const there = this.#tree.find(folder, name);
    if (entry.type === 'directory') {
      this.#makeFolder(entry, folder, name, there);
      return;
    }
    if (entry.type === 'hardlink') {
      this.#makeHardLink(entry, folder, name, there);
      return;
    }
    const inode = this.#inodes.make(entry);
    this.#inodes.describe(inode, entry);
    this.#replace(folder, name, there, inode);
  }

  #makeFolder(entry: TarEntry, parent: FolderInode, name: string, there: Inode | undefined): void {
    let folder: FolderInode;
    if (there instanceof FolderInode) folder = there;
    else if (there !== undefined && isWhiteout(there)) {
      folder = this.#tree.replaceWhiteout(parent, name);
    } else {
      folder = this.#tree.makeFolder(parent, name);
      if (there instanceof SymlinkInode) this.#resolver.forget();
    }
    this.#inodes.describe(folder, entry);
  }

  #makeHardLink(
    entry: TarEntry,
    folder: FolderInode,
    name: string,
    there: Inode | undefined,
  ): void {
    const parts = components(entry.linkName.toString('latin1'));
    const base = parts?.pop();
    if (parts === undefined || base === undefined) throw refused('its target leaves the root');
    const targetFolder = this.#resolver.folder(parts, false);
    const target = this.#tree.find(targetFolder, base);
    if (target === undefined || isWhiteout(target)) {
      throw refused(`its target ${showName(entry.linkName)} does not exist in the layer`);
    }
    if (target instanceof FolderInode) throw refused('its target is a folder');
    if (target === there) return; // it is that file
    if (there instanceof FolderInode && isBelow(targetFolder, there)) {
      throw refused(`its target ${showName(entry.linkName)} is in the folder that it replaces`);
    }
    this.#replace(folder, name, there, target);
  }

  #replace(folder: FolderInode, name: string, there: Inode | undefined, inode: Inode): void {
    this.#tree.put(folder, name, inode);
    // folders and links are what a path can lead through
    if (there instanceof FolderInode || there instanceof SymlinkInode) this.#resolver.forget();
  }

  /** Hides a name of the lower layers, never one of this layer. */
  #hide(folder: FolderInode, name: string): void {
    const there = this.#tree.find(folder, name);
    if (there === undefined) this.#tree.put(folder, name, whiteout());
    else if (there instanceof FolderInode) there.opaque = true;
  }
}

function isBelow(folder: FolderInode, above: FolderInode): boolean {
  let at = folder;
  while (at !== above) {
    if (at === at.parent) return false;
    at = at.parent;
  }
  return true;
}
