/** A layer's tree in memory as the resolver walks it, with the rules of names that a file system has. */
import { refused } from '../refusal.ts';
import type { FolderView, Step } from '../tree-path.ts';
import { type Budget, FOLDER_BYTES, INODE_BYTES } from './budget.ts';
import { S_IFCHR, S_IFDIR } from './format.ts';
import { FolderInode, type Inode, SpecialInode, SymlinkInode } from './inodes.ts';

const NAME_MAX = 255;
/** PATH_MAX without its NUL. */
const PATH_BYTES = 4095;

export class Tree implements FolderView<FolderInode> {
  readonly root = new FolderInode(S_IFDIR | 0o755);
  readonly #budget: Budget;

  constructor(budget: Budget) {
    this.#budget = budget;
  }

  enter(folder: FolderInode, name: string, make: boolean): Step<FolderInode> {
    const found = this.find(folder, name);
    if (found instanceof FolderInode) return { folder: found };
    if (found instanceof SymlinkInode) return { link: found.target };
    if (found === undefined) return make ? { folder: this.makeFolder(folder, name) } : 'missing';
    if (!make || !isWhiteout(found)) return 'not-a-folder';
    return { folder: this.replaceWhiteout(folder, name) };
  }

  /** @throws TspodError for a name that no file system takes */
  find(folder: FolderInode, name: string): Inode | undefined {
    const found = folder.children.get(name);
    if (found !== undefined) return found;
    if (name.length > NAME_MAX) throw refused(`a name in it is longer than ${NAME_MAX} bytes`);
    if (folder.pathBytes + 1 + name.length > PATH_BYTES) {
      throw refused(`its path is longer than ${PATH_BYTES} bytes`);
    }
    return undefined;
  }

  makeFolder(parent: FolderInode, name: string): FolderInode {
    const folder = new FolderInode(S_IFDIR | 0o755, parent, name);
    this.put(parent, name, folder);
    return folder;
  }

  /** A folder of a layer that also hides the lower layers' entry of that name shows nothing of theirs. */
  replaceWhiteout(parent: FolderInode, name: string): FolderInode {
    const folder = this.makeFolder(parent, name);
    folder.opaque = true;
    return folder;
  }

  /** @throws TspodError 'limit' when there is no memory for it */
  put(folder: FolderInode, name: string, inode: Inode): void {
    const own = inode instanceof FolderInode ? FOLDER_BYTES : INODE_BYTES;
    this.#budget.take(own + name.length + (inode instanceof SymlinkInode ? inode.size : 0));
    folder.children.set(owned(name), inode);
  }
}

export function isWhiteout(inode: Inode): boolean {
  return inode instanceof SpecialInode && inode.mode === S_IFCHR && inode.rdev === 0;
}

export function whiteout(): SpecialInode {
  return new SpecialInode(S_IFCHR, 0);
}

/** A copy that does not keep the whole path alive, as V8's pieces of 13 characters and more do. */
function owned(name: string): string {
  if (name.length < 13) return name;
  return Buffer.from(name, 'latin1').toString('latin1');
}
