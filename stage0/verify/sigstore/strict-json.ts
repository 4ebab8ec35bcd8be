/**
 * JSON that was signed, or that carries signatures: bounded as all JSON from outside, and refused where one
 * object names a key twice. Readers disagree on which of the two counts, so that a signer and a verifier
 * could see different documents in the same bytes (RFC 8259, 4).
 */

import { TspodError } from '../../../src/errors.ts';
import { type DocumentKind, parseBoundedJson } from '../../../src/image/json.ts';

/** @throws TspodError 'limit' for a bound, else the kind's code. */
export function parseStrictJson(bytes: Uint8Array, maxBytes: number, kind: DocumentKind): unknown {
  const value = parseBoundedJson(bytes, maxBytes, kind);
  const key = duplicateKey(new TextDecoder().decode(bytes));
  if (key !== undefined) {
    throw new TspodError(
      kind.code,
      `${kind.what}: the key ${JSON.stringify(key.slice(0, 80))} stands twice in one object`,
    );
  }
  return value;
}

/** The first key that an object repeats. The text is JSON already: JSON.parse took it. */
function duplicateKey(text: string): string | undefined {
  // One entry for each open object or list: an object's keys so far, which most have few of; a list has none.
  const open: (Set<string> | 'empty' | 'list')[] = [];
  let keyNext = false;
  for (let at = 0; at < text.length; at += 1) {
    const char = text[at];
    if (char === '"') {
      const end = endOfString(text, at);
      if (keyNext) {
        // Decoded, because "a" and "\u0061" are the same key.
        const key: unknown = JSON.parse(text.slice(at, end));
        const keys = open.at(-1);
        if (typeof key === 'string') {
          if (keys instanceof Set) {
            if (keys.has(key)) return key;
            keys.add(key);
          } else open[open.length - 1] = new Set([key]);
        }
      }
      keyNext = false;
      at = end - 1;
    } else if (char === '{') {
      open.push('empty');
      keyNext = true;
    } else if (char === '[') open.push('list');
    else if (char === '}' || char === ']') open.pop();
    else if (char === ',') keyNext = open.at(-1) !== 'list';
  }
  return undefined;
}

/** Behind the closing quote. */
function endOfString(text: string, start: number): number {
  let at = start + 1;
  while (at < text.length && text[at] !== '"') at += text[at] === '\\' ? 2 : 1;
  return at + 1;
}
