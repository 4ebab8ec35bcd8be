/**
 * From an ACI's tar to a layer's: members below `rootfs/` with that prefix taken off their names and hard
 * link targets, and only those that the whitelists let pass; `manifest` and whatever else is in it is left
 * out (appc 0.8.11, "Image Archives", "pathWhitelist"). The same ACI and whitelists always give the same
 * bytes: the layer's diff-id is their digest, and a layer that was lost is made again from its blob.
 *
 * Headers are not built anew. A member keeps its own one, and its extension headers, with the names exchanged;
 * data, sparse maps included, passes as it is. So everything that a tar can say survives, and whoever reads
 * the result judges it with the reader and the bounds that are for every layer.
 */
import { TspodError } from '../../src/errors.ts';
import type { AciTransform } from '../../src/image/oci.ts';
import { type Bounds, DEFAULT_BOUNDS, overBound } from './bounds.ts';
import { emptyPax, type PaxHeader, readPax } from './pax.ts';
import { showName, type TarEntryType } from './tar-entry.ts';
import {
  checksumFits,
  FieldError,
  isZeroBlock,
  numberField,
  paxNumber,
  stringField,
} from './tar-fields.ts';
import { headerName, TYPES } from './tar-reader.ts';

export interface RewriteOptions {
  readonly bounds?: Bounds;
  /** Called once with the content of `manifest`, wherever in the archive it is. */
  readonly onManifest?: (bytes: Uint8Array) => void;
}

/** Of the file `manifest`. */
export const ACI_MANIFEST_MAX_BYTES = 4 * 1024 * 1024;

const BLOCK = 512;
const NAME_FIELD = 100;
const EMPTY: Buffer = Buffer.alloc(0);
/** PAX keys that this rewriter has to know of each member: said for all of them they are refused. */
const MEMBER_KEYS = ['path', 'linkpath', 'size'];

/**
 * The layer's tar of an ACI's.
 * @throws TspodError 'unpack' for what is no ACI, 'limit' for a bound, 'unsupported' for what a layer can't hold
 */
export async function* rewriteAci(
  archive: AsyncIterable<Uint8Array>,
  transform: AciTransform,
  options: RewriteOptions = {},
): AsyncGenerator<Buffer> {
  const rewriter = new AciRewriter(transform, options);
  for await (const chunk of archive) {
    for (const piece of rewriter.write(asBuffer(chunk))) yield piece;
  }
  for (const piece of rewriter.end()) yield piece;
}

function asBuffer(chunk: Uint8Array): Buffer {
  return Buffer.isBuffer(chunk)
    ? chunk
    : Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
}

type State = 'header' | 'meta' | 'sparse' | 'pass' | 'drop' | 'manifest' | 'end';

/** The same in steps: each chunk of the ACI gives pieces, which are views of it or fresh. */
export class AciRewriter {
  readonly #filter: PathFilter;
  readonly #bounds: Bounds;
  readonly #onManifest: ((bytes: Uint8Array) => void) | undefined;
  #state: State = 'header';
  #before = 0;
  #headerAt = 0;
  #out: Buffer[] = [];

  readonly #block = Buffer.alloc(BLOCK);
  #filled = 0;

  // extension headers that wait for their member
  #pax: PaxHeader | undefined;
  #records: Buffer[] = [];
  #longName: Buffer | undefined;
  #longLink: Buffer | undefined;

  // the extension header in hand
  #metaHeader = EMPTY;
  #meta = EMPTY;
  #metaFilled = 0;

  /** Bytes of the member in hand that still come, padding included. */
  #left = 0;
  #passes = false;
  #manifest: Buffer | undefined;
  #manifestFilled = 0;

  constructor(transform: AciTransform, { bounds, onManifest }: RewriteOptions = {}) {
    this.#filter = new PathFilter(transform);
    this.#bounds = bounds ?? DEFAULT_BOUNDS;
    this.#onManifest = onManifest;
  }

  write(chunk: Buffer): readonly Buffer[] {
    this.#out = [];
    let at = 0;
    try {
      while (at < chunk.length) at += this.#take(chunk, at);
    } catch (error) {
      if (error instanceof FieldError) throw this.#malformed(error.message);
      throw error;
    }
    this.#before += chunk.length;
    return this.#out;
  }

  end(): readonly Buffer[] {
    const between = this.#state === 'header' && this.#filled === 0 && !this.#pending;
    if (this.#state !== 'end' && !between && !this.#paddingOnly) {
      throw this.#malformed('the archive ends in the middle of it');
    }
    if (this.#manifest === undefined) {
      throw new TspodError('unpack', 'image: it is not an ACI: there is no file "manifest" in it');
    }
    return [Buffer.alloc(2 * BLOCK)];
  }

  get #pending(): boolean {
    return this.#pax !== undefined || this.#longName !== undefined || this.#longLink !== undefined;
  }

  /** Last padding may be missing; the reader of the result takes that, too. */
  get #paddingOnly(): boolean {
    const inMember = this.#state === 'pass' || this.#state === 'drop' || this.#state === 'manifest';
    return inMember && this.#left < BLOCK && this.#left <= this.#padding;
  }

  #padding = 0;

  #take(chunk: Buffer, at: number): number {
    switch (this.#state) {
      case 'header':
      case 'sparse': {
        if (this.#filled === 0) this.#headerAt = this.#before + at;
        const taken = Math.min(BLOCK - this.#filled, chunk.length - at);
        chunk.copy(this.#block, this.#filled, at, at + taken);
        this.#filled += taken;
        if (this.#filled === BLOCK) {
          this.#filled = 0;
          if (this.#state === 'header') this.#header(this.#block);
          else this.#sparseBlock(this.#block);
        }
        return taken;
      }
      case 'meta': {
        const taken = Math.min(this.#meta.length - this.#metaFilled, chunk.length - at);
        chunk.copy(this.#meta, this.#metaFilled, at, at + taken);
        this.#metaFilled += taken;
        if (this.#metaFilled === this.#meta.length) this.#metaDone();
        return taken;
      }
      case 'pass':
      case 'drop':
      case 'manifest': {
        const taken = Math.min(this.#left, chunk.length - at);
        const piece = chunk.subarray(at, at + taken);
        if (this.#state === 'pass') this.#out.push(piece);
        else if (this.#state === 'manifest') this.#keepManifest(piece);
        this.#left -= taken;
        if (this.#left === 0) this.#state = 'header';
        return taken;
      }
      case 'end':
        return chunk.length - at;
    }
  }

  // --- headers

  #header(block: Buffer): void {
    if (isZeroBlock(block)) {
      if (this.#pending) throw new FieldError('an extension header has no member');
      this.#state = 'end';
      return;
    }
    if (!checksumFits(block)) throw new FieldError('its header has a wrong checksum');
    const flag = block[156] ?? 0;
    switch (flag) {
      case 0x78: // x
      case 0x67: // g
        this.#beginMeta(block, this.#bounds.paxBytes, 'bytes in a PAX header');
        break;
      case 0x4c: // L
      case 0x4b: // K
        this.#beginMeta(block, this.#bounds.nameBytes + 1, 'bytes in a name');
        break;
      case 0x56: // V: a volume's label
        this.#forgetMeta();
        break;
      default:
        this.#member(block, flag);
    }
  }

  #beginMeta(block: Buffer, bound: number, what: string): void {
    const size = numberField(block, 124, 12, 'the size');
    if (size < 0) throw new FieldError('its size is negative');
    if (size > bound) throw overBound(this.#where, bound, what);
    this.#metaHeader = Buffer.from(block);
    // With its padding, which goes where the content goes.
    this.#meta = Buffer.alloc(size + paddingOf(size));
    this.#metaFilled = 0;
    this.#left = size;
    this.#state = 'meta';
    if (size === 0) this.#metaDone();
  }

  #metaDone(): void {
    const content = this.#meta.subarray(0, this.#left);
    this.#left = 0;
    this.#state = 'header';
    switch (this.#metaHeader[156]) {
      case 0x4c:
        this.#longName = stringField(content, 0, content.length);
        break;
      case 0x4b:
        this.#longLink = stringField(content, 0, content.length);
        break;
      case 0x67: {
        const global = emptyPax();
        readPax(content, global, this.#bounds, this.#where);
        for (const key of global.values.keys()) {
          if (MEMBER_KEYS.includes(key) || key.startsWith('GNU.sparse.')) {
            throw new FieldError(`a global PAX header says the ${key} of all that follows`);
          }
        }
        this.#out.push(this.#metaHeader, this.#meta);
        break;
      }
      default:
        this.#pax ??= emptyPax();
        readPax(content, this.#pax, this.#bounds, this.#where);
        this.#records.push(...recordsOf(content));
    }
    this.#meta = EMPTY;
  }

  #forgetMeta(): void {
    this.#pax = undefined;
    this.#records = [];
    this.#longName = undefined;
    this.#longLink = undefined;
  }

  #value(key: string): Buffer | undefined {
    const value = this.#pax?.values.get(key);
    return value === undefined || value.length === 0 ? undefined : value;
  }

  // --- members

  #member(block: Buffer, flag: number): void {
    const name =
      this.#value('GNU.sparse.name') ?? this.#value('path') ?? this.#longName ?? headerName(block);
    let type = TYPES.get(flag);
    if (type === undefined) {
      const shown = JSON.stringify(String.fromCharCode(flag));
      throw this.#malformed(`its type ${shown} is not known`, name);
    }
    // before POSIX a folder was a file whose name ends in a slash
    if (type === 'file' && flag !== 0x53 && name.at(-1) === 0x2f) type = 'directory';
    const size = type === 'file' ? this.#size(block) : 0;
    this.#padding = paddingOf(size);
    this.#left = size + this.#padding;
    const parts = this.#parts(name, 'name');
    if (parts.length === 1 && parts[0] === 'manifest') {
      this.#beginManifest(type, flag, size);
      this.#passes = false;
    } else {
      this.#passes = parts[0] === 'rootfs' && this.#keeps(parts.slice(1), type, name, block);
    }
    if (this.#passes) this.#emitMember(block, type, parts.slice(1));
    this.#forgetMeta();
    if (flag === 0x53 && block[482] !== 0) this.#state = 'sparse';
    else this.#beginData();
  }

  #beginData(): void {
    if (this.#left === 0) this.#state = 'header';
    else if (this.#state === 'manifest') return;
    else this.#state = this.#passes ? 'pass' : 'drop';
  }

  /** More of an old GNU sparse file's map. */
  #sparseBlock(block: Buffer): void {
    if (this.#passes) this.#out.push(Buffer.from(block));
    if (block[504] === 0) this.#beginData();
  }

  #size(block: Buffer): number {
    const pax = this.#value('size');
    const size =
      pax === undefined ? numberField(block, 124, 12, 'the size') : paxNumber(pax, 'the size');
    if (size < 0) throw new FieldError('its size is negative');
    if (size > this.#bounds.archiveBytes) {
      throw overBound(this.#where, this.#bounds.archiveBytes, 'bytes');
    }
    return size;
  }

  /** Components without `.` and empty ones; one character per byte. */
  #parts(name: Buffer, what: string): string[] {
    const parts = name
      .toString('latin1')
      .split('/')
      .filter(part => part !== '' && part !== '.');
    if (parts.includes('..')) throw this.#malformed(`its ${what} has ".." in it`, name);
    return parts;
  }

  #keeps(path: readonly string[], type: TarEntryType, name: Buffer, block: Buffer): boolean {
    if (path.length === 0) {
      if (type !== 'directory')
        throw this.#malformed('it stands for the root and is no folder', name);
      return true;
    }
    if (!this.#filter.passes(path.join('/'), type === 'directory')) return false;
    // In a layer it would hide what lies below, and be gone itself (OCI layer.md, "Whiteouts").
    if (path.some(part => part.startsWith('.wh.'))) {
      throw new TspodError(
        'unsupported',
        `image entry ${showName(name)}: a name that begins with ".wh." can't be kept in a layer`,
      );
    }
    if (type === 'hardlink') this.#checkTarget(block, name);
    return true;
  }

  #target(block: Buffer): Buffer {
    return this.#value('linkpath') ?? this.#longLink ?? stringField(block, 157, NAME_FIELD);
  }

  #checkTarget(block: Buffer, name: Buffer): void {
    const target = this.#target(block);
    const parts = this.#parts(target, 'link target');
    if (parts[0] !== 'rootfs' || parts.length < 2) {
      throw this.#malformed('it is a hard link to something outside of rootfs', name);
    }
    if (!this.#filter.passes(parts.slice(1).join('/'), false)) {
      throw new TspodError(
        'unsupported',
        `image entry ${showName(name)}: the pathWhitelist leaves out ${showName(target)}, which it is a hard link to`,
      );
    }
  }

  #emitMember(block: Buffer, type: TarEntryType, path: readonly string[]): void {
    const header = Buffer.from(block);
    const joined = `${path.length === 0 ? '.' : path.join('/')}${type === 'directory' ? '/' : ''}`;
    const records = this.#records.filter(
      record => !hasKey(record, ['path', 'linkpath', 'GNU.sparse.name']),
    );
    setName(header, 0, Buffer.from(joined, 'latin1'), 'path', records);
    clearPrefix(header);
    if (type === 'hardlink' || type === 'symlink') {
      const target = this.#target(block);
      const kept =
        type === 'symlink'
          ? target
          : Buffer.from(this.#parts(target, 'link target').slice(1).join('/'), 'latin1');
      setName(header, 157, kept, 'linkpath', records);
    }
    setChecksum(header);
    if (records.length > 0) this.#out.push(...paxHeader(Buffer.concat(records)));
    this.#out.push(header);
  }

  // --- the image's manifest

  #beginManifest(type: TarEntryType, flag: number, size: number): void {
    if (this.#manifest !== undefined) throw new FieldError('it is in the archive twice');
    if (
      type !== 'file' ||
      flag === 0x53 ||
      this.#pax?.sparse.length ||
      this.#value('GNU.sparse.major')
    ) {
      throw new TspodError('unpack', 'image: its "manifest" is not a plain file');
    }
    if (size > ACI_MANIFEST_MAX_BYTES) {
      throw overBound(this.#where, ACI_MANIFEST_MAX_BYTES, 'bytes in the manifest');
    }
    this.#manifest = Buffer.alloc(size);
    this.#manifestFilled = 0;
    this.#state = 'manifest';
    if (size === 0) this.#onManifest?.(this.#manifest);
  }

  #keepManifest(piece: Buffer): void {
    const manifest = this.#manifest;
    if (manifest === undefined) throw new Error('no manifest in hand');
    const before = this.#manifestFilled;
    this.#manifestFilled += piece.copy(manifest, before, 0, piece.length);
    if (before < manifest.length && this.#manifestFilled === manifest.length) {
      this.#onManifest?.(manifest);
    }
  }

  // --- errors

  get #where(): string {
    return `entry at offset ${this.#headerAt}`;
  }

  #malformed(why: string, name?: Buffer): TspodError {
    const shown = name === undefined ? 'entry' : `entry ${showName(name)}`;
    return new TspodError('unpack', `image ${shown} at offset ${this.#headerAt}: ${why}`, {
      hint: 'the archive is malformed; build or fetch the image again',
    });
  }
}

/** Which paths (relative, one character per byte) get through all whitelists. */
class PathFilter {
  readonly #own: ReadonlySet<string> | undefined;
  readonly #above: readonly {
    readonly listed: ReadonlySet<string>;
    readonly leads: ReadonlySet<string>;
  }[];

  constructor({ own, above }: AciTransform) {
    this.#own = own.length === 0 ? undefined : new Set(own.map(relative));
    this.#above = above
      .filter(list => list.length > 0)
      .map(list => {
        const listed = new Set(list.map(relative));
        return { listed, leads: new Set([...listed].flatMap(ancestors)) };
      });
  }

  passes(path: string, isFolder: boolean): boolean {
    if (!isFolder && this.#own !== undefined && !this.#own.has(path)) return false;
    return this.#above.every(
      ({ listed, leads }) => listed.has(path) || (isFolder && leads.has(path)),
    );
  }
}

/** A path of JSON as a member's name is compared: UTF-8 bytes as characters, without what says nothing. */
function relative(path: string): string {
  return Buffer.from(path, 'utf8')
    .toString('latin1')
    .split('/')
    .filter(part => part !== '' && part !== '.')
    .join('/');
}

function ancestors(path: string): string[] {
  const parts = path.split('/');
  return parts.slice(1).map((_, index) => parts.slice(0, index + 1).join('/'));
}

function paddingOf(size: number): number {
  return (BLOCK - (size % BLOCK)) % BLOCK;
}

/** The records of a PAX header that `readPax` has found to be well formed, each whole. */
function recordsOf(content: Buffer): Buffer[] {
  const records: Buffer[] = [];
  for (let at = 0; at < content.length && content[at] !== 0; ) {
    const length = Number(content.toString('latin1', at, content.indexOf(0x20, at)));
    records.push(content.subarray(at, at + length));
    at += length;
  }
  return records;
}

function hasKey(record: Buffer, keys: readonly string[]): boolean {
  const start = record.indexOf(0x20) + 1;
  return keys.includes(record.toString('latin1', start, record.indexOf(0x3d, start)));
}

/** Into the field where it fits, else as a record, which then counts. */
function setName(
  header: Buffer,
  start: number,
  name: Buffer,
  key: string,
  records: Buffer[],
): void {
  header.fill(0, start, start + NAME_FIELD);
  name.copy(header, start, 0, NAME_FIELD);
  if (name.length > NAME_FIELD) records.push(paxRecord(key, name));
}

function paxRecord(key: string, value: Buffer): Buffer {
  const rest = key.length + value.length + 3;
  let length = rest + String(rest).length;
  length = rest + String(length).length;
  return Buffer.concat([Buffer.from(`${length} ${key}=`), value, Buffer.from('\n')]);
}

function paxHeader(content: Buffer): Buffer[] {
  const header = Buffer.alloc(BLOCK);
  header.write('PaxHeader', 0);
  header.write('0000644\0', 100);
  header.write('0000000\0', 108);
  header.write('0000000\0', 116);
  header.write(`${content.length.toString(8).padStart(11, '0')}\0`, 124);
  header.write('00000000000\0', 136);
  header.write('x', 156);
  header.write('ustar\x0000', 257);
  setChecksum(header);
  return [header, content, Buffer.alloc(paddingOf(content.length))];
}

/** POSIX and star keep the beginning of a long name there, GNU archives times. */
function clearPrefix(header: Buffer): void {
  if (header.toString('latin1', 257, 263) !== 'ustar\0') return;
  const isStar = header.toString('latin1', 508, 512) === 'tar\0';
  header.fill(0, 345, 345 + (isStar ? 131 : 155));
}

function setChecksum(header: Buffer): void {
  header.fill(0x20, 148, 156);
  let sum = 0;
  for (const byte of header) sum += byte;
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
}
