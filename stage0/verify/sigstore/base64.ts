/**
 * Standard base64 (RFC 4648, 4), strictly. Node's own reader skips what it does not know, so that many
 * texts would stand for one signature.
 */

/** undefined: not base64 as it is written (padding, no stray bits), empty, or more than `maxBytes` bytes. */
export function decodeBase64(text: string, maxBytes: number): Buffer | undefined {
  if (text.length > Math.ceil(maxBytes / 3) * 4) return undefined;
  const bytes = Buffer.from(text, 'base64');
  if (bytes.length === 0 || bytes.length > maxBytes) return undefined;
  return bytes.toString('base64') === text ? bytes : undefined;
}
