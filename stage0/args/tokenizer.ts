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
import { type FlagSpec, type FlagTable, FlagValues, parseBool } from './flags.ts';

export interface CommandShape {
  /** `run`, `image list` */
  readonly path: string;
  readonly flags: FlagTable;
  /** `run` and `prepare`: words are images, with flags and arguments of their own. */
  readonly images?: boolean;
  /** `enter`: how many words there are before everything is to be passed on, flags too. */
  readonly commandAfter?: (flags: FlagValues) => number;
  /** Not found by a prefix. */
  readonly hidden?: boolean;
  /** Likewise: rkt's commands keep their beginnings beside those that it has not. */
  readonly wholeName?: boolean;
}

/** Commands of rkt that this version does not have, by path, and why. */
export type RefusedCommands = ReadonlyMap<string, string>;

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

/** What there is: the tables that a command line is read by. */
export interface Grammar<C extends CommandShape> {
  readonly program: string;
  readonly globals: FlagTable;
  readonly commands: readonly C[];
  readonly refused: RefusedCommands;
}

/**
 * @throws TspodError 'usage', with rkt's words where rkt has the error; 'unsupported' for a flag or command
 * of rkt's that this version does not have
 */
export function tokenize<C extends CommandShape>(
  argv: readonly string[],
  grammar: Grammar<C>,
): Asked<C> {
  const found = findCommand(argv, grammar);
  if (found.command === undefined) {
    if (wantsHelp(argv)) return { kind: 'help', words: found.group };
    if (found.group.length === 0) return { kind: 'missing' };
    const group = `${grammar.program} ${found.group.join(' ')}`;
    throw new TspodError('usage', `missing subcommand for "${group}"`, {
      hint: `run '${group} --help' for usage`,
    });
  }
  const { command, words } = found;
  const tokens = new Reader(argv, words, grammar, command).read();
  return tokens === 'help'
    ? { kind: 'help', words: command.path.split(' ') }
    : { kind: 'command', tokens };
}

/**
 * The value of a flag in a command line that may be wrong elsewhere.
 * @param paths the commands that have the flag
 */
export function flagDespiteErrors<C extends CommandShape>(
  argv: readonly string[],
  grammar: Grammar<C>,
  paths: readonly string[],
  name: string,
): string | undefined {
  try {
    const { command, words } = findCommand(argv, grammar);
    if (command === undefined || !paths.includes(command.path)) return undefined;
    return new Reader(argv, words, grammar, command).readFlags().text(name);
  } catch (error) {
    if (error instanceof TspodError) return undefined;
    throw error;
  }
}

function wantsHelp(argv: readonly string[]): boolean {
  const end = argv.indexOf('--');
  const own = end < 0 ? argv : argv.slice(0, end);
  return own.includes('--help') || own.includes('-h');
}

interface Found<C> {
  readonly command: C | undefined;
  /** Without a command: the words that lead to several, `image`. */
  readonly group: readonly string[];
  /** Where in argv its words stand. */
  readonly words: ReadonlySet<number>;
}

/** The first words that are neither flags nor flags' values name the command. */
function findCommand<C extends CommandShape>(
  argv: readonly string[],
  grammar: Grammar<C>,
): Found<C> {
  const words = new Set<number>();
  const group: string[] = [];
  let candidates: readonly C[] = grammar.commands;
  for (let index = 0; index < argv.length; index++) {
    const word = argv[index] ?? '';
    if (word === '--') break;
    if (isFlag(word)) {
      const { name, value } = splitFlag(word);
      if (value === undefined && takesNextWord(name, grammar.globals, candidates)) index++;
      continue;
    }
    const own = ownCommand(candidates, group);
    if (own !== undefined && !candidates.some(each => wordAt(each, group.length) === word)) break;
    candidates = narrow(candidates, group, word, grammar);
    words.add(index);
    const [only] = candidates;
    group.push(only?.path.split(' ')[group.length] ?? word);
    if (candidates.length === 1 && only?.path.split(' ').length === group.length)
      return { command: only, group, words };
  }
  return { command: ownCommand(candidates, group), group, words };
}

/** `trust` is a command, and the beginning of `trust list`: the words behind it are its own unless they are that. */
function ownCommand<C extends CommandShape>(
  candidates: readonly C[],
  group: readonly string[],
): C | undefined {
  const path = group.join(' ');
  return path === '' ? undefined : candidates.find(command => command.path === path);
}

function wordAt(command: CommandShape, index: number): string | undefined {
  return command.path.split(' ')[index];
}

/** The commands whose word behind `group` is `word`, or begins with it when only one does. */
function narrow<C extends CommandShape>(
  candidates: readonly C[],
  group: readonly string[],
  word: string,
  { program, refused }: Grammar<C>,
): readonly C[] {
  const at = (command: C) => wordAt(command, group.length);
  const exact = candidates.filter(command => at(command) === word);
  if (exact.length > 0) return exact;
  const path = [...group, word].join(' ');
  const why = refused.get(path);
  if (why !== undefined) throw new TspodError('unsupported', `${path}: ${why}`);
  const beginning = candidates.filter(
    command => !command.hidden && !command.wholeName && at(command)?.startsWith(word),
  );
  const names = new Set(beginning.map(at));
  if (word !== '' && names.size === 1) return candidates.filter(command => names.has(at(command)));
  const whole = [program, ...group].join(' ');
  const several = word !== '' && names.size > 1 ? `it could be ${[...names].join(', ')}; ` : '';
  throw new TspodError('usage', `unknown command ${JSON.stringify(word)} for "${whole}"`, {
    hint: `${several}run '${whole} --help' for usage`,
  });
}

/** Before the command is known: a flag of the same name takes a word in every command or in none. */
function takesNextWord(
  name: string,
  globals: FlagTable,
  candidates: readonly CommandShape[],
): boolean {
  const owner = candidates.find(command => Object.hasOwn(command.flags, name));
  const spec = ownSpec(globals, name) ?? owner?.flags[name];
  return spec !== undefined && (spec.kind === 'text' || spec.kind === 'list');
}

class Reader<C extends CommandShape> {
  readonly #argv: readonly string[];
  readonly #commandWords: ReadonlySet<number>;
  readonly #grammar: Grammar<C>;
  readonly #command: C;
  readonly #globals: FlagValues;
  readonly #flags: FlagValues;
  readonly #positionals: string[] = [];
  readonly #images: { reference: string; flags: FlagValues; appArgs: string[] | undefined }[] = [];

  constructor(
    argv: readonly string[],
    commandWords: ReadonlySet<number>,
    grammar: Grammar<C>,
    command: C,
  ) {
    this.#argv = argv;
    this.#commandWords = commandWords;
    this.#grammar = grammar;
    this.#command = command;
    this.#globals = new FlagValues(grammar.globals);
    this.#flags = new FlagValues(command.flags);
  }

  /** `help` as soon as it is asked for: what is wrong behind it does not matter. */
  read(): Tokens<C> | 'help' {
    for (let index = 0; index < this.#argv.length; index++) {
      if (this.#commandWords.has(index)) continue;
      const word = this.#argv[index] ?? '';
      if (word === '--') index = this.#afterDashes(index);
      else if (isFlag(word)) {
        index = this.#flag(word, index);
        if (this.#globals.bool('help')) return 'help';
      } else if (this.#positional(word)) {
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

  /** The command's own flags as far as they can be read. */
  readFlags(): FlagValues {
    for (let index = 0; index < this.#argv.length; index++) {
      const word = this.#argv[index] ?? '';
      if (word === '--') {
        index = this.#endOfArguments(index);
      } else if (isFlag(word)) {
        try {
          index = this.#flag(word, index);
        } catch (error) {
          if (!(error instanceof TspodError)) throw error;
          const { name, value } = splitFlag(word);
          const hasWord = takesNextWord(name, this.#grammar.globals, [this.#command]);
          if (value === undefined && hasWord) index++;
        }
      }
    }
    return this.#flags;
  }

  /** Where `---` is, or the end. */
  #endOfArguments(index: number): number {
    const end = this.#argv.indexOf('---', index);
    return end < 0 ? this.#argv.length : end;
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
    const end = this.#endOfArguments(index);
    image.appArgs = this.#argv.slice(index + 1, end);
    return end;
  }

  #flag(word: string, index: number): number {
    const { name, value } = splitFlag(word);
    const { spec, target, canonical } = this.#lookUp(name, word);
    if (spec.refused !== undefined) {
      // Scripts for rkt spell out its defaults: `--mds-register=false` asks for nothing.
      if (spec.kind === 'bool' && !parseBool(value ?? 'true', name)) return index;
      throw new TspodError('unsupported', `--${name}: ${spec.refused}`);
    }
    switch (spec.kind) {
      case 'bool':
        parseBool(value ?? 'true', name);
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
    const global = ownSpec(this.#grammar.globals, name);
    if (global !== undefined) {
      return { spec: global, target: this.#globals, canonical: global.aliasOf ?? name };
    }
    throw new TspodError('usage', unknownFlag(word), {
      hint: `run '${this.#grammar.program} ${this.#command.path} --help' for usage${this.#images.length > 0 ? `, or put "--" before the app's own arguments` : ''}`,
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
      this.#positionals.length >= this.#command.commandAfter(this.#flags)
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

/** `--x`, `--x=V`, and of one dash names of one letter (`-h`), as pflag, which are none with two dashes. */
function splitFlag(word: string): { name: string; value: string | undefined } {
  if (/^-[a-z]$/.test(word)) return { name: word.slice(1), value: undefined };
  if (!word.startsWith('--') || /^--[a-z]$/.test(word)) return { name: '', value: undefined };
  const equals = word.indexOf('=');
  return equals < 0
    ? { name: word.slice(2), value: undefined }
    : { name: word.slice(2, equals), value: word.slice(equals + 1) };
}

/** pflag's words. */
function unknownFlag(word: string): string {
  if (!word.startsWith('--')) {
    return `unknown shorthand flag: ${JSON.stringify([...word][1])} in ${word}`;
  }
  if (word.startsWith('--=')) return `bad flag syntax: ${word}`;
  return `unknown flag: ${word.split('=', 1)[0]}`;
}
