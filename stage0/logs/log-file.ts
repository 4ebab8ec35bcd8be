/**
 * The log of one app in its files: `APP.log` and, older with each number, `APP.log.1`, `APP.log.2` …
 * They may be renamed and removed while they are read: a file is known by its inode, and where its end is reached
 * the next one is the one whose number is one less than the number that the file has by then.
 */
import { closeSync, constants, fstatSync, lstatSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { errnoOf, systemError, TspodError } from '../../src/errors.ts';
import { Joiner, type LogRecord, parseRecord } from './record.ts';

const CHUNK = 64 * 1024;
/** init writes no line longer than its head and 16 KiB. */
const MAX_LINE = 64 * 1024;
/** init keeps at most so many. */
const MOST_FILES = 100;
const NEWLINE = 0x0a;

export class LogFile {
  readonly app: string;
  readonly #path: string;
  readonly #joiner = new Joiner();
  #fd: number | undefined;
  #begun = false;
  #rest: Buffer = Buffer.alloc(0);
  /** Lines were removed before they were read. */
  missed = false;
  /** Lines that have not the form of a log's. */
  malformed = 0;

  constructor(folder: string, app: string) {
    this.app = app;
    this.#path = join(folder, `${app}.log`);
  }

  /** Records in order, until nothing more is there now; call it again later for what came since. */
  *read(): Generator<LogRecord> {
    if (this.#fd === undefined) this.#open(this.#begun ? 0 : this.#oldest());
    for (;;) {
      yield* this.#toEnd();
      const next = this.#next();
      if (next === undefined) return;
      // It was still written to between its end and its new name.
      yield* this.#toEnd();
      this.#open(next);
    }
  }

  /** Lines whose ends will not come any more. */
  unfinished(): readonly LogRecord[] {
    return this.#joiner.rest();
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }

  #name(number: number): string {
    return number === 0 ? this.#path : `${this.#path}.${number}`;
  }

  #oldest(): number {
    let number = 0;
    while (number < MOST_FILES && this.#inode(number + 1) !== undefined) number += 1;
    return number;
  }

  #inode(number: number): bigint | undefined {
    try {
      return lstatSync(this.#name(number), { bigint: true }).ino;
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined;
      throw systemError(`can't read ${this.#name(number)}`, error);
    }
  }

  /** Never through a link, and nothing but a file. */
  #open(from: number): void {
    this.close();
    this.#rest = Buffer.alloc(0);
    for (let number = from; number >= 0; number--) {
      try {
        const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
        this.#fd = openSync(this.#name(number), flags);
      } catch (error) {
        // Renamed meanwhile, or not there yet.
        if (errnoOf(error) === 'ENOENT') continue;
        throw systemError(`can't read ${this.#name(number)}`, error);
      }
      if (!fstatSync(this.#fd).isFile()) {
        throw new TspodError('pod', `${this.#name(number)}: it is not a regular file`);
      }
      this.#begun = true;
      return;
    }
  }

  /** The number of the file after this one; undefined: this one is the last. */
  #next(): number | undefined {
    if (this.#fd === undefined) return undefined;
    const { ino } = fstatSync(this.#fd, { bigint: true });
    let last = -1;
    for (let number = 0; number <= MOST_FILES; number++) {
      const found = this.#inode(number);
      if (found === ino) return number === 0 ? undefined : number - 1;
      // Between two renames of a rotation one may be missing, the first above all.
      if (found === undefined && number > 0) break;
      if (found !== undefined) last = number;
    }
    if (last < 0) return undefined;
    this.missed = true;
    return last;
  }

  *#toEnd(): Generator<LogRecord> {
    const chunk = Buffer.alloc(CHUNK);
    while (this.#fd !== undefined) {
      const length = readSync(this.#fd, chunk, 0, CHUNK, null);
      if (length === 0) return;
      yield* this.#lines(Buffer.concat([this.#rest, chunk.subarray(0, length)]));
    }
  }

  *#lines(bytes: Buffer): Generator<LogRecord> {
    let at = 0;
    for (let end = bytes.indexOf(NEWLINE); end >= 0; end = bytes.indexOf(NEWLINE, at)) {
      const record = parseRecord(bytes.subarray(at, end), this.app);
      at = end + 1;
      const line = record === undefined ? undefined : this.#joiner.add(record);
      if (record === undefined) this.malformed += 1;
      if (line !== undefined) yield line;
    }
    this.#rest = bytes.subarray(at);
    if (this.#rest.length > MAX_LINE) {
      // No line of a log; what follows up to the next newline goes with it, as malformed.
      this.#rest = this.#rest.subarray(-1);
    }
  }
}
