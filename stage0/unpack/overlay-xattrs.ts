/**
 * Overlayfs's controls on a layer's tree. Whiteouts of an archive (`.wh.NAME`, `.wh..wh..opq`; OCI image
 * specification, layer.md, "Whiteouts") become the kernel's: a character device 0:0, and the attribute
 * trusted.overlay.opaque=y.
 *
 * An image's own attributes below trusted.overlay. or user.overlay. must not become controls, so they
 * are escaped as overlayfs itself does it (Documentation/filesystems/overlayfs.rst, "Nesting overlayfs
 * mounts"): trusted.overlay.X is stored as trusted.overlay.overlay.X, which Linux 6.7 and later show as
 * trusted.overlay.X in the mount and older kernels hide.
 */

export const OPAQUE = 'trusted.overlay.opaque';
export const OPAQUE_VALUE = Buffer.from('y');

/**
 * The beginning of a whiteout's name. Where the kernel makes no device 0:0 (on overlayfs, for one), a layer's
 * tree keeps the archive's own form, an empty file `.wh.NAME`: no overlay can be mounted over such a tree, and
 * flattening reads both. No other file of a tree has such a name.
 */
export const WHITEOUT = '.wh.';
const OPAQUE_MARK = '.wh..wh..opq';
const METADATA = '.wh..wh.';

const CONTROL = /^(trusted|user)\.overlay\./;

/** The name to store an image's attribute under, or undefined for one that belongs to the host. */
export function storedXattr(name: string): string | undefined {
  if (name === 'security.capability' || name.startsWith('system.posix_acl_')) return name;
  if (CONTROL.test(name)) return name.replace(CONTROL, '$&overlay.');
  // Labels, IMA and EVM hashes and NFS lists say what this machine's policy thinks of a file.
  if (name.startsWith('user.') || name.startsWith('trusted.')) return name;
  return undefined;
}

/** The opposite of storedXattr for a copy outside overlayfs; undefined for overlayfs's own control. */
export function shownXattr(name: string): string | undefined {
  if (!CONTROL.test(name)) return name;
  const escaped = name.replace(/^(trusted|user)\.overlay\.overlay\./, '$1.overlay.');
  return escaped === name ? undefined : escaped;
}

export type WhiteoutKind =
  | { readonly kind: 'none' }
  | { readonly kind: 'ignored' }
  | { readonly kind: 'opaque' }
  | { readonly kind: 'whiteout'; readonly name: string }
  | { readonly kind: 'malformed' };

const NONE: WhiteoutKind = { kind: 'none' };

/** What an entry of these path components says to overlayfs. */
export function whiteoutKind(parts: readonly string[]): WhiteoutKind {
  for (let at = 0; at < parts.length; at += 1) {
    const part = parts[at] ?? '';
    if (!part.startsWith(WHITEOUT)) continue;
    const last = at === parts.length - 1;
    if (part === OPAQUE_MARK && last) return { kind: 'opaque' };
    // aufs's own, e.g. .wh..wh.plnk/ and what is in it
    if (part.startsWith(METADATA)) return { kind: 'ignored' };
    const name = part.slice(WHITEOUT.length);
    const well = last && name !== '' && name !== '.' && name !== '..';
    return well ? { kind: 'whiteout', name } : { kind: 'malformed' };
  }
  return NONE;
}
