/**
 * Writes the tars that the layer contract unpacks, hostile ones too: it checks nothing. POSIX ustar with
 * PAX records where a field does not fit or is asked for (pax(1), "pax Interchange Format").
 */
export interface TarEntry {
  readonly name: string | Uint8Array;
  /** ustar typeflag: 0 file, 1 hard link, 2 symbolic link, 3 character device, 4 block, 5 folder, 6 FIFO */
  readonly type?: '0' | '1' | '2' | '3' | '4' | '5' | '6';
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  /** seconds, whole in the header; a PAX record `mtime` has the rest */
  readonly mtime?: number;
  readonly content?: Uint8Array | string;
  readonly link?: string;
  readonly device?: readonly [major: number, minor: number];
  readonly pax?: Readonly<Record<string, string | Uint8Array>>;
}

export function tar(entries: readonly TarEntry[]): Buffer {
  return Buffer.concat([...entries.flatMap(encode), Buffer.alloc(1024)]);
}

function encode(entry: TarEntry): Buffer[] {
  const content = Buffer.from(entry.content ?? '');
  const pax: Record<string, string | Uint8Array> = { ...entry.pax };
  if (Buffer.from(entry.name).length > 100) pax.path = entry.name;
  if (Buffer.from(entry.link ?? '').length > 100) pax.linkpath = entry.link ?? '';
  const records = Object.entries(pax).map(([key, value]) => paxRecord(key, value));
  const blocks: Buffer[] = [];
  if (records.length > 0) {
    const body = Buffer.concat(records);
    blocks.push(header({ name: 'PaxHeaders/x', mode: 0o644 }, 'x', body.length), pad(body));
  }
  blocks.push(header(entry, entry.type ?? '0', content.length), pad(content));
  return blocks;
}

function header(entry: TarEntry, type: string, size: number): Buffer {
  const block = Buffer.alloc(512);
  const octal = (value: number, at: number, width: number) =>
    block.write(
      `${Math.floor(value)
        .toString(8)
        .padStart(width - 1, '0')}\0`,
      at,
      'latin1',
    );
  Buffer.from(entry.name).copy(block, 0, 0, 100);
  octal(entry.mode ?? (type === '5' ? 0o755 : 0o644), 100, 8);
  octal(entry.uid ?? 0, 108, 8);
  octal(entry.gid ?? 0, 116, 8);
  octal(size, 124, 12);
  octal(entry.mtime ?? 0, 136, 12);
  block.fill(' ', 148, 156);
  block.write(type, 156, 'latin1');
  Buffer.from(entry.link ?? '').copy(block, 157, 0, 100);
  block.write('ustar\x0000', 257, 'latin1');
  octal(entry.device?.[0] ?? 0, 329, 8);
  octal(entry.device?.[1] ?? 0, 337, 8);
  let sum = 0;
  for (const byte of block) sum += byte;
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}

/** `LENGTH KEY=VALUE\n`, where LENGTH counts itself. */
function paxRecord(key: string, value: string | Uint8Array): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${key}=`), Buffer.from(value), Buffer.from('\n')]);
  let length = rest.length + 1;
  while (String(length).length + rest.length !== length)
    length = String(length).length + rest.length;
  return Buffer.concat([Buffer.from(String(length)), rest]);
}

function pad(body: Buffer): Buffer {
  return Buffer.concat([body, Buffer.alloc((512 - (body.length % 512)) % 512)]);
}
