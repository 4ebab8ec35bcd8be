/**
 * One archive member as the reader hands it on. Names are bytes, because tar does not say in which
 * encoding they are and a file system does not care.
 */
export type TarEntryType =
  | 'file'
  | 'hardlink'
  | 'symlink'
  | 'char'
  | 'block'
  | 'directory'
  | 'fifo';

export interface TarXattr {
  /** The full name, e.g. `user.comment`; one character per byte. */
  readonly name: string;
  readonly value: Uint8Array;
}

export interface TarEntry {
  readonly type: TarEntryType;
  readonly name: Buffer;
  /** Target of a hard or symbolic link, else empty. */
  readonly linkName: Buffer;
  /** Permission bits with setuid, setgid and sticky: 0 to 0o7777. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Bytes of the file as it will be on disk, holes included; 0 for everything but files. */
  readonly size: number;
  readonly major: number;
  readonly minor: number;
  readonly mtimeSec: number;
  readonly mtimeNsec: number;
  /** The archive's access time, or the modification time where it has none. */
  readonly atimeSec: number;
  readonly atimeNsec: number;
  readonly xattrs: readonly TarXattr[];
  /** Whether data comes in segments with holes between them. */
  readonly sparse: boolean;
  /** Of a sparse file: offset, length, offset, length, … of its data, ascending; else empty. */
  readonly segments: readonly number[];
  /** Where the member's header begins in the uncompressed archive. */
  readonly offset: number;
  /** Where its data begins there: a multiple of 512. */
  readonly dataOffset: number;
}

/** Who takes what the reader finds. All calls are synchronous; chunks are views, valid during the call. */
export interface TarHandler {
  begin(entry: TarEntry): void;
  /** File data in ascending, non-overlapping pieces; `position` is where it goes in the file. */
  data(entry: TarEntry, chunk: Uint8Array, position: number): void;
  /** All data of the entry has come. */
  end(entry: TarEntry): void;
}

/** A name for an error message: printable, quoted, cut to a bearable length. */
export function showName(name: Uint8Array): string {
  const text = Buffer.from(name.buffer, name.byteOffset, Math.min(name.length, 200)).toString(
    'utf8',
  );
  return JSON.stringify(name.length > 200 ? `${text}…` : text);
}
