/**
 * POSIX access control lists as the kernel takes them from user space (include/uapi/linux/posix_acl_xattr.h,
 * version 2). A file system checks a list when it is set and folds it into the mode; an image has nobody
 * who would, so it is done here, by the same rules (fs/posix_acl.c).
 */

const VERSION = 2;
const USER_OBJ = 0x01;
const USER = 0x02;
const GROUP_OBJ = 0x04;
const GROUP = 0x08;
const MASK = 0x10;
const OTHER = 0x20;

export interface PosixAcl {
  /** The nine permission bits that it gives. */
  readonly permissions: number;
  /** Whether these bits say all of it. */
  readonly minimal: boolean;
}

/** @returns 'none' for a list without entries, undefined for one that the kernel refuses */
export function readPosixAcl(value: Uint8Array): PosixAcl | 'none' | undefined {
  if (value.length === 0) return 'none';
  const view = new DataView(value.buffer, value.byteOffset, value.byteLength);
  if (value.length < 4 || view.getUint32(0, true) !== VERSION || value.length % 8 !== 4) {
    return undefined;
  }
  if (value.length === 4) return 'none';
  let before = 0;
  let permissions = 0;
  let mask: number | undefined;
  let named = false;
  for (let at = 4; at < value.length; at += 8) {
    const tag = view.getUint16(at, true);
    const permission = view.getUint16(at + 2, true);
    const id = view.getUint32(at + 4, true);
    if (permission > 7) return undefined;
    if (!follows(tag, before)) return undefined;
    if (tag === USER || tag === GROUP) {
      if (id === 0xffffffff) return undefined;
      named = true;
    } else if (tag === MASK) {
      mask = permission;
    } else {
      permissions |= permission << (tag === USER_OBJ ? 6 : tag === GROUP_OBJ ? 3 : 0);
    }
    before = tag;
  }
  if (before !== OTHER || (named && mask === undefined)) return undefined;
  if (mask === undefined) return { permissions, minimal: true };
  return { permissions: (permissions & 0o707) | (mask << 3), minimal: false };
}

/** Tags ascend; only named users and groups repeat; owner, group and others are always there. */
function follows(tag: number, before: number): boolean {
  switch (tag) {
    case USER_OBJ:
      return before === 0;
    case USER:
      return before === USER_OBJ || before === USER;
    case GROUP_OBJ:
      return before === USER_OBJ || before === USER;
    case GROUP:
      return before === GROUP_OBJ || before === GROUP;
    case MASK:
      return before === GROUP_OBJ || before === GROUP;
    case OTHER:
      return before === GROUP_OBJ || before === GROUP || before === MASK;
    default:
      return false;
  }
}
