/**
 * A streaming tar reader: chunks go in, entries and views of file data come out, nothing is copied but
 * what a chunk's edge cuts. It reads v7, POSIX ustar and pax (POSIX.1-2017), GNU and star archives, and
 * answers the same for every division of the stream into chunks.
 *
 * Where tools differ: the first zero block ends the archive and what follows is not looked at, a missing
 * end is an end when it falls between members, and last padding may be missing (GNU tar, Go); links,
 * folders, devices and FIFOs have no data whatever their size field says (Go); a member of an unknown
 * type is refused; global pax headers apply (POSIX).
 */
import { TspodError } from '../../src/errors.ts';
import { type Bounds, DEFAULT_BOUNDS, overBound } from './bounds.ts';
import { emptyPax, mergedXattrs, type PaxHeader, readPax } from './pax.ts';
import { checkSparse, Map10, readMap01, readOldGnu, type SparseMap } from './sparse.ts';
import { showName, type TarEntry, type TarEntryType, type TarHandler } from './tar-entry.ts';
import {
  checksumFits,
  FieldError,
  isZeroBlock,
  numberField,
  paxNumber,
  paxTime,
  stringField,
} from './tar-fields.ts';

const BLOCK = 512;
const EMPTY = Buffer.alloc(0);
const NO_SEGMENTS: SparseMap = [];

/** Entry types by typeflag; extension headers and what is passed over are not among them. */
export const TYPES: ReadonlyMap<number, TarEntryType> = new Map<number, TarEntryType>([
  [0x00, 'file'],
  [0x30, 'file'],
  [0x31, 'hardlink'],
  [0x32, 'symlink'],
  [0x33, 'char'],
  [0x34, 'block'],
  [0x35, 'directory'],
  [0x36, 'fifo'],
  [0x37, 'file'], // contiguous
  [0x53, 'file'], // S: old GNU sparse
]);

type State = 'header' | 'data' | 'padding' | 'meta' | 'sparse-extension' | 'sparse-map' | 'end';

/** What a header says before the extensions before it are applied. */
type Draft = { -readonly [Key in keyof TarEntry]: TarEntry[Key] } & { stored: number };

export class TarReader {
  readonly #handler: TarHandler;
  readonly #bounds: Bounds;
  #state: State = 'header';
  /** Bytes of the archive before the chunk in hand. */
  #before = 0;
  #entries = 0;
  /** A block that a chunk's edge cut. */
  #carry = EMPTY;
  #carried = 0;

  // extension headers that wait for their member
  #global: PaxHeader = emptyPax();
  #local: PaxHeader | undefined;
  #longName: Buffer | undefined;
  #longLink: Buffer | undefined;

  // the member in hand
  #entry: TarEntry | undefined;
  #headerAt = 0;
  #draft: Draft | undefined;
  #map: SparseMap | undefined;
  #map10: Map10 | undefined;
  #left = 0;
  #position = 0;
  #segment = 0;
  #padding = 0;
  #meta = EMPTY;
  #metaFilled = 0;
  #metaFlag = 0;

  constructor(handler: TarHandler, bounds: Bounds = DEFAULT_BOUNDS) {
    this.#handler = handler;
    this.#bounds = bounds;
  }

  /** Members so far, extension headers not counted. */
  get entries(): number {
    return this.#entries;
  }

  /** Bytes taken so far. */
  get bytes(): number {
    return this.#before;
  }

  /** @throws TspodError 'unpack' for a malformed archive, 'limit' for a bound, and what the handler throws */
  write(chunk: Buffer): void {
    if (this.#before + chunk.length > this.#bounds.archiveBytes) {
      throw overBound('archive', this.#bounds.archiveBytes, 'bytes');
    }
    let at = 0;
    try {
      while (at < chunk.length) at = this.#step(chunk, at);
    } catch (error) {
      if (error instanceof FieldError) throw this.#malformed(error.message);
      throw error;
    }
    this.#before += chunk.length;
  }

  /** The stream has ended. @throws TspodError 'unpack' when a member is cut off */
  end(): void {
    const whole =
      this.#state === 'end' ||
      (!this.#pending() &&
        (this.#state === 'padding' || (this.#state === 'header' && this.#carried === 0)));
    if (whole) return;
    throw this.#malformed('the archive ends in the middle of it');
  }

  #pending(): boolean {
    return (
      this.#local !== undefined || this.#longName !== undefined || this.#longLink !== undefined
    );
  }

  /** Takes something from `chunk` at `at`; returns where it stopped. */
  #step(chunk: Buffer, at: number): number {
    switch (this.#state) {
      case 'data':
        return this.#takeData(chunk, at);
      case 'padding': {
        const taken = Math.min(this.#padding, chunk.length - at);
        this.#padding -= taken;
        if (this.#padding === 0) this.#state = 'header';
        return at + taken;
      }
      case 'meta':
        return this.#takeMeta(chunk, at);
      case 'end':
        return chunk.length;
      case 'header':
      case 'sparse-extension':
      case 'sparse-map':
        return this.#takeBlock(chunk, at);
    }
  }

  #takeBlock(chunk: Buffer, at: number): number {
    if (this.#carried === 0) {
      if (this.#state === 'header') this.#headerAt = this.#before + at;
      if (chunk.length - at >= BLOCK) {
        this.#block(chunk.subarray(at, at + BLOCK));
        return at + BLOCK;
      }
      this.#carry = Buffer.allocUnsafe(BLOCK); // fresh: names are views of it
    }
    const taken = Math.min(BLOCK - this.#carried, chunk.length - at);
    chunk.copy(this.#carry, this.#carried, at, at + taken);
    this.#carried += taken;
    if (this.#carried === BLOCK) {
      this.#carried = 0;
      this.#block(this.#carry);
    }
    return at + taken;
  }

  #block(block: Buffer): void {
    if (this.#state === 'header') this.#header(block);
    else if (this.#state === 'sparse-extension') this.#sparseExtension(block);
    else this.#sparseMapBlock(block);
  }

  // --- headers

  #header(block: Buffer): void {
    if (isZeroBlock(block)) {
      if (this.#pending()) throw new FieldError('an extension header has no member');
      this.#state = 'end';
      return;
    }
    if (!checksumFits(block)) throw new FieldError('its header has a wrong checksum');
    this.#entries += 1;
    if (this.#entries > this.#bounds.entries) {
      throw overBound(this.#where(), this.#bounds.entries, 'entries');
    }
    const flag = block[156] ?? 0;
    switch (flag) {
      case 0x78: // x
      case 0x67: // g
        this.#beginMeta(flag, block, this.#bounds.paxBytes, 'bytes in a PAX header');
        break;
      case 0x4c: // L
      case 0x4b: // K
        // with its NUL
        this.#beginMeta(flag, block, this.#bounds.nameBytes + 1, 'bytes in a name');
        break;
      case 0x56: // V: a volume's label
        this.#reset();
        this.#endOfData(0);
        break;
      default:
        this.#member(block, flag);
    }
  }

  #beginMeta(flag: number, block: Buffer, bound: number, what: string): void {
    const size = numberField(block, 124, 12, 'the size');
    if (size < 0) throw new FieldError('its size is negative');
    if (size > bound) throw overBound(this.#where(), bound, what);
    this.#metaFlag = flag;
    this.#meta = Buffer.allocUnsafe(size);
    this.#metaFilled = 0;
    this.#left = size;
    this.#padding = paddingOf(size);
    this.#state = 'meta';
    if (size === 0) this.#metaDone();
  }

  #takeMeta(chunk: Buffer, at: number): number {
    const taken = Math.min(this.#left, chunk.length - at);
    chunk.copy(this.#meta, this.#metaFilled, at, at + taken);
    this.#metaFilled += taken;
    this.#left -= taken;
    if (this.#left === 0) this.#metaDone();
    return at + taken;
  }

  #metaDone(): void {
    const meta = this.#meta;
    this.#meta = EMPTY;
    switch (this.#metaFlag) {
      case 0x4c:
        this.#longName = stringField(meta, 0, meta.length);
        break;
      case 0x4b:
        this.#longLink = stringField(meta, 0, meta.length);
        break;
      case 0x67:
        readPax(meta, this.#global, this.#bounds, this.#where());
        // an empty value takes back a former global one
        for (const [key, value] of this.#global.values) {
          if (value.length === 0) this.#global.values.delete(key);
        }
        break;
      default:
        this.#local ??= emptyPax();
        readPax(meta, this.#local, this.#bounds, this.#where());
    }
    this.#state = this.#padding === 0 ? 'header' : 'padding';
  }

  #member(block: Buffer, flag: number): void {
    const draft = this.#read(block, flag);
    this.#draft = draft;
    this.#map = undefined;
    this.#map10 = undefined;
    if (flag === 0x53) {
      draft.sparse = true;
      draft.size = numberField(block, 483, 12, 'the real size');
      this.#map = [];
      if (readOldGnu(block, 386, 4, this.#map, this.#bounds, this.#where())) {
        this.#state = 'sparse-extension';
        return;
      }
    } else if (draft.type === 'file') {
      this.#paxSparse(draft);
      if (this.#map10 !== undefined) {
        this.#state = 'sparse-map';
        return;
      }
    }
    this.#begin(draft);
  }

  /** The member as header and extension headers give it. */
  #read(block: Buffer, flag: number): Draft {
    const name = this.#name(block);
    let type = TYPES.get(flag);
    if (type === undefined) {
      this.#entry = undefined;
      throw this.#malformed(
        `its type ${JSON.stringify(String.fromCharCode(flag))} is not known`,
        name,
      );
    }
    // before POSIX a folder was a file whose name ends in a slash
    if (type === 'file' && flag !== 0x53 && name.at(-1) === 0x2f) type = 'directory';
    const stored = type === 'file' ? this.#size(block) : 0;
    const mtime = this.#time('mtime') ?? {
      sec: numberField(block, 136, 12, 'the modification time'),
      nsec: 0,
    };
    const atime = this.#time('atime') ?? mtime;
    const isDevice = type === 'char' || type === 'block';
    return {
      type,
      name,
      linkName: type === 'hardlink' || type === 'symlink' ? this.#linkName(block) : EMPTY,
      mode: numberField(block, 100, 8, 'the mode') & 0o7777,
      uid: this.#id(block, 108, 'uid'),
      gid: this.#id(block, 116, 'gid'),
      size: stored,
      stored,
      major: isDevice ? deviceNumber(block, 329, 'the major number', 0xfff) : 0,
      minor: isDevice ? deviceNumber(block, 337, 'the minor number', 0xfffff) : 0,
      mtimeSec: mtime.sec,
      mtimeNsec: mtime.nsec,
      atimeSec: atime.sec,
      atimeNsec: atime.nsec,
      xattrs: mergedXattrs(this.#global, this.#local ?? NO_PAX),
      sparse: false,
      segments: NO_SEGMENTS,
      offset: this.#headerAt,
      dataOffset: this.#headerAt + BLOCK,
    };
  }

  #pax(key: string): Buffer | undefined {
    const own = this.#local?.values.get(key);
    const value = own ?? this.#global.values.get(key);
    return value === undefined || value.length === 0 ? undefined : value;
  }

  #time(key: string): { sec: number; nsec: number } | undefined {
    const value = this.#pax(key);
    return value === undefined ? undefined : paxTime(value, `its ${key}`);
  }

  #name(block: Buffer): Buffer {
    const name =
      this.#pax('GNU.sparse.name') ?? this.#pax('path') ?? this.#longName ?? headerName(block);
    return this.#checkedName(name, 'name');
  }

  #linkName(block: Buffer): Buffer {
    const name = this.#pax('linkpath') ?? this.#longLink ?? stringField(block, 157, 100);
    return this.#checkedName(name, 'link target');
  }

  #checkedName(name: Buffer, what: string): Buffer {
    if (name.length > this.#bounds.nameBytes) {
      throw overBound(this.#where(), this.#bounds.nameBytes, `bytes in a ${what}`);
    }
    if (name.includes(0)) throw new FieldError(`its ${what} has a NUL in it`);
    return name;
  }

  #size(block: Buffer): number {
    const pax = this.#pax('size');
    const size =
      pax === undefined ? numberField(block, 124, 12, 'the size') : paxNumber(pax, 'the size');
    if (size < 0) throw new FieldError('its size is negative');
    if (size > this.#bounds.archiveBytes) {
      throw overBound(this.#where(), this.#bounds.archiveBytes, 'bytes');
    }
    return size;
  }

  /** 0 to 2^32-2: -1 means "leave it" to the kernel, and more would wrap round to another user. */
  #id(block: Buffer, start: number, key: 'uid' | 'gid'): number {
    const pax = this.#pax(key);
    const id =
      pax === undefined ? numberField(block, start, 8, `its ${key}`) : paxNumber(pax, `its ${key}`);
    if (id < 0 || id > 0xfffffffe) throw new FieldError(`its ${key} is out of range`);
    return id;
  }

  // --- sparse files

  #paxSparse(draft: Draft): void {
    const major = this.#pax('GNU.sparse.major');
    const where = this.#where();
    if (major !== undefined) {
      const minor = this.#pax('GNU.sparse.minor') ?? EMPTY;
      const version = `${major.toString('latin1')}.${minor.toString('latin1')}`;
      if (version !== '1.0') throw new FieldError('its sparse format is not known');
      draft.size = this.#sparseSize('GNU.sparse.realsize');
      this.#map10 = new Map10(this.#bounds, where);
      if (draft.stored < BLOCK) throw new FieldError('the sparse map is cut off');
    } else if (this.#pax('GNU.sparse.size') !== undefined) {
      draft.size = this.#sparseSize('GNU.sparse.size');
      const map = this.#local?.values.get('GNU.sparse.map');
      this.#map =
        map === undefined ? (this.#local?.sparse ?? []) : readMap01(map, this.#bounds, where);
    } else {
      return;
    }
    draft.sparse = true;
  }

  #sparseSize(key: string): number {
    const value = this.#pax(key);
    if (value === undefined) throw new FieldError(`it has no ${key}`);
    return paxNumber(value, key);
  }

  #sparseExtension(block: Buffer): void {
    const { map, draft } = this.#inHand();
    draft.dataOffset += BLOCK;
    if (!readOldGnu(block, 0, 21, map, this.#bounds, this.#where())) this.#begin(draft);
  }

  #sparseMapBlock(block: Buffer): void {
    const draft = this.#draft;
    const reader = this.#map10;
    if (draft === undefined || reader === undefined) throw new Error('no sparse member in hand');
    draft.stored -= BLOCK;
    draft.dataOffset += BLOCK;
    if (reader.block(block)) {
      this.#map = reader.map;
      this.#begin(draft);
    } else if (draft.stored < BLOCK) {
      throw new FieldError('the sparse map is cut off');
    }
  }

  #inHand(): { map: SparseMap; draft: Draft } {
    if (this.#map === undefined || this.#draft === undefined) {
      throw new Error('no sparse member in hand');
    }
    return { map: this.#map, draft: this.#draft };
  }

  // --- data

  #begin(draft: Draft): void {
    const { stored, ...entry } = draft;
    if (entry.sparse) {
      if (entry.size < 0) throw new FieldError('its real size is negative');
      entry.segments = this.#map ?? NO_SEGMENTS;
      checkSparse(entry.segments, entry.size, stored);
    }
    this.#entry = entry;
    this.#draft = undefined;
    this.#left = stored;
    this.#segment = 0;
    this.#position = 0;
    this.#local = undefined;
    this.#longName = undefined;
    this.#longLink = undefined;
    this.#handler.begin(entry);
    if (stored === 0) this.#endOfData(0);
    else {
      this.#padding = paddingOf(stored);
      this.#state = 'data';
    }
  }

  #takeData(chunk: Buffer, at: number): number {
    const entry = this.#entry;
    if (entry === undefined) throw new Error('no member in hand');
    let taken = Math.min(this.#left, chunk.length - at);
    let position = this.#position;
    const map = this.#map;
    if (entry.sparse && map !== undefined) {
      while (this.#position >= (map[this.#segment + 1] ?? 0)) {
        this.#segment += 2;
        this.#position = 0;
      }
      position = (map[this.#segment] ?? 0) + this.#position;
      taken = Math.min(taken, (map[this.#segment + 1] ?? 0) - this.#position);
    }
    this.#handler.data(entry, chunk.subarray(at, at + taken), position);
    this.#position += taken;
    this.#left -= taken;
    if (this.#left === 0) this.#endOfData(this.#padding);
    return at + taken;
  }

  #endOfData(padding: number): void {
    const entry = this.#entry;
    this.#entry = undefined;
    this.#padding = padding;
    this.#state = padding === 0 ? 'header' : 'padding';
    if (entry !== undefined) this.#handler.end(entry);
  }

  #reset(): void {
    this.#entry = undefined;
    this.#local = undefined;
    this.#longName = undefined;
    this.#longLink = undefined;
  }

  // --- errors

  #where(): string {
    return `entry at offset ${this.#headerAt}`;
  }

  #malformed(why: string, name: Buffer | undefined = this.#knownName()): TspodError {
    const shown = name === undefined ? 'entry' : `entry ${showName(name)}`;
    return new TspodError('unpack', `layer ${shown} at offset ${this.#headerAt}: ${why}`, {
      hint: 'the archive is malformed; build or fetch the image again',
    });
  }

  #knownName(): Buffer | undefined {
    return this.#entry?.name ?? this.#draft?.name ?? this.#longName;
  }
}

const NO_PAX = emptyPax();

function paddingOf(size: number): number {
  return (BLOCK - (size % BLOCK)) % BLOCK;
}

function deviceNumber(block: Buffer, start: number, what: string, max: number): number {
  const number = numberField(block, start, 8, what);
  if (number < 0 || number > max) throw new FieldError(`${what} is out of range`);
  return number;
}

/** Name and, in POSIX ustar and star archives, the prefix; GNU archives keep times in its place. */
export function headerName(block: Buffer): Buffer {
  const name = stringField(block, 0, 100);
  const isUstar = block.toString('latin1', 257, 263) === 'ustar\0';
  if (!isUstar || block[345] === 0) return name;
  const isStar = block.toString('latin1', 508, 512) === 'tar\0';
  const prefix = stringField(block, 345, isStar ? 131 : 155);
  return Buffer.concat([prefix, SLASH, name]);
}

const SLASH = Buffer.from('/');
