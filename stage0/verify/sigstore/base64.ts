/**
 * Standard base64 (RFC 4648, 4), strictly. Node's own reader skips what it does not know, so that many
 * texts would stand for one signature.
 */

const GRAMMAR = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

/** undefined: not base64, empty, or more than `maxBytes` bytes. */
export function decodeBase64(text: string, maxBytes: number): Buffer | undefined {
  if (text.length > Math.ceil(maxBytes / 3) * 4 || !GRAMMAR.test(text)) return undefined;
  const bytes = Buffer.from(text, 'base64');
  return bytes.length === 0 || bytes.length > maxBytes ? undefined : bytes;
}
