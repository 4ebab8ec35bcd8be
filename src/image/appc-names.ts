/** Grammar of names in appc manifests (appc 0.8.11, "AC Identifier Type", "AC Name Type", "Image ID Type"). */

/** Longer than any host and path that anybody uses; discovery makes URLs of it. */
const MAX_IDENTIFIER = 512;
const IDENTIFIER = /^[a-z0-9]+(?:[-._~/][a-z0-9]+)*$/;

/** Names of images, labels and annotations. */
export function isAcIdentifier(text: string): boolean {
  return text.length <= MAX_IDENTIFIER && IDENTIFIER.test(text);
}

const MAX_VERSION = 256;

/** "AC Version Type": a semantic version (semver.org 2.0.0), or as rkt takes it, with less after the dots. */
export function isAcVersion(text: string): boolean {
  return text.length <= MAX_VERSION && /^\d+\.\d+\.\d+(?:[-+][0-9A-Za-z.+-]+)?$/.test(text);
}

/** "Image ID Type": SHA-512 of the uncompressed archive, or its first digits. */
export function isAcImageId(text: string): boolean {
  return /^sha512-[0-9a-f]{2,128}$/.test(text);
}
