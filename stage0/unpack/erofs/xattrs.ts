/**
 * Extended attributes of an image. Equal ones are kept once in memory, equal sets too; an attribute that
 * several inodes have goes to the shared area, and so do long ones where an inode's own room ends.
 *
 * What lsetxattr(2) would refuse is refused here, so that a layer is good in both forms or in none.
 */
import { TspodError } from '../../../src/errors.ts';
import { storedXattr } from '../overlay-xattrs.ts';
import { refused } from '../refusal.ts';
import type { TarEntry, TarXattr } from '../tar-entry.ts';
import type { Budget } from './budget.ts';
import { roundUp, XATTR_ENTRY, XATTR_HEADER } from './format.ts';
import { readPosixAcl } from './posix-acl.ts';

/** 16 bits count the inode's room in units of 4 bytes, its header being the first. */
const MOST_ROOM = XATTR_HEADER + 4 * 65_534;
const MOST_SHARED = 255;
const MOST_VALUE = 65_535;
const MOST_NAME = 255;

/** Name prefixes that have a number; the rest of the name is stored. */
const PREFIXES: readonly (readonly [prefix: string, index: number])[] = [
  ['user.', 1],
  ['system.posix_acl_access', 2],
  ['system.posix_acl_default', 3],
  ['trusted.', 4],
  ['security.', 6],
];

export class Xattr {
  readonly index: number;
  readonly suffix: Buffer;
  readonly value: Buffer;
  /** Inodes that have it. */
  uses = 0;
  /** Its place in the shared area, in bytes; -1 when it has none. */
  shared = -1;

  constructor(index: number, suffix: Buffer, value: Buffer) {
    this.index = index;
    this.suffix = suffix;
    this.value = value;
  }

  get size(): number {
    return roundUp(XATTR_ENTRY + this.suffix.length + this.value.length, 4);
  }

  write(into: Buffer, at: number): void {
    into.writeUInt8(this.suffix.length, at);
    into.writeUInt8(this.index, at + 1);
    into.writeUInt16LE(this.value.length, at + 2);
    into.set(this.suffix, at + XATTR_ENTRY);
    into.set(this.value, at + XATTR_ENTRY + this.suffix.length);
  }
}

/** The attributes of one or more inodes, and how they are stored with an inode. */
export class XattrSet {
  readonly members: readonly Xattr[];
  #shared: Xattr[] = [];
  #inline: Xattr[] = [];
  /** Bytes behind the inode; known after `place`. */
  size = 0;

  constructor(members: readonly Xattr[]) {
    this.members = members;
  }

  /** Decides what is stored inline and what is shared; once all `uses` are counted. */
  place(area: SharedArea): void {
    if (this.size > 0) return;
    const bySize = [...this.members].sort((a, b) => b.size - a.size);
    const shared = new Set(bySize.filter(one => one.uses > 1).slice(0, MOST_SHARED));
    let room = XATTR_HEADER + 4 * shared.size;
    for (const one of this.members) if (!shared.has(one)) room += one.size;
    for (const one of bySize) {
      if (room <= MOST_ROOM || shared.size === MOST_SHARED) break;
      if (shared.has(one)) continue;
      shared.add(one);
      room += 4 - one.size;
    }
    if (room > MOST_ROOM) {
      throw new TspodError(
        'limit',
        `layer: more than the bound of ${MOST_ROOM} bytes of extended attributes with one file`,
      );
    }
    this.#shared = this.members.filter(one => shared.has(one));
    this.#inline = this.members.filter(one => !shared.has(one));
    for (const one of this.#shared) area.add(one);
    this.size = room;
  }

  write(into: Buffer, at: number): void {
    into.writeUInt8(this.#shared.length, at + 4);
    let next = at + XATTR_HEADER;
    for (const one of this.#shared) {
      into.writeUInt32LE(one.shared / 4, next);
      next += 4;
    }
    for (const one of this.#inline) {
      one.write(into, next);
      next += one.size;
    }
  }
}

/** Attributes stored apart from inodes, by place. */
export class SharedArea {
  readonly members: Xattr[] = [];
  size = 0;

  add(one: Xattr): void {
    if (one.shared >= 0) return;
    one.shared = this.size;
    this.size += one.size;
    this.members.push(one);
  }
}

/** What an entry's attributes come to. */
export interface Attributes {
  readonly xattrs: XattrSet | undefined;
  /** The permission bits that an access control list dictates. */
  readonly permissions: number | undefined;
}

const NONE: Attributes = { xattrs: undefined, permissions: undefined };

/** Of a set or an attribute beside its bytes. */
const RECORD_BYTES = 256;

export class XattrTable {
  readonly #budget: Budget;
  readonly #xattrs = new Map<string, { readonly id: number; readonly xattr: Xattr }>();
  readonly #sets = new Map<string, XattrSet>();

  constructor(budget: Budget) {
    this.#budget = budget;
  }

  /** @throws TspodError for an attribute that can't be set on such a file */
  of(entry: TarEntry): Attributes {
    if (entry.xattrs.length === 0) return NONE;
    const kept: [name: string, value: Uint8Array][] = [];
    let permissions: number | undefined;
    for (const one of entry.xattrs) {
      const name = storedXattr(one.name);
      if (name === undefined) continue;
      const acl = checked(entry, name, one);
      if (acl === 'none') continue;
      if (typeof acl === 'number') permissions = acl;
      if (acl === undefined || typeof acl === 'number') kept.push([name, one.value]);
      else permissions = acl.only;
    }
    return { xattrs: this.set(kept), permissions };
  }

  /** @param list names as they are stored */
  set(list: readonly (readonly [name: string, value: Uint8Array])[]): XattrSet | undefined {
    if (list.length === 0) return undefined;
    const members = list.map(([name, value]) => this.#one(name, value));
    return this.#set(members);
  }

  /** The set with one more. */
  with(set: XattrSet | undefined, name: string, value: Uint8Array): XattrSet {
    const one = this.#one(name, value);
    const others = (set?.members ?? []).map(member => this.#known(member));
    return this.#set([...others, one]);
  }

  #known(xattr: Xattr): { readonly id: number; readonly xattr: Xattr } {
    const key = keyOf(xattr.index, xattr.suffix, xattr.value);
    return this.#xattrs.get(key) ?? this.#add(key, xattr);
  }

  #one(name: string, value: Uint8Array): { readonly id: number; readonly xattr: Xattr } {
    const [prefix, index] = PREFIXES.find(([start]) => name.startsWith(start)) ?? ['', 0];
    const suffix = Buffer.from(name.slice(prefix.length), 'latin1');
    const key = keyOf(index, suffix, value);
    return this.#xattrs.get(key) ?? this.#add(key, new Xattr(index, suffix, Buffer.from(value)));
  }

  #add(key: string, xattr: Xattr): { readonly id: number; readonly xattr: Xattr } {
    this.#budget.take(RECORD_BYTES + key.length + xattr.size);
    const known = { id: this.#xattrs.size, xattr };
    this.#xattrs.set(key, known);
    return known;
  }

  #set(members: readonly { readonly id: number; readonly xattr: Xattr }[]): XattrSet {
    const key = members.map(({ id }) => id).join();
    let set = this.#sets.get(key);
    if (set === undefined) {
      this.#budget.take(RECORD_BYTES + key.length + members.length * 24);
      set = new XattrSet(members.map(({ xattr }) => xattr));
      this.#sets.set(key, set);
    }
    return set;
  }
}

function keyOf(index: number, suffix: Buffer, value: Uint8Array): string {
  const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  return `${index}${suffix.toString('latin1')}\0${bytes.toString('latin1')}`;
}

/**
 * What setting it would do: undefined for nothing but storing it, permission bits where it is stored and
 * changes the mode, `only` those where the mode then says it all, 'none' where it means nothing.
 */
function checked(
  entry: TarEntry,
  stored: string,
  { name, value }: TarXattr,
): undefined | number | { readonly only: number } | 'none' {
  const cant = (why: string) => refused(`can't set its attribute ${JSON.stringify(name)}: ${why}`);
  if (stored.length > MOST_NAME) throw cant('its name is too long');
  if (value.length > MOST_VALUE) {
    throw new TspodError(
      'limit',
      `more than the bound of ${MOST_VALUE} bytes in the attribute ${JSON.stringify(name)}`,
    );
  }
  if (stored === 'user.' || stored === 'trusted.') throw cant('it has no name of its own');
  if (stored.startsWith('user.')) {
    if (entry.type !== 'file' && entry.type !== 'directory') {
      throw cant('only files and folders have such attributes');
    }
  } else if (stored === 'security.capability') {
    if (!isCapability(value)) throw cant('these are no file capabilities');
  } else if (stored.startsWith('system.')) {
    return access(entry, stored, value, cant);
  }
  return undefined;
}

function access(
  entry: TarEntry,
  stored: string,
  value: Uint8Array,
  cant: (why: string) => TspodError,
): undefined | number | { readonly only: number } | 'none' {
  const isDefault = stored === 'system.posix_acl_default';
  if (!isDefault && stored !== 'system.posix_acl_access') throw cant('it is not known');
  if (entry.type === 'symlink') throw cant('a symbolic link has no access control list');
  const acl = readPosixAcl(value);
  if (acl === undefined) throw cant('this is no access control list');
  if (acl === 'none') return 'none';
  if (isDefault) {
    if (entry.type !== 'directory') throw cant('only folders have defaults');
    return undefined;
  }
  return acl.minimal ? { only: acl.permissions } : acl.permissions;
}

/** Versions 2 and 3 of struct vfs_cap_data, linux/capability.h. */
function isCapability(value: Uint8Array): boolean {
  const revision = value[3];
  return (value.length === 20 && revision === 2) || (value.length === 24 && revision === 3);
}
