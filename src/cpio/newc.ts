/**
 * Writer of cpio archives in the "newc" form, which the kernel unpacks as its initial file system
 * (Documentation/driver-api/early-userspace/buffer-format.rst of Linux). Archives may follow each other.
 */

export type CpioEntry = {
  /** Without a leading slash; parents come first. */
  readonly name: string;
  /** Permission bits. */
  readonly mode: number;
} & (
  | { readonly type: 'folder' }
  | { readonly type: 'file'; readonly content: Uint8Array }
  | { readonly type: 'symlink'; readonly target: string }
  | { readonly type: 'character-device'; readonly major: number; readonly minor: number }
);

const TYPE_BITS = {
  folder: 0o040000,
  file: 0o100000,
  symlink: 0o120000,
  'character-device': 0o020000,
} as const;
const MAX_FIELD = 0xffff_ffff;
/** PATH_MAX of the kernel that reads it, with the NUL. */
const MAX_NAME = 4096;
const END = 'TRAILER!!!';

/**
 * Everything belongs to root and has no time, so equal entries are equal bytes.
 * @returns one whole archive, its length a multiple of 4
 * @throws RangeError for a name or content that the form has no room for
 */
export function cpioArchive(entries: Iterable<CpioEntry>): Buffer {
  const parts: Uint8Array[] = [];
  let inode = 1;
  for (const entry of entries) {
    const folder = entry.type === 'folder';
    parts.push(
      ...record(
        entry.name,
        {
          inode,
          mode: TYPE_BITS[entry.type] | (entry.mode & 0o7777),
          links: folder ? 2 : 1,
          major: entry.type === 'character-device' ? entry.major : 0,
          minor: entry.type === 'character-device' ? entry.minor : 0,
        },
        contentOf(entry),
      ),
    );
    inode += 1;
  }
  parts.push(...record(END, { inode: 0, mode: 0, links: 1, major: 0, minor: 0 }, EMPTY));
  return Buffer.concat(parts);
}

const EMPTY = new Uint8Array();

function contentOf(entry: CpioEntry): Uint8Array {
  if (entry.type === 'file') return entry.content;
  return entry.type === 'symlink' ? Buffer.from(entry.target) : EMPTY;
}

function record(
  name: string,
  about: {
    readonly inode: number;
    readonly mode: number;
    readonly links: number;
    readonly major: number;
    readonly minor: number;
  },
  content: Uint8Array,
): readonly Uint8Array[] {
  const bytes = Buffer.from(`${name}\0`);
  if (bytes.length > MAX_NAME || name === '' || bytes.indexOf(0) !== bytes.length - 1)
    throw new RangeError(`cpio: ${JSON.stringify(name.slice(0, 100))} is no name`);
  const fields = [
    about.inode,
    about.mode,
    0, // owner
    0, // group
    about.links,
    0, // time
    content.length,
    0, // device of the file itself
    0,
    about.major,
    about.minor,
    bytes.length,
    0, // checksum, of another form
  ];
  const head = fields.map(field => {
    if (field > MAX_FIELD) throw new RangeError(`cpio: ${name} is too large`);
    return field.toString(16).padStart(8, '0');
  });
  const front = Buffer.concat([Buffer.from(`070701${head.join('')}`), bytes]);
  return [front, padding(front.length), content, padding(content.length)];
}

function padding(length: number): Uint8Array {
  return new Uint8Array(-length & 3);
}
