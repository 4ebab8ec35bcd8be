/**
 * PAX extended headers: records `<length> <key>=<value>\n` whose length counts itself (POSIX.1-2017,
 * pax, "pax Extended Header"). Values are bytes. Extended attributes come under SCHILY.xattr. (star,
 * GNU tar, Go) or LIBARCHIVE.xattr. (libarchive: name URL-encoded, value base64).
 */
import { type Bounds, overBound } from './bounds.ts';
import type { TarXattr } from './tar-entry.ts';
import { FieldError, paxNumber } from './tar-fields.ts';

export interface PaxHeader {
  /** Values by key, the last record of a key wins; an empty value says "as if there were none". */
  readonly values: Map<string, Buffer>;
  readonly xattrs: Map<string, Buffer>;
  /** GNU.sparse.offset and GNU.sparse.numbytes of format 0.0, which repeat: offset, length, offset, … */
  readonly sparse: number[];
}

export function emptyPax(): PaxHeader {
  return { values: new Map(), xattrs: new Map(), sparse: [] };
}

const SCHILY = 'SCHILY.xattr.';
const LIBARCHIVE = 'LIBARCHIVE.xattr.';
const BASE64 = /^[A-Za-z0-9+/]*={0,2}$/;

/** Adds the records of one header to `into`. @throws FieldError, TspodError 'limit' */
export function readPax(data: Buffer, into: PaxHeader, bounds: Bounds, where: string): void {
  let at = 0;
  while (at < data.length) {
    let length = 0;
    let digits = at;
    for (; digits < data.length; digits += 1) {
      const digit = (data[digits] ?? 0) - 0x30;
      if (digit < 0 || digit > 9) break;
      length = length * 10 + digit;
      if (length > data.length) throw new FieldError('a PAX record is longer than its header');
    }
    // GNU tar stops at NULs after the last record
    if (digits === at && data[at] === 0) {
      if (data.subarray(at).every(byte => byte === 0)) return;
    }
    const end = at + length;
    const equals = data.indexOf(0x3d, digits + 1);
    const well =
      digits > at &&
      data[digits] === 0x20 &&
      end <= data.length &&
      equals > digits + 1 &&
      equals < end - 1 &&
      data[end - 1] === 0x0a;
    if (!well) throw new FieldError('a PAX record is malformed');
    const key = data.toString('latin1', digits + 1, equals);
    record(key, data.subarray(equals + 1, end - 1), into, bounds, where);
    at = end;
  }
}

function record(key: string, value: Buffer, into: PaxHeader, bounds: Bounds, where: string): void {
  if (key.startsWith(SCHILY)) {
    // GNU tar writes an equals sign as %3D, and so a percent sign as %25; nothing else
    const name = key.slice(SCHILY.length).replace(/%(3D|25)/g, percentDecode);
    setXattr(into, name, value, bounds, where);
  } else if (key.startsWith(LIBARCHIVE)) {
    const name = percentDecode(key.slice(LIBARCHIVE.length));
    const text = value.toString('latin1');
    if (!BASE64.test(text))
      throw new FieldError(`the value of ${JSON.stringify(key)} is not base64`);
    // libarchive writes both forms; the raw one is exact
    if (!into.xattrs.has(name)) setXattr(into, name, Buffer.from(text, 'base64'), bounds, where);
  } else if (key === 'GNU.sparse.offset') {
    if (into.sparse.length % 2 !== 0) throw new FieldError('a sparse offset has no length');
    pushSparse(into, paxNumber(value, 'GNU.sparse.offset'), bounds, where);
  } else if (key === 'GNU.sparse.numbytes') {
    if (into.sparse.length % 2 !== 1) throw new FieldError('a sparse length has no offset');
    pushSparse(into, paxNumber(value, 'GNU.sparse.numbytes'), bounds, where);
  } else {
    into.values.set(key, value);
  }
}

function pushSparse(into: PaxHeader, value: number, bounds: Bounds, where: string): void {
  if (into.sparse.length >= bounds.sparseSegments * 2) {
    throw overBound(where, bounds.sparseSegments, 'segments of a sparse file');
  }
  into.sparse.push(value);
}

function setXattr(
  into: PaxHeader,
  name: string,
  value: Buffer,
  bounds: Bounds,
  where: string,
): void {
  if (name.length === 0 || name.length > 255 || name.includes('\0')) {
    throw new FieldError('an extended attribute has no valid name');
  }
  if (value.length > bounds.xattrBytes) {
    throw overBound(where, bounds.xattrBytes, 'bytes in an extended attribute');
  }
  into.xattrs.set(name, value);
  if (into.xattrs.size > bounds.xattrs) {
    throw overBound(where, bounds.xattrs, 'extended attributes');
  }
}

function percentDecode(text: string): string {
  return text.replace(/%([0-9A-Fa-f]{2})/g, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
}

/** Attributes of both headers, the entry's own over the global ones. */
export function mergedXattrs(global: PaxHeader, local: PaxHeader): TarXattr[] {
  if (global.xattrs.size === 0 && local.xattrs.size === 0) return NO_XATTRS;
  const all = new Map([...global.xattrs, ...local.xattrs]);
  return [...all].map(([name, value]) => ({ name, value }));
}

const NO_XATTRS: TarXattr[] = [];
