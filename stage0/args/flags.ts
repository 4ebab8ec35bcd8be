/** What a flag is, for the tokeniser and for the help; and the values that were given, by type. */
import { TspodError } from '../../src/errors.ts';

export interface FlagSpec {
  /**
   * bool: `--x`, `--x=false`. text: `--x=V` or `--x V`, the last one counts. list: the same, each one counts.
   * optional: a value only by `--x=V`; plain `--x` is `bare`.
   */
  readonly kind: 'bool' | 'text' | 'list' | 'optional';
  readonly help: string;
  /** As the help shows it, and what `text` answers when the flag was not given. */
  readonly default?: string;
  /** Of `optional`. */
  readonly bare?: string;
  /** Binds to the image before it. `both`: before the first image it is for the whole pod. */
  readonly image?: 'only' | 'both';
  /** rkt's older name of another flag, or one that is not in the help. */
  readonly hidden?: boolean;
  /** The flag that this one is another name of. */
  readonly aliasOf?: string;
  /** rkt has it and this version can't honour it: what the refusal says. */
  readonly refused?: string;
}

export type FlagTable = Readonly<Record<string, FlagSpec>>;

/** Values by flag name, in the order given. */
export class FlagValues {
  readonly #table: FlagTable;
  readonly #values = new Map<string, string[]>();

  constructor(table: FlagTable) {
    this.#table = table;
  }

  add(name: string, value: string): void {
    const values = this.#values.get(name);
    if (values === undefined) this.#values.set(name, [value]);
    else values.push(value);
  }

  /** Nothing was given. */
  get isEmpty(): boolean {
    return this.#values.size === 0;
  }

  has(name: string): boolean {
    return this.#values.has(name);
  }

  /** The last value given, else the flag's default. */
  text(name: string): string | undefined {
    return this.#values.get(name)?.at(-1) ?? this.#table[name]?.default;
  }

  /** `text` of a flag that has a default. */
  textOr(name: string, fallback: string): string {
    return this.text(name) ?? fallback;
  }

  list(name: string): readonly string[] {
    return this.#values.get(name) ?? [];
  }

  bool(name: string): boolean {
    const text = this.text(name);
    return text !== undefined && parseBool(text, name);
  }
}

/** As Go's strconv.ParseBool, which rkt's flags go through. */
export function parseBool(text: string, flag: string): boolean {
  switch (text) {
    case '1':
    case 't':
    case 'T':
    case 'true':
    case 'TRUE':
    case 'True':
      return true;
    case '0':
    case 'f':
    case 'F':
    case 'false':
    case 'FALSE':
    case 'False':
      return false;
    default:
      throw new TspodError('usage', `--${flag}: ${JSON.stringify(text)} is not true or false`);
  }
}
