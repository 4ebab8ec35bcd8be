/**
 * The members of a plain tar that holds images: one pass notes where each member's data begins, then blobs
 * are read from their places. Nothing is unpacked, and no name of the archive becomes a path of this machine.
 */
import { closeSync, readSync } from 'node:fs';
import { posix } from 'node:path';
import { systemError, TspodError } from '../../src/errors.ts';
import { showName, type TarEntry } from '../unpack/tar-entry.ts';
import { TarReader } from '../unpack/tar-reader.ts';
import type { LayoutFiles } from './layout-source.ts';

const CHUNK = 1024 * 1024;
/** Blobs of a thousand images; there are few other files. */
const MAX_MEMBERS = 100_000;
/** Bytes of all names, which are kept in memory. */
const MAX_NAMES = 16 * 1024 * 1024;
/** Docker made links to links of layers that several images share. */
const MAX_LINKS = 8;

interface Member {
  readonly offset: number;
  readonly size: number;
}

export interface ArchiveFiles extends LayoutFiles {
  /**
   * The regular file that a name leads to, through links within the archive; undefined when there is none.
   * @throws TspodError 'protocol' for a link that leads out of the archive, 'limit' for too many in a row
   */
  resolve(name: string): string | undefined;
}

/**
 * @param fd of a plain tar; closed by `close`, and when this throws
 * @param shown e.g. `image oci-archive:/x.tar`
 * @throws TspodError 'protocol' and 'limit'
 */
export function openArchiveFiles(fd: number, shown: string): ArchiveFiles {
  try {
    const { files, links } = indexArchive(fd, shown);
    return {
      resolve: name => resolveLinks(name, links, files, shown),
      size: name => files.get(name)?.size,
      async *read(name, offset) {
        const member = files.get(name);
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
      const why = error.message.replace(/^layer entry at offset 0: .*/s, 'it is no tar archive');
      throw new TspodError('protocol', `${shown}: not a tar of images: ${why}`);
    }
    throw systemError(`${shown}: can't read it`, error);
  }
}

interface Index {
  readonly files: ReadonlyMap<string, Member>;
  /** Hard and symbolic links: the member that is meant, or undefined for one outside of the archive. */
  readonly links: ReadonlyMap<string, string | undefined>;
}

function indexArchive(fd: number, shown: string): Index {
  const files = new Map<string, Member>();
  const links = new Map<string, string | undefined>();
  let nameBytes = 0;
  const reader = new TarReader({
    begin(entry) {
      if (entry.sparse) return;
      if (entry.type !== 'file' && entry.type !== 'symlink' && entry.type !== 'hardlink') return;
      const name = memberName(entry.name);
      if (files.has(name) || links.has(name)) {
        // Which of two is meant would depend on who reads it.
        throw new TspodError('protocol', `${shown}: ${showName(entry.name)} is in it twice`);
      }
      nameBytes += entry.name.length + entry.linkName.length;
      if (files.size + links.size >= MAX_MEMBERS) {
        throw new TspodError('limit', `${shown}: more than ${MAX_MEMBERS} files`);
      }
      if (nameBytes > MAX_NAMES) {
        throw new TspodError(
          'limit',
          `${shown}: the names of its files are over ${MAX_NAMES} bytes`,
        );
      }
      if (entry.type === 'file') files.set(name, { offset: entry.dataOffset, size: entry.size });
      else links.set(name, linkTarget(name, entry));
    },
    data() {},
    end() {},
  });
  const buffer = Buffer.allocUnsafe(CHUNK);
  for (let at = 0; ; ) {
    const got = readSync(fd, buffer, 0, buffer.length, at);
    if (got === 0) break;
    reader.write(buffer.subarray(0, got));
    at += got;
  }
  reader.end();
  return { files, links };
}

function memberName(name: Buffer): string {
  return name.toString('latin1').replace(/^(?:\.\/)+/, '');
}

function linkTarget(name: string, entry: TarEntry): string | undefined {
  const target = memberName(entry.linkName);
  if (target === '' || target.startsWith('/')) return undefined;
  const base = entry.type === 'symlink' ? posix.dirname(name) : '.';
  const meant = posix.join(base, target);
  return meant === '..' || meant.startsWith('../') ? undefined : meant;
}

function resolveLinks(
  name: string,
  links: Index['links'],
  files: Index['files'],
  shown: string,
): string | undefined {
  let at = name;
  for (let hops = 0; links.has(at); hops += 1) {
    if (hops === MAX_LINKS) {
      throw new TspodError(
        'limit',
        `${shown}: over ${MAX_LINKS} links in a row from ${quote(name)}`,
      );
    }
    const next = links.get(at);
    if (next === undefined) {
      throw new TspodError('protocol', `${shown}: ${quote(at)} is a link out of the archive`);
    }
    at = next;
  }
  return files.has(at) ? at : undefined;
}

function quote(text: string): string {
  return JSON.stringify(text.slice(0, 200));
}
