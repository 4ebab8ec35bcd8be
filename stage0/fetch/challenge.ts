/**
 * The WWW-Authenticate header (RFC 9110, 11.6.1): a list of challenges, each a scheme with parameters.
 * Bounded in length and count; what does not follow the grammar is refused, not guessed at.
 */
export interface Challenge {
  /** lower case */
  readonly scheme: string;
  /** Names in lower case. */
  readonly parameters: ReadonlyMap<string, string>;
}

const MAX_HEADER = 8192;
const MAX_CHALLENGES = 8;
const MAX_PARAMETERS = 32;

const TOKEN = /[!#$%&'*+.^_`|~0-9A-Za-z-]+/y;
const TOKEN68 = /[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$))/y;
const QUOTED = /"((?:[^"\\\p{Cc}]|\t|\\[^\p{Cc}])*)"/uy;
const SPACE = /[ \t]*/y;
const COMMAS = /[ \t,]*/y;

/** Undefined when the header breaks the grammar or a bound. */
export function parseChallenges(header: string): readonly Challenge[] | undefined {
  if (header.length > MAX_HEADER) return undefined;
  const scanner = new Scanner(header);
  const challenges: { scheme: string; parameters: Map<string, string> }[] = [];
  scanner.take(COMMAS);
  while (!scanner.done) {
    const word = scanner.take(TOKEN);
    if (word === undefined) return undefined;
    const current = challenges.at(-1);
    const mark = scanner.at;
    scanner.take(SPACE);
    if (scanner.literal('=') && current !== undefined) {
      scanner.take(SPACE);
      const value =
        scanner.take(QUOTED)?.slice(1, -1).replace(/\\(.)/gu, '$1') ?? scanner.take(TOKEN);
      const name = word.toLowerCase();
      if (value === undefined || current.parameters.has(name)) return undefined;
      current.parameters.set(name, value);
      if (current.parameters.size > MAX_PARAMETERS) return undefined;
    } else {
      scanner.at = mark;
      challenges.push({ scheme: word.toLowerCase(), parameters: new Map() });
      if (challenges.length > MAX_CHALLENGES) return undefined;
      if ((scanner.take(SPACE) ?? '') !== '' && !scanner.done) {
        const start = scanner.at;
        // `Negotiate dG9rZW4=` has one value without a name; `a=b` is not such a one.
        const value = scanner.take(TOKEN68);
        if (value !== undefined && /=./.test(value)) scanner.at = start;
        continue;
      }
    }
    const before = scanner.at;
    scanner.take(COMMAS);
    if (!scanner.done && !header.slice(before, scanner.at).includes(',')) return undefined;
  }
  return challenges;
}

class Scanner {
  at = 0;
  readonly #text: string;

  constructor(text: string) {
    this.#text = text;
  }

  get done(): boolean {
    return this.at >= this.#text.length;
  }

  take(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.#text)?.[0];
    if (found !== undefined) this.at += found.length;
    return found;
  }

  literal(text: string): boolean {
    if (!this.#text.startsWith(text, this.at)) return false;
    this.at += text.length;
    return true;
  }
}
