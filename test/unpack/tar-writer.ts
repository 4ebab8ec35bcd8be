/**
 * A tar writer for tests: any header that a reader may meet, well-formed or not. Members are plain data,
 * so an attack reads as a list.
 */
export interface Member {
  readonly name: string | Buffer;
  /** typeflag; '0' */
  readonly type?: string;
  readonly link?: string | Buffer;
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly mtime?: number;
  readonly major?: number;
  readonly minor?: number;
  readonly data?: string | Buffer;
  /** What the size field says, when not the data's length. */
  readonly size?: number;
  /** PAX records that precede the member. */
  readonly pax?: Readonly<Record<string, string | Buffer>>;
  readonly format?: 'ustar' | 'gnu' | 'v7';
  /** Last say on the header block, before its checksum is made. */
  readonly patch?: (block: Buffer) => void;
  readonly badChecksum?: boolean;
}

const END = Buffer.alloc(1024);

/** The archive with its two end blocks. */
export function tar(...members: readonly Member[]): Buffer {
  return Buffer.concat([...members.map(member), END]);
}

/** One member with its PAX header, without end blocks. */
export function member(one: Member): Buffer {
  const { pax, ...plain } = one;
  const data = Buffer.from(one.data ?? '');
  const parts = pax === undefined ? [] : [paxMember('x', pax)];
  return Buffer.concat([...parts, header(plain, data.length), data, padding(data.length)]);
}

export function paxMember(
  type: 'x' | 'g',
  records: Readonly<Record<string, string | Buffer>>,
): Buffer {
  const data = Buffer.concat(Object.entries(records).map(([key, value]) => paxRecord(key, value)));
  return member({ name: 'PaxHeaders/x', type, data });
}

export function paxRecord(key: string, value: string | Buffer): Buffer {
  const rest = Buffer.concat([
    Buffer.from(` ${key}=`, 'latin1'),
    Buffer.from(value),
    Buffer.from('\n'),
  ]);
  let length = rest.length + 1;
  while (String(length).length + rest.length !== length)
    length = String(length).length + rest.length;
  return Buffer.concat([Buffer.from(String(length)), rest]);
}

function padding(length: number): Buffer {
  return Buffer.alloc((512 - (length % 512)) % 512);
}

function header(one: Member, length: number): Buffer {
  const block = Buffer.alloc(512);
  const octal = (value: number, at: number, width: number) =>
    block.write(value.toString(8).padStart(width - 1, '0'), at, width - 1, 'latin1');
  Buffer.from(one.name).copy(block, 0, 0, 100);
  octal(one.mode ?? (one.type === '5' ? 0o755 : 0o644), 100, 8);
  octal(one.uid ?? 0, 108, 8);
  octal(one.gid ?? 0, 116, 8);
  octal(one.size ?? length, 124, 12);
  octal(one.mtime ?? 1_700_000_000, 136, 12);
  block.write(one.type ?? '0', 156, 1, 'latin1');
  Buffer.from(one.link ?? '').copy(block, 157, 0, 100);
  if (one.format === 'gnu') block.write('ustar  \0', 257, 8, 'latin1');
  else if (one.format !== 'v7') block.write('ustar\x0000', 257, 8, 'latin1');
  octal(one.major ?? 0, 329, 8);
  octal(one.minor ?? 0, 337, 8);
  one.patch?.(block);
  checksum(block);
  if (one.badChecksum === true) block.write('000001\0 ', 148, 8, 'latin1');
  return block;
}

/** Writes the checksum of a header block into it. */
export function checksum(block: Buffer): void {
  block.fill(0x20, 148, 156);
  const sum = block.subarray(0, 512).reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 8, 'latin1');
}
