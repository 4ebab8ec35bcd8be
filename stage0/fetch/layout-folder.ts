/**
 * The files of a layout folder. Each component below the folder is opened by itself and without following
 * links, by way of /proc/self/fd, so a layout from elsewhere can't lead to other files of this machine.
 */
import { closeSync, constants, createReadStream, fstatSync, openSync } from 'node:fs';
import { errnoOf, systemError, TspodError } from '../../src/errors.ts';
import type { LayoutFiles } from './layout-source.ts';

const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK } = constants;
const CHUNK = 1024 * 1024;

/** @throws TspodError 'not-found' when there is no such folder. */
export function openLayoutFolder(path: string): LayoutFiles {
  let root: number;
  try {
    root = openSync(path, O_RDONLY | O_DIRECTORY);
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === 'ENOENT') throw new TspodError('not-found', `image oci:${path}: no such folder`);
    if (errno === 'ENOTDIR') {
      throw new TspodError('not-found', `image oci:${path}: not a folder`, {
        hint: 'for an archive use oci-archive:',
      });
    }
    throw systemError(`image oci:${path}: can't open it`, error);
  }
  const open = (name: string) => openBelow(root, name, path);
  return {
    size(name) {
      const fd = open(name);
      if (fd === undefined) return undefined;
      try {
        return fstatSync(fd).size;
      } finally {
        closeSync(fd);
      }
    },
    async *read(name, offset) {
      const fd = open(name);
      if (fd === undefined) throw new TspodError('not-found', `image oci:${path}: ${name} is gone`);
      for await (const chunk of createReadStream('', { fd, start: offset, highWaterMark: CHUNK })) {
        yield chunk;
      }
    },
    close: () => closeSync(root),
  };
}

/** Undefined when it is not there. */
function openBelow(root: number, name: string, shown: string): number | undefined {
  const components = name.split('/');
  const last = components.pop() ?? '';
  let folder = root;
  try {
    for (const component of components) {
      const next = openSync(
        `/proc/self/fd/${folder}/${component}`,
        O_RDONLY | O_DIRECTORY | O_NOFOLLOW,
      );
      if (folder !== root) closeSync(folder);
      folder = next;
    }
    const fd = openSync(`/proc/self/fd/${folder}/${last}`, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    if (fstatSync(fd).isFile()) return fd;
    closeSync(fd);
    throw new TspodError('protocol', `image oci:${shown}: ${name} is not a regular file`);
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === 'ENOENT') return undefined;
    if (errno === 'ELOOP' || errno === 'ENOTDIR') {
      throw new TspodError('protocol', `image oci:${shown}: ${name} is a symbolic link or no file`);
    }
    throw systemError(`image oci:${shown}: can't open ${name}`, error);
  } finally {
    if (folder !== root) closeSync(folder);
  }
}
