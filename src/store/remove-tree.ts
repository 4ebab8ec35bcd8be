/**
 * Removes a tree that an image brought. Its names are bytes, its modes are anything, and it may be deeper
 * than a path can say, so neither fs.rmSync nor a path in UTF-8 will do. No symbolic link is followed, and
 * no mount point entered: what is removed lies in a folder of the store that nobody else can write to.
 */
import { chmodSync, lstatSync, readdirSync, renameSync, rmdirSync, unlinkSync } from 'node:fs';
import { errnoOf, reasonOf } from '../errors.ts';

/** PATH_MAX is 4096 with the final NUL; one more name (255) and a slash have to fit. */
const LONGEST_PATH = 4096 - 257;
const SLASH = Buffer.from('/');

/**
 * Removes `root` (file, link or tree; need not exist).
 * @returns why something could not be removed, one sentence each, at most `maxFailures`
 */
export function removeTree(root: string, maxFailures = 10): readonly string[] {
  const removal = new Removal(root, maxFailures);
  removal.run();
  return removal.failures;
}

class Removal {
  readonly failures: string[] = [];
  readonly #root: string;
  readonly #maxFailures: number;
  readonly #device: bigint | undefined;
  readonly #isFolder: boolean;
  readonly #isRoot = process.geteuid?.() === 0;
  /** Trees that lay too deep and were moved beside the root. */
  readonly #moved: Buffer[] = [];
  #moves = 0;

  constructor(root: string, maxFailures: number) {
    this.#root = root;
    this.#maxFailures = maxFailures;
    const stat = lstatSync(root, { bigint: true, throwIfNoEntry: false });
    this.#device = stat?.dev;
    this.#isFolder = stat?.isDirectory() ?? false;
  }

  run(): void {
    if (this.#device === undefined) return;
    const root = Buffer.from(this.#root);
    if (!this.#isFolder) {
      this.#try(root, () => unlinkSync(root));
      return;
    }
    this.#folder(root);
    for (let tree = this.#moved.pop(); tree !== undefined; tree = this.#moved.pop()) {
      this.#folder(tree);
    }
  }

  #folder(path: Buffer): void {
    const before = this.failures.length;
    // Somebody who was killed a moment ago may still finish a last system call in here.
    for (let attempt = 0; attempt < 3; attempt++) {
      if (!this.#empty(path)) return;
      try {
        rmdirSync(path);
        return;
      } catch (error) {
        const errno = errnoOf(error);
        if (errno === 'ENOENT') return;
        if (this.failures.length > before) return;
        if ((errno !== 'ENOTEMPTY' && errno !== 'EEXIST') || attempt === 2) {
          this.#fail(path, error);
          return;
        }
      }
    }
  }

  /** False when the folder is none of ours to empty. */
  #empty(path: Buffer): boolean {
    let entries: ReturnType<typeof list>;
    try {
      const stat = lstatSync(path, { bigint: true });
      if (!stat.isDirectory()) return false;
      if (stat.dev !== this.#device) {
        this.#fail(path, new Error('something is mounted there'));
        return false;
      }
      // Root passes every mode; anybody else only what he may read, write and enter.
      if (!this.#isRoot && (stat.mode & 0o700n) !== 0o700n) chmodSync(path, 0o700);
      entries = list(path);
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') this.#fail(path, error);
      return false;
    }
    for (const entry of entries) {
      const child = Buffer.concat([path, SLASH, entry.name]);
      if (!entry.isDirectory()) this.#try(child, () => unlinkSync(child));
      else if (child.length < LONGEST_PATH) this.#folder(child);
      else this.#moveUp(child);
    }
    return true;
  }

  #moveUp(path: Buffer): void {
    const target = Buffer.from(`${this.#root}.deep${this.#moves++}`);
    this.#try(path, () => {
      renameSync(path, target);
      this.#moved.push(target);
    });
  }

  #try(path: Buffer, action: () => void): void {
    try {
      action();
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') this.#fail(path, error);
    }
  }

  #fail(path: Buffer, error: unknown): void {
    if (this.failures.length >= this.#maxFailures) return;
    const hint = errnoOf(error) === 'EPERM' ? ' (is it immutable? see lsattr and chattr)' : '';
    this.failures.push(`can't remove ${path.toString()}: ${reasonOf(error)}${hint}`);
  }
}

function list(path: Buffer) {
  return readdirSync(path, { withFileTypes: true, encoding: 'buffer' });
}
