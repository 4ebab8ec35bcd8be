/**
 * The tokeniser in front of the command table: which word is the command, which a flag's value, which an
 * image, and to which image a flag belongs. rkt's rules (rkt-1.30, rkt/run.go and rkt/image/flags):
 * flags of a command may stand before its name; a command may be shortened to a unique prefix; in `run` and
 * `prepare` a flag binds to the image before it, `--` starts that image's arguments and `---` ends them.
 *
 * It is our own, and not yargs, because no general parser knows what binds to what, and because importing
 * one costs as much as all the rest of `run` (docs/decisions.md).
 */
import { TspodError } from '../../src/errors.ts';
import { type FlagSpec, type FlagTable, FlagValues } from './flags.ts';

export interface CommandShape {
  /** `run`, `image list` */
  readonly path: string;
  readonly flags: FlagTable;
  /** `run` and `prepare`: words are images, with flags and arguments of their own. */
  readonly images?: boolean;
  /** `enter`: from its nth word on, everything is the command to execute, flags too. */
  readonly commandAfter?: number;
}

export interface ImageTokens {
  readonly reference: string;
  readonly flags: FlagValues;
  readonly appArgs: readonly string[];
}

export interface Tokens<C extends CommandShape> {
  readonly command: C;
  readonly globals: FlagValues;
  readonly flags: FlagValues;
  /** Words that are no flags; for `images` commands empty. */
  readonly positionals: readonly string[];
  readonly images: readonly ImageTokens[];
}

/** `missing`: no command was given; `help`: `--help` or `help` asks for a page. */
export type Asked<C extends CommandShape> =
  | { readonly kind: 'command'; readonly tokens: Tokens<C> }
  | { readonly kind: 'help'; readonly words: readonly string[] }
  | { readonly kind: 'missing' };

/** @throws TspodError 'usage', with rkt's words where rkt has the error. */
export function tokenize<C extends CommandShape>(
  argv: readonly string[],
  globals: FlagTable,
  commands: readonly C[],
  program: string,
): Asked<C> {
  const found = findCommand(argv, globals, commands, program);
  if (found === undefined) {
    return wantsHelp(argv) ? { kind: 'help', words: [] } : { kind: 'missing' };
  }
  const { command, words } = found;
  if (helpAsked(argv, command)) return { kind: 'help', words: command.path.split(' ') };
  return { kind: 'command', tokens: new Reader(argv, words, globals, command).read() };
}

function wantsHelp(argv: readonly string[]): boolean {
  return argv.includes('--help') || argv.includes('-h');
}

/** `--help` after `--` or after the words of `enter` is the app's. */
function helpAsked(argv: readonly string[], command: CommandShape): boolean {
  const end = argv.indexOf('--');
  const own = end < 0 ? argv : argv.slice(0, end);
  if (command.commandAfter === undefined) return wantsHelp(own);
  const start = own.findIndex(word => word === command.path);
  return wantsHelp(own.slice(0, start + 2));
}

interface Found<C> {
  readonly command: C;
  /** Where in argv its words stand. */
  readonly words: ReadonlySet<number>;
}

/** The first words that are neither flags nor flags' values name the command. */
function findCommand<C extends CommandShape>(
  argv: readonly string[],
  globals: FlagTable,
  commands: readonly C[],
  program: string,
): Found<C> | undefined {
  const words = new Set<number>();
  let candidates: readonly C[] = commands;
  let depth = 0;
  for (let index = 0; index < argv.length; index++) {
    const word = argv[index] ?? '';
    if (word === '--' || word === '---') break;
    if (isFlag(word)) {
      const { name, value } = splitFlag(word);
      if (value === undefined && takesNextWord(name, globals, candidates)) index++;
      continue;
    }
    candidates = narrow(candidates, depth, word, program);
    words.add(index);
    depth++;
    const [only] = candidates;
    if (candidates.length === 1 && only?.path.split(' ').length === depth)
      return { command: only, words };
  }
  if (depth === 0) return undefined;
  const group = candidates[0]?.path.split(' ').slice(0, depth).join(' ') ?? '';
  throw new TspodError('usage', `missing subcommand for "${program} ${group}"`, {
    hint: `run '${program} ${group} --help' for usage`,
  });
}

/** The commands whose word at `depth` is `word`, or begins with it when only one does. */
function narrow<C extends CommandShape>(
  candidates: readonly C[],
  depth: number,
  word: string,
  program: string,
): readonly C[] {
  const at = (command: C) => command.path.split(' ')[depth];
  const exact = candidates.filter(command => at(command) === word);
  if (exact.length > 0) return exact;
  const names = new Set(candidates.map(at).filter(name => name?.startsWith(word)));
  const [name] = names;
  if (names.size !== 1 || name === undefined) {
    const parent = candidates[0]?.path.split(' ').slice(0, depth).join(' ');
    const whole = parent === undefined || parent === '' ? program : `${program} ${parent}`;
    throw new TspodError('usage', `unknown command ${JSON.stringify(word)} for "${whole}"`, {
      hint: `run '${whole} --help' for usage`,
    });
  }
  return candidates.filter(command => at(command) === name);
}

function takesNextWord(
  name: string,
  globals: FlagTable,
  candidates: readonly CommandShape[],
): boolean {
  const spec =
    globals[name] ?? candidates.find(command => Object.hasOwn(command.flags, name))?.flags[name];
  return spec !== undefined && (spec.kind === 'text' || spec.kind === 'list');
}

class Reader<C extends CommandShape> {
  readonly #argv: readonly string[];
  readonly #commandWords: ReadonlySet<number>;
  readonly #globalTable: FlagTable;
  readonly #command: C;
  readonly #globals: FlagValues;
  readonly #flags: FlagValues;
  readonly #positionals: string[] = [];
  readonly #images: { reference: string; flags: FlagValues; appArgs: string[] | undefined }[] = [];

  constructor(
    argv: readonly string[],
    commandWords: ReadonlySet<number>,
    globals: FlagTable,
    command: C,
  ) {
    this.#argv = argv;
    this.#commandWords = commandWords;
    this.#globalTable = globals;
    this.#command = command;
    this.#globals = new FlagValues(globals);
    this.#flags = new FlagValues(command.flags);
  }

  read(): Tokens<C> {
    for (let index = 0; index < this.#argv.length; index++) {
      if (this.#commandWords.has(index)) continue;
      const word = this.#argv[index] ?? '';
      if (word === '--') index = this.#afterDashes(index);
      else if (isFlag(word)) index = this.#flag(word, index);
      else if (this.#positional(word)) {
        this.#positionals.push(...this.#argv.slice(index + 1));
        break;
      }
    }
    return {
      command: this.#command,
      globals: this.#globals,
      flags: this.#flags,
      positionals: this.#positionals,
      images: this.#images.map(image => ({ ...image, appArgs: image.appArgs ?? [] })),
    };
  }

  /** @returns the index of the last word that belongs to it */
  #afterDashes(index: number): number {
    if (!this.#command.images) {
      this.#positionals.push(...this.#argv.slice(index + 1));
      return this.#argv.length;
    }
    const image = this.#images.at(-1);
    if (image === undefined)
      throw new TspodError('usage', 'an image is required before any app arguments');
    if (image.appArgs !== undefined) {
      throw new TspodError('usage', 'only one set of app arguments allowed per image');
    }
    const end = this.#argv.indexOf('---', index);
    image.appArgs = this.#argv.slice(index + 1, end < 0 ? undefined : end);
    return end < 0 ? this.#argv.length : end;
  }

  #flag(word: string, index: number): number {
    const { name, value } = splitFlag(word);
    const { spec, target, canonical } = this.#lookUp(name, word);
    if (spec.refused !== undefined) {
      throw new TspodError('unsupported', `--${name}: ${spec.refused}`);
    }
    switch (spec.kind) {
      case 'bool':
        target.add(canonical, value ?? 'true');
        return index;
      case 'optional':
        target.add(canonical, value ?? spec.bare ?? '');
        return index;
      default: {
        const next = value ?? this.#argv[index + 1];
        if (next === undefined || (this.#commandWords.has(index + 1) && value === undefined)) {
          throw new TspodError('usage', `flag needs an argument: --${name}`);
        }
        target.add(canonical, next);
        return value === undefined ? index + 1 : index;
      }
    }
  }

  #lookUp(name: string, word: string): { spec: FlagSpec; target: FlagValues; canonical: string } {
    const own = ownSpec(this.#command.flags, name);
    if (own !== undefined) {
      const canonical = own.aliasOf ?? name;
      const image = this.#images.at(-1);
      if (own.image === undefined) return { spec: own, target: this.#flags, canonical };
      if (image !== undefined) return { spec: own, target: image.flags, canonical };
      if (own.image === 'only') throw new TspodError('usage', `--${name} must follow an image`);
      return { spec: own, target: this.#flags, canonical };
    }
    const global = ownSpec(this.#globalTable, name);
    if (global !== undefined) {
      return { spec: global, target: this.#globals, canonical: global.aliasOf ?? name };
    }
    throw new TspodError('usage', `unknown flag: ${splitFlag(word).shown}`, {
      hint: `see the flags with '${this.#command.path} --help'`,
    });
  }

  /** @returns true when all further words are this command's to pass on */
  #positional(word: string): boolean {
    if (this.#command.images) {
      this.#images.push({
        reference: word,
        flags: new FlagValues(this.#command.flags),
        appArgs: undefined,
      });
      return false;
    }
    this.#positionals.push(word);
    return (
      this.#command.commandAfter !== undefined &&
      this.#positionals.length >= this.#command.commandAfter
    );
  }
}

function ownSpec(table: FlagTable, name: string): FlagSpec | undefined {
  return Object.hasOwn(table, name) ? table[name] : undefined;
}

/** `-` alone is a word. */
function isFlag(word: string): boolean {
  return word.startsWith('-') && word !== '-';
}

function splitFlag(word: string): { name: string; value: string | undefined; shown: string } {
  const equals = word.indexOf('=');
  const shown = equals < 0 ? word : word.slice(0, equals);
  const name = shown.replace(/^--?/, '');
  return { name, value: equals < 0 ? undefined : word.slice(equals + 1), shown };
}
