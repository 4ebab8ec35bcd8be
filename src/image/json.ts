/**
 * JSON from outside, with bounds, and readers that check one field at a time and say its path.
 *
 * JSON.parse has no bound of its own but the memory; a document's size and nesting are checked before it
 * sees a byte. The readers build plain values of known types, so nobody casts what a server sent.
 */
import { TspodError } from '../errors.ts';

export type JsonObject = Readonly<Record<string, unknown>>;

/** What a document is, for messages, and what its faults are reported as. */
export interface DocumentKind {
  /** e.g. `manifest sha256:…` or a file's path */
  readonly what: string;
  readonly code: 'protocol' | 'config';
}

const MAX_DEPTH = 64;

/**
 * Parses UTF-8 JSON of at most `maxBytes` bytes and 64 levels.
 * @throws TspodError 'limit' for a bound, else the kind's code.
 */
export function parseBoundedJson(bytes: Uint8Array, maxBytes: number, kind: DocumentKind): unknown {
  if (bytes.length > maxBytes) {
    throw new TspodError(
      'limit',
      `${kind.what}: ${bytes.length} bytes is over the limit of ${maxBytes}`,
    );
  }
  if (depthOver(bytes, MAX_DEPTH)) {
    throw new TspodError('limit', `${kind.what}: nested deeper than ${MAX_DEPTH} levels`);
  }
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (error) {
    throw new TspodError(kind.code, `${kind.what}: it is not UTF-8`, { cause: error });
  }
  try {
    return JSON.parse(text);
  } catch (error) {
    // V8 quotes a piece of the document, which may hold a password.
    throw new TspodError(kind.code, `${kind.what}: it is not JSON`, { cause: error });
  }
}

function depthOver(bytes: Uint8Array, max: number): boolean {
  let depth = 0;
  let quoted = false;
  for (let at = 0; at < bytes.length; at += 1) {
    const byte = bytes[at];
    if (quoted) {
      if (byte === 0x5c) at += 1;
      else if (byte === 0x22) quoted = false;
    } else if (byte === 0x22) quoted = true;
    else if (byte === 0x7b || byte === 0x5b) {
      depth += 1;
      if (depth > max) return true;
    } else if (byte === 0x7d || byte === 0x5d) depth -= 1;
  }
  return false;
}

/** Reads values below one document and reports faults by their JSON path. */
export class JsonReader {
  readonly kind: DocumentKind;

  constructor(kind: DocumentKind) {
    this.kind = kind;
  }

  fail(path: string, why: string): never {
    throw new TspodError(this.kind.code, `${this.kind.what}: ${path === '' ? 'it' : path} ${why}`);
  }

  object(value: unknown, path: string): JsonObject {
    if (!isObject(value)) this.fail(path, 'is not an object');
    return value;
  }

  /** null counts as absent: Go's encoders write it for empty lists and maps. */
  optionalObject(value: unknown, path: string): JsonObject | undefined {
    return value === undefined || value === null ? undefined : this.object(value, path);
  }

  array(value: unknown, path: string, max: number): readonly unknown[] {
    if (!Array.isArray(value)) this.fail(path, 'is not a list');
    if (value.length > max) {
      throw new TspodError(
        'limit',
        `${this.kind.what}: ${path} has ${value.length} items, over the limit of ${max}`,
      );
    }
    return value;
  }

  string(value: unknown, path: string): string {
    if (typeof value !== 'string') this.fail(path, 'is not a string');
    return value;
  }

  nonEmptyString(value: unknown, path: string): string {
    const text = this.string(value, path);
    if (text === '') this.fail(path, 'is empty');
    return text;
  }

  optionalString(value: unknown, path: string): string | undefined {
    return value === undefined || value === null ? undefined : this.string(value, path);
  }

  strings(value: unknown, path: string, max: number): readonly string[] {
    if (value === undefined || value === null) return [];
    return this.array(value, path, max).map((item, index) =>
      this.string(item, `${path}[${index}]`),
    );
  }

  stringMap(value: unknown, path: string, max: number): Readonly<Record<string, string>> {
    const object = this.optionalObject(value, path);
    // Without a prototype, so that a key called __proto__ is a key.
    const map: Record<string, string> = Object.create(null);
    for (const key of this.keys(object, path, max)) {
      map[key] = this.string(object?.[key], `${path}[${JSON.stringify(key.slice(0, 80))}]`);
    }
    return map;
  }

  keys(object: JsonObject | undefined, path: string, max: number): readonly string[] {
    const keys = object === undefined ? [] : Object.keys(object);
    if (keys.length > max) {
      throw new TspodError(
        'limit',
        `${this.kind.what}: ${path} has ${keys.length} keys, over the limit of ${max}`,
      );
    }
    return keys;
  }

  size(value: unknown, path: string): number {
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) {
      this.fail(path, 'is not a whole number of bytes');
    }
    return value;
  }
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
