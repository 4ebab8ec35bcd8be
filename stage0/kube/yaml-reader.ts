/**
 * A YAML stream read into checked values: every field is asked for by name, and what nobody has asked for in the end is
 * an error that names it by its path and line. So nothing of a pod is ignored.
 */
import { LineCounter, type ParsedNode, parseAllDocuments, visit } from 'yaml';
import { TspodError } from '../../src/errors.ts';
import { isObject } from '../../src/image/json.ts';

const MAX_BYTES = 4 * 1024 * 1024;
const MAX_DOCUMENTS = 100;
const MAX_DEPTH = 64;
const MAX_ITEMS = 1000;
const MAX_TEXT = 1024 * 1024;
const MAX_ALIASES = 100;

type Key = string | number;

interface Source {
  readonly what: string;
  readonly lineOf: (path: readonly Key[]) => number | undefined;
}

/** The documents of the stream that are not empty. @throws TspodError 'pod', 'limit' */
export function readYaml(bytes: Uint8Array, what: string): readonly YamlReader[] {
  if (bytes.length > MAX_BYTES)
    throw new TspodError(
      'limit',
      `${what}: ${bytes.length} bytes is over the limit of ${MAX_BYTES}`,
    );
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (error) {
    throw new TspodError('pod', `${what}: it is not UTF-8`, { cause: error });
  }
  const lines = new LineCounter();
  const documents = parseAllDocuments(text, { lineCounter: lines, version: '1.2' });
  if (!Array.isArray(documents)) return [];
  if (documents.length > MAX_DOCUMENTS)
    throw new TspodError('limit', `${what}: over ${MAX_DOCUMENTS} documents`);
  return documents.flatMap(document => {
    const [fault] = document.errors;
    if (fault !== undefined) {
      const line = fault.linePos?.[0].line ?? 0;
      const [why = ''] = fault.message.split(/ at line | and | to |\n/);
      throw new TspodError('pod', `${what}: line ${line}: ${why.slice(0, 200)}`);
    }
    visit(document, {
      Node: (_key, _node, path) => {
        if (path.length > 2 * MAX_DEPTH)
          throw new TspodError('limit', `${what}: nested deeper than ${MAX_DEPTH} levels`);
      },
    });
    const value = contentOf(document, what);
    if (value === null || value === undefined) return [];
    const lineOf = (path: readonly Key[]) => {
      const node = document.getIn(path, true) as ParsedNode | undefined;
      const at = node?.range?.[0];
      return at === undefined ? undefined : lines.linePos(at).line;
    };
    return [new YamlReader(value, [], { what, lineOf })];
  });
}

/** @throws TspodError for aliases that come to too much */
function contentOf(document: ReturnType<typeof parseAllDocuments>[number], what: string): unknown {
  try {
    return document.toJS({ maxAliasCount: MAX_ALIASES });
  } catch (error) {
    if (!(error instanceof ReferenceError)) throw error;
    throw new TspodError('limit', `${what}: its aliases come to over ${MAX_ALIASES} copies`, {
      cause: error,
    });
  }
}

export class YamlReader {
  readonly value: unknown;
  readonly #path: readonly Key[];
  readonly #source: Source;
  readonly #asked = new Map<string, YamlReader>();

  constructor(value: unknown, path: readonly Key[], source: Source) {
    this.value = value;
    this.#path = path;
    this.#source = source;
  }

  get isAbsent(): boolean {
    return this.value === undefined || this.value === null;
  }

  /** `spec.containers[0].image` */
  get name(): string {
    return this.#path
      .map(key => (typeof key === 'number' ? `[${key}]` : `.${key}`))
      .join('')
      .replace(/^\./, '');
  }

  error(why: string, hint?: string): TspodError {
    const line = this.#source.lineOf(this.#path) ?? this.#source.lineOf(this.#path.slice(0, -1));
    const at = line === undefined ? '' : ` (line ${line})`;
    const name = this.name === '' ? 'it' : this.name;
    return new TspodError(
      'pod',
      `${this.#source.what}: ${name}${at}: ${why}`,
      hint === undefined ? {} : { hint },
    );
  }

  /** A field of an object; of what is absent everything is absent. */
  get(key: string): YamlReader {
    const known = this.#asked.get(key);
    if (known !== undefined) return known;
    if (!this.isAbsent && !isObject(this.value)) throw this.error('it is not an object');
    const value =
      isObject(this.value) && Object.hasOwn(this.value, key) ? this.value[key] : undefined;
    const field = new YamlReader(value, [...this.#path, key], this.#source);
    this.#asked.set(key, field);
    return field;
  }

  keys(): readonly string[] {
    if (this.isAbsent) return [];
    if (!isObject(this.value)) throw this.error('it is not an object');
    const keys = Object.keys(this.value);
    if (keys.length > MAX_ITEMS) throw this.error(`it has over ${MAX_ITEMS} fields`);
    return keys;
  }

  list(): readonly YamlReader[] {
    if (this.isAbsent) return [];
    if (!Array.isArray(this.value)) throw this.error('it is not a list');
    if (this.value.length > MAX_ITEMS) throw this.error(`it has over ${MAX_ITEMS} items`);
    return this.value.map((item: unknown, index) => {
      const known = this.#asked.get(`[${index}]`);
      if (known !== undefined) return known;
      const reader = new YamlReader(item, [...this.#path, index], this.#source);
      this.#asked.set(`[${index}]`, reader);
      return reader;
    });
  }

  text(): string {
    if (typeof this.value !== 'string') throw this.error('it is not a text', 'put it in quotes');
    if (this.value.length > MAX_TEXT) throw this.error(`it is longer than ${MAX_TEXT} characters`);
    if (this.value.includes('\0')) throw this.error('it has a NUL character');
    return this.value;
  }

  textOr<T>(absent: T): string | T {
    return this.isAbsent ? absent : this.text();
  }

  nonEmpty(): string {
    const text = this.isAbsent ? '' : this.text();
    if (text === '') throw this.error('it is missing');
    return text;
  }

  oneOf<T extends string>(words: readonly T[], absent: T): T {
    const text = this.textOr(absent);
    const found = words.find(word => word === text);
    if (found === undefined)
      throw this.error(
        `${JSON.stringify(text.slice(0, 60))} is unknown`,
        `give ${words.join(', ')}`,
      );
    return found;
  }

  texts(): readonly string[] {
    return this.list().map(item => item.text());
  }

  /** Every value a text. */
  textMap(): ReadonlyMap<string, string> {
    return new Map(this.keys().map(key => [key, this.get(key).text()]));
  }

  boolOr<T>(absent: T): boolean | T {
    if (this.isAbsent) return absent;
    if (typeof this.value !== 'boolean') throw this.error('it is neither true nor false');
    return this.value;
  }

  integerOr<T>(absent: T, low: number, high: number): number | T {
    if (this.isAbsent) return absent;
    const { value } = this;
    if (typeof value !== 'number' || !Number.isInteger(value) || value < low || value > high)
      throw this.error(`it is not a whole number from ${low} to ${high}`);
    return value;
  }

  /** A quantity of Kubernetes: a number, or a text as `500m` and `64Mi`. */
  quantityOr<T>(absent: T): string | T {
    if (this.isAbsent) return absent;
    return typeof this.value === 'number' ? String(this.value) : this.nonEmpty();
  }

  /** Read as a whole, by somebody who does not ask for its fields. */
  passed(): void {
    for (const key of this.isAbsent || !isObject(this.value) ? [] : this.keys())
      this.get(key).passed();
  }

  /** @throws TspodError for the first field, in the document's order, that nobody has asked for */
  refuseUnread(): void {
    const { value } = this;
    if (isObject(value)) {
      for (const key of Object.keys(value)) {
        const field = this.#asked.get(key);
        if (field !== undefined) field.refuseUnread();
        else if (value[key] !== null)
          throw this.get(key).error('it is not known, or not in this version', 'leave it out');
      }
    } else if (Array.isArray(value)) {
      for (const item of this.#asked.values()) item.refuseUnread();
    }
  }
}
