/**
 * Where things lie below the data folder, and who may look at them. The format's version is part of the
 * path (cas/v1), so that two versions of tspod never read each other's files by accident.
 *
 * Every folder of the store is 0700: a layer holds setuid programs of an image, which no user of the
 * host may reach by a path (CVE-2021-41091, CVE-2024-25621). The modes are checked at each opening.
 * Nothing is made before the first write.
 */
import { existsSync, lstatSync, mkdirSync, type Stats } from 'node:fs';
import { dirname, join } from 'node:path';
import { errnoOf, systemError, TspodError } from '../errors.ts';
import { type Digest, digestAlgorithm, digestHex } from '../image/digest.ts';
import { native } from '../sys/native.ts';

export class Layout {
  /** The data folder, absolute. */
  readonly dir: string;
  readonly root: string;
  readonly tmp: string;
  readonly leases: string;
  readonly images: string;
  readonly database: string;
  readonly lock: string;
  #made = false;

  constructor(dir: string) {
    this.dir = dir;
    this.root = join(dir, 'cas/v1');
    this.tmp = join(this.root, 'tmp');
    this.leases = join(this.root, 'leases');
    this.images = join(this.root, 'images');
    this.database = join(this.root, 'store.db');
    this.lock = join(this.root, 'lock');
  }

  get blobsRoot(): string {
    return join(this.root, 'blobs');
  }

  get layersRoot(): string {
    return join(this.root, 'layers');
  }

  blob(digest: Digest): string {
    return `${this.root}/blobs/${digestAlgorithm(digest)}/${digestHex(digest)}`;
  }

  layer(form: string, diffId: Digest): string {
    return `${this.root}/layers/${form}/${digestAlgorithm(diffId)}/${digestHex(diffId)}`;
  }

  imageRecord(id: Digest): string {
    return `${this.images}/${id.replace(':', '-')}.json`;
  }

  /**
   * Refuses folders that others could look or write into.
   * @throws TspodError 'store' naming the folder and the command that mends it.
   */
  check(): void {
    // The data folder may be the administrator's own; only what lies below cas is ours alone.
    if (!checkFolder(this.dir, 0o022)) return;
    for (const folder of [join(this.dir, 'cas'), this.root]) {
      if (!checkFolder(folder, 0o066)) return;
    }
    for (const folder of [this.blobsRoot, this.layersRoot, this.tmp, this.leases, this.images]) {
      checkFolder(folder, 0o066);
    }
  }

  /** Makes the folders that are not there yet, durably. */
  make(): void {
    if (this.#made) return;
    // The one that is made last: this is on the way of every run.
    if (existsSync(this.layersRoot)) {
      this.#made = true;
      return;
    }
    try {
      if (!isFolder(this.dir)) {
        mkdirSync(dirname(this.dir), { recursive: true });
        makeFolder(this.dir);
      }
      makeFolder(join(this.dir, 'cas'));
      makeFolder(this.root);
      for (const folder of [
        this.tmp,
        this.leases,
        this.images,
        this.blobsRoot,
        join(this.blobsRoot, 'sha256'),
        join(this.blobsRoot, 'sha512'),
        this.layersRoot,
      ]) {
        makeFolder(folder);
      }
    } catch (error) {
      throw unwritable(this.dir, error);
    }
    this.#made = true;
  }

  /** The folder of one form's layers with one algorithm. */
  makeLayerFolder(form: string, diffId: Digest): void {
    this.make();
    makeFolder(join(this.layersRoot, form));
    makeFolder(join(this.layersRoot, form, digestAlgorithm(diffId)));
  }
}

/** The error for a data folder that can't be written. */
export function unwritable(dir: string, error: unknown): TspodError {
  const errno = errnoOf(error);
  const hint =
    errno === 'EACCES' || errno === 'EPERM' || errno === 'EROFS' || errno === 'ENOTDIR'
      ? 'run as root or choose another data folder with --dir'
      : undefined;
  return systemError(`can't write to the data folder ${dir}`, error, hint);
}

/** A folder that only its owner can enter; the entry in its parent is made durable. */
function makeFolder(path: string): void {
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    if (errnoOf(error) === 'EEXIST') return;
    throw error;
  }
  native().fsync(dirname(path));
}

function isFolder(path: string): boolean {
  try {
    return lstatSync(path).isDirectory();
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false;
    throw error;
  }
}

/** False when there is no such folder. */
function checkFolder(path: string, forbidden: number): boolean {
  let stat: Stats | undefined;
  try {
    stat = lstatSync(path, { throwIfNoEntry: false });
  } catch (error) {
    throw systemError(
      `can't open the data folder ${path}`,
      error,
      'run as root or choose another data folder with --dir',
    );
  }
  if (stat === undefined) return false;
  if (!stat.isDirectory()) {
    throw new TspodError('store', `can't use the data folder: ${path} is not a folder`, {
      hint: 'choose another data folder with --dir',
    });
  }
  const user = process.geteuid?.() ?? 0;
  if (stat.uid !== user && stat.uid !== 0) {
    throw new TspodError('store', `refusing the data folder: ${path} belongs to user ${stat.uid}`, {
      hint: `make it your own with "chown ${user} ${path}"`,
    });
  }
  if ((stat.mode & forbidden) !== 0) {
    const mode = (stat.mode & 0o7777).toString(8).padStart(4, '0');
    throw new TspodError(
      'store',
      `refusing the data folder: ${path} has mode ${mode}, so others can get in`,
      {
        hint: `close it with "chmod ${forbidden === 0o022 ? 'go-w' : '0700'} ${path}"`,
      },
    );
  }
  return true;
}
