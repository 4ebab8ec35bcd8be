/** Grammar of names in appc manifests (appc 0.8.11, "AC Identifier Type", "AC Name Type", "Image ID Type"). */

/** Longer than any host and path that anybody uses; discovery makes URLs of it. */
const MAX_IDENTIFIER = 512;
const IDENTIFIER = /^[a-z0-9]+(?:[-._~/][a-z0-9]+)*$/;

/** Names of images, labels and annotations. */
export function isAcIdentifier(text: string): boolean {
  return text.length <= MAX_IDENTIFIER && IDENTIFIER.test(text);
}
