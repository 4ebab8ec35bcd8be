/**
 * Reads a JSON document from outside into checked values, and names the place of whatever does not fit
 * (`pod manifest: apps[0].app.user: …`). `null` is as good as absent: Go writes it for empty lists.
 */
import { TspodError } from '../errors.ts';

export interface JsonBounds {
  /** For messages, e.g. "pod manifest". */
  readonly what: string;
  readonly maxBytes: number;
  readonly maxList: number;
  /** UTF-16 code units of one text */
  readonly maxText: number;
}

export class JsonReader {
  readonly value: unknown;
  readonly path: string;
  readonly #bounds: JsonBounds;

  private constructor(value: unknown, path: string, bounds: JsonBounds) {
    this.value = value;
    this.path = path;
    this.#bounds = bounds;
  }

  /** @throws TspodError 'limit' or 'pod' */
  static parse(bytes: Uint8Array, bounds: JsonBounds): JsonReader {
    if (bytes.length > bounds.maxBytes) {
      throw new TspodError(
        'limit',
        `${bounds.what}: ${bytes.length} bytes is over the limit of ${bounds.maxBytes}`,
      );
    }
    try {
      const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
      return new JsonReader(JSON.parse(text), bounds.what, bounds);
    } catch (error) {
      throw new TspodError('pod', `${bounds.what}: it is not JSON in UTF-8`, { cause: error });
    }
  }

  /** The error for this place. */
  wrong(why: string): TspodError {
    return new TspodError('pod', `${this.path}: ${why}`);
  }

  child(value: unknown, name: string): JsonReader {
    return new JsonReader(
      value,
      `${this.path}${name.startsWith('[') ? '' : this.path === this.#bounds.what ? ': ' : '.'}${name}`,
      this.#bounds,
    );
  }

  object(): ObjectReader {
    const { value } = this;
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      throw this.wrong('it is not an object');
    return new ObjectReader(this, new Map(Object.entries(value)));
  }

  list<T>(most: number, read: (item: JsonReader) => T): readonly T[] {
    if (!Array.isArray(this.value)) throw this.wrong('it is not a list');
    if (this.value.length > most) {
      throw new TspodError(
        'limit',
        `${this.path}: ${this.value.length} entries is over the limit of ${most}`,
      );
    }
    return this.value.map((item: unknown, index) => read(this.child(item, `[${index}]`)));
  }

  listOrEmpty<T>(read: (item: JsonReader) => T): readonly T[] {
    return this.value === undefined || this.value === null
      ? []
      : this.list(this.#bounds.maxList, read);
  }

  text(): string {
    if (typeof this.value !== 'string') throw this.wrong('it is not text');
    if (this.value.length > this.#bounds.maxText) {
      throw new TspodError(
        'limit',
        `${this.path}: ${this.value.length} characters is over the limit of ${this.#bounds.maxText}`,
      );
    }
    return this.value;
  }

  /** For what becomes a C string. */
  textWithoutNul(): string {
    const text = this.text();
    if (text.includes('\0')) throw this.wrong('it has a NUL byte');
    return text;
  }

  boolean(): boolean {
    if (typeof this.value !== 'boolean') throw this.wrong('it is neither true nor false');
    return this.value;
  }

  integer(least: number, most: number): number {
    const { value } = this;
    if (typeof value === 'number' && Number.isInteger(value) && value >= least && value <= most)
      return value;
    throw this.wrong(`it is not a whole number from ${least} to ${most}`);
  }

  oneOf<const T extends string>(words: readonly T[]): T {
    const found = words.find(word => word === this.value);
    if (found === undefined) throw this.wrong(`it is none of ${words.join(', ')}`);
    return found;
  }

  /** An object of texts. */
  textMap(): Readonly<Record<string, string>> {
    const object = this.object();
    return Object.fromEntries(object.names().map(name => [name, object.get(name).text()]));
  }
}

export class ObjectReader {
  readonly #reader: JsonReader;
  readonly #fields: ReadonlyMap<string, unknown>;
  readonly #read = new Set<string>();

  constructor(reader: JsonReader, fields: ReadonlyMap<string, unknown>) {
    this.#reader = reader;
    this.#fields = fields;
  }

  names(): readonly string[] {
    return [...this.#fields.keys()];
  }

  /** The field's reader, also where there is no such field. */
  get(name: string): JsonReader {
    this.#read.add(name);
    return this.#reader.child(this.#fields.get(name), name);
  }

  /** `{[name]: …}`, or nothing when the field is absent or null; for object spread. */
  optional<K extends string, T>(name: K, read: (field: JsonReader) => T): Partial<Record<K, T>> {
    const field = this.get(name);
    const part: Partial<Record<K, T>> = {};
    if (field.value !== undefined && field.value !== null) part[name] = read(field);
    return part;
  }

  /** @throws TspodError 'pod' that names a field which nobody has read */
  nothingElse(): void {
    for (const [name, value] of this.#fields) {
      if (!this.#read.has(name) && value !== null)
        throw this.#reader.child(value, name).wrong('there is no such field');
    }
  }
}
