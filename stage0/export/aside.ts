/** Results of an export appear whole or not at all: written beside their place, fsynced, renamed. */
import {
  closeSync,
  constants,
  existsSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  realpathSync,
  renameSync,
  rmSync,
} from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { errnoOf, systemError, TspodError } from '../../src/errors.ts';
import { removeTree } from '../../src/store/remove-tree.ts';
import { native } from '../../src/sys/native.ts';

function besides(path: string): string {
  return join(dirname(path), `.${basename(path)}.tspod-${process.pid}`);
}

/** @throws TspodError 'usage' with rkt's message when it is there and may not be replaced */
export function checkTarget(what: string, path: string, overwrite: boolean): void {
  if (!existsSync(path)) return;
  if (overwrite) {
    // What is replaced goes with all that is in it.
    const inside = `${realpathSync(path)}/`.replace('//', '/');
    if (!`${process.cwd()}/`.startsWith(inside)) return;
    throw new TspodError('usage', `${what}: can't replace ${path}: the working folder is in it`);
  }
  const kind = what === 'image export' ? 'file' : 'directory';
  throw new TspodError('usage', `${what}: output ${kind} exists (try --overwrite)`);
}

/** `write` fills a new file; it takes the place of `path` when it is on the disk. */
export async function writeFileAside(
  path: string,
  write: (fd: number) => Promise<void>,
): Promise<void> {
  const target = resolve(path);
  if (lstatSync(target, { throwIfNoEntry: false })?.isDirectory()) {
    throw new TspodError('usage', `can't write ${path}: it is a folder`);
  }
  const aside = besides(target);
  let fd: number;
  try {
    fd = openSync(aside, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o644);
  } catch (error) {
    throw noFolder(path, error) ?? systemError(`can't write ${path}`, error);
  }
  try {
    await write(fd);
    fsyncSync(fd);
    renameSync(aside, target);
    native().fsync(dirname(target));
  } catch (error) {
    rmSync(aside, { force: true });
    throw systemError(`can't write ${path}`, error, 'free space there, or choose another place');
  } finally {
    closeSync(fd);
  }
}

/** `fill` makes what becomes the folder `path`, in a new folder that it is given. */
export async function makeFolderAside(
  path: string,
  fill: (folder: string) => Promise<void>,
): Promise<void> {
  const target = resolve(path);
  const aside = besides(target);
  const old = `${aside}.old`;
  try {
    mkdirSync(aside, { mode: 0o755 });
    await fill(aside);
    if (existsSync(target)) renameSync(target, old);
    renameSync(aside, target);
  } catch (error) {
    if (existsSync(old) && !existsSync(target)) renameSync(old, target);
    removeTree(aside);
    throw noFolder(path, error) ?? systemError(`can't make ${path}`, error);
  }
  removeTree(old);
}

function noFolder(path: string, error: unknown): TspodError | undefined {
  const folder = dirname(resolve(path));
  if (errnoOf(error) !== 'ENOENT' || existsSync(folder)) return undefined;
  return new TspodError('not-found', `can't write ${path}: there is no folder ${folder}`);
}
