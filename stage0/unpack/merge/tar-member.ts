/**
 * Headers of a tar that we write: POSIX ustar, with a PAX header before it for whatever its fields can't hold
 * (POSIX.1-2017, pax; extended attributes under SCHILY.xattr., sparse files in GNU tar's format 1.0). The same
 * member always gives the same bytes.
 */
import type { TarEntryType, TarXattr } from '../tar-entry.ts';

export interface Member {
  readonly type: TarEntryType;
  /** One character per byte. */
  readonly name: string;
  /** Of a link; one character per byte. */
  readonly linkName: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Bytes of the file, holes included. */
  readonly size: number;
  readonly major: number;
  readonly minor: number;
  readonly mtimeSec: number;
  readonly mtimeNsec: number;
  readonly xattrs: readonly TarXattr[];
  /** Of a sparse file: offset, length, offset, length, … of what it has of data. */
  readonly segments: readonly number[] | undefined;
}

const BLOCK = 512;
const NAME_FIELD = 100;
const FLAGS: Readonly<Record<TarEntryType, string>> = {
  file: '0',
  hardlink: '1',
  symlink: '2',
  char: '3',
  block: '4',
  directory: '5',
  fifo: '6',
};

/** The two blocks that end an archive. */
export const TAR_END: Buffer = Buffer.alloc(2 * BLOCK);

const PLAIN: Omit<Member, 'type' | 'name'> = {
  linkName: '',
  mode: 0o644,
  uid: 0,
  gid: 0,
  size: 0,
  major: 0,
  minor: 0,
  mtimeSec: 0,
  mtimeNsec: 0,
  xattrs: [],
  segments: undefined,
};

/** A plain file of root's, of the year 1970: what describes an image in an archive. */
export function plainFile(name: string, size: number): Buffer {
  return memberHeader({ ...PLAIN, type: 'file', name, size });
}

/** What follows `size` bytes of data. */
export function padding(size: number): Buffer {
  return TAR_END.subarray(0, (BLOCK - (size % BLOCK)) % BLOCK);
}

/** Everything before the member's data. For a sparse file the data that follows is that of its segments only. */
export function memberHeader(member: Member): Buffer {
  const records: Buffer[] = [];
  const block = Buffer.alloc(BLOCK);
  const map = member.segments === undefined ? undefined : sparseMap(member.segments);
  if (map === undefined) {
    text(block, 0, NAME_FIELD, member.name, 'path', records);
  } else {
    record(records, 'GNU.sparse.major', '1');
    record(records, 'GNU.sparse.minor', '0');
    record(records, 'GNU.sparse.name', member.name);
    record(records, 'GNU.sparse.realsize', String(member.size));
    block.write(member.name.slice(-NAME_FIELD), 0, NAME_FIELD, 'latin1');
  }
  number(block, 100, 8, member.mode);
  id(block, 108, 'uid', member.uid, records);
  id(block, 116, 'gid', member.gid, records);
  const stored = map === undefined ? member.size : map.length + dataBytes(member.segments);
  if (!number(block, 124, 12, stored)) record(records, 'size', String(stored));
  const whole = number(block, 136, 12, member.mtimeSec) && member.mtimeNsec === 0;
  if (!whole) record(records, 'mtime', time(member.mtimeSec, member.mtimeNsec));
  block.write(FLAGS[member.type], 156, 'latin1');
  text(block, 157, NAME_FIELD, member.linkName, 'linkpath', records);
  block.write('ustar\x0000', 257, 'latin1');
  number(block, 329, 8, member.major);
  number(block, 337, 8, member.minor);
  for (const { name, value } of member.xattrs) {
    // as GNU tar writes what would end the key
    const key = name.replace(/[%=]/g, sign => (sign === '=' ? '%3D' : '%25'));
    record(records, `SCHILY.xattr.${key}`, value);
  }
  checksum(block);
  const parts = [block, ...(map === undefined ? [] : [map])];
  return Buffer.concat(records.length === 0 ? parts : [paxHeader(records), ...parts]);
}

function dataBytes(segments: readonly number[] = []): number {
  let sum = 0;
  for (let at = 1; at < segments.length; at += 2) sum += segments[at] ?? 0;
  return sum;
}

/** The number of segments, then offset and length of each, a line each, in whole blocks. */
function sparseMap(segments: readonly number[]): Buffer {
  const lines = [segments.length / 2, ...segments].map(value => `${value}\n`).join('');
  return Buffer.concat([Buffer.from(lines, 'latin1'), padding(lines.length)]);
}

function text(
  block: Buffer,
  start: number,
  room: number,
  value: string,
  key: string,
  records: Buffer[],
): void {
  block.write(value.slice(0, room), start, room, 'latin1');
  if (value.length > room) record(records, key, value);
}

function id(block: Buffer, start: number, key: string, value: number, records: Buffer[]): void {
  if (!number(block, start, 8, value)) record(records, key, String(value));
}

/** @returns whether it fits; else there is 0 */
function number(block: Buffer, start: number, width: number, value: number): boolean {
  const fits = value >= 0 && value < 8 ** (width - 1);
  block.write((fits ? value : 0).toString(8).padStart(width - 1, '0'), start, 'latin1');
  return fits;
}

/** PAX counts fractions of a negative time downwards, a timespec upwards. */
function time(sec: number, nsec: number): string {
  const below = sec < 0 && nsec > 0;
  const whole = below ? sec + 1 : sec;
  const rest = below ? 1_000_000_000 - nsec : nsec;
  const sign = sec < 0 ? '-' : '';
  const fraction = rest === 0 ? '' : `.${String(rest).padStart(9, '0').replace(/0+$/, '')}`;
  return `${sign}${Math.abs(whole)}${fraction}`;
}

function record(records: Buffer[], key: string, value: string | Uint8Array): void {
  const bytes = typeof value === 'string' ? Buffer.from(value, 'latin1') : value;
  const rest = key.length + bytes.length + 3;
  let length = rest + String(rest).length;
  length = rest + String(length).length;
  records.push(
    Buffer.concat([Buffer.from(`${length} ${key}=`, 'latin1'), bytes, Buffer.from('\n')]),
  );
}

function paxHeader(records: readonly Buffer[]): Buffer {
  const content = Buffer.concat(records);
  const block = Buffer.alloc(BLOCK);
  block.write('PaxHeader', 0, 'latin1');
  number(block, 100, 8, 0o644);
  number(block, 108, 8, 0);
  number(block, 116, 8, 0);
  number(block, 124, 12, content.length);
  number(block, 136, 12, 0);
  block.write('x', 156, 'latin1');
  block.write('ustar\x0000', 257, 'latin1');
  checksum(block);
  return Buffer.concat([block, content, padding(content.length)]);
}

function checksum(block: Buffer): void {
  block.fill(0x20, 148, 156);
  let sum = 0;
  for (const byte of block) sum += byte;
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
}
