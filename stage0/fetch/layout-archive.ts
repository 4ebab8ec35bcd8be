/**
 * The files of a layout in a plain tar: one pass notes where each member's data begins, then blobs are read
 * from their places. Nothing is unpacked.
 */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { errnoOf, systemError, TspodError } from '../../src/errors.ts';
import { showName } from '../unpack/tar-entry.ts';
import { TarReader } from '../unpack/tar-reader.ts';
import type { LayoutFiles } from './layout-source.ts';

const { O_RDONLY, O_NONBLOCK } = constants;
const CHUNK = 1024 * 1024;
/** Blobs of a thousand images; a layout has few other files. */
const MAX_MEMBERS = 100_000;

interface Member {
  offset: number;
  readonly size: number;
}

/** @throws TspodError 'not-found', 'protocol', and what the tar reader throws. */
export function openLayoutArchive(path: string): LayoutFiles {
  const shown = `image oci-archive:${path}`;
  let fd: number;
  try {
    fd = openSync(path, O_RDONLY | O_NONBLOCK);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') throw new TspodError('not-found', `${shown}: no such file`);
    throw systemError(`${shown}: can't open it`, error);
  }
  try {
    if (!fstatSync(fd).isFile()) throw new TspodError('not-found', `${shown}: not a regular file`);
    const members = indexArchive(fd, shown);
    return {
      size: name => members.get(name)?.size,
      async *read(name, offset) {
        const member = members.get(name);
        if (member === undefined || offset >= member.size) return;
        // Not a stream: one closes the descriptor when its reader stops early.
        const end = member.offset + member.size;
        for (let at = member.offset + offset; at < end; ) {
          const chunk = Buffer.allocUnsafe(Math.min(CHUNK, end - at));
          const got = readSync(fd, chunk, 0, chunk.length, at);
          if (got === 0) return;
          yield chunk.subarray(0, got);
          at += got;
        }
      },
      close: () => closeSync(fd),
    };
  } catch (error) {
    closeSync(fd);
    if (error instanceof TspodError && error.code === 'unpack') {
      throw new TspodError(
        'protocol',
        `${shown}: not a plain tar of an OCI layout: ${error.message}`,
      );
    }
    throw systemError(`${shown}: can't read it`, error);
  }
}

function indexArchive(fd: number, shown: string): ReadonlyMap<string, Member> {
  const members = new Map<string, Member>();
  const buffer = Buffer.allocUnsafe(CHUNK);
  let before = 0;
  let current: Member | undefined;
  const reader = new TarReader({
    begin(entry) {
      current = undefined;
      if (entry.type !== 'file' || entry.sparse) return;
      const name = entry.name.toString('latin1').replace(/^(?:\.\/)+/, '');
      if (members.has(name)) {
        // Which of two is meant would depend on who reads it.
        throw new TspodError('protocol', `${shown}: ${showName(entry.name)} is in it twice`);
      }
      if (members.size >= MAX_MEMBERS) {
        throw new TspodError('limit', `${shown}: more than ${MAX_MEMBERS} files`);
      }
      current = { offset: -1, size: entry.size };
      members.set(name, current);
    },
    data(_entry, chunk) {
      // A view of the buffer: its place in it is its place in the file.
      if (current?.offset === -1) current.offset = before + chunk.byteOffset - buffer.byteOffset;
    },
    end() {
      current = undefined;
    },
  });
  for (;;) {
    const got = readSync(fd, buffer, 0, buffer.length, before);
    if (got === 0) break;
    reader.write(buffer.subarray(0, got));
    before += got;
  }
  reader.end();
  return members;
}
