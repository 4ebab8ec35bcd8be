/**
 * Progress of a fetch on a terminal: one line per layer and a total, redrawn in place. Where standard error
 * is no terminal there is none at all, so pipes and journals stay clean.
 */
import type { WriteStream } from 'node:tty';
import { humanSize } from '../src/humanize.ts';

export interface ProgressItem {
  advance(bytes: number): void;
  /** A word instead of the figures, e.g. `unpacked`. */
  done(word: string): void;
}

export interface Progress {
  add(label: string, total: number): ProgressItem;
  /** Leaves the lines as they are and gives the terminal back. */
  close(): void;
}

const REDRAW_MS = 100;
const HIDE_CURSOR = '\x1b[?25l';
const SHOW_CURSOR = '\x1b[?25h';
const BAR = 24;

const SILENT: Progress = {
  add: () => ({ advance: () => undefined, done: () => undefined }),
  close: () => undefined,
};

export function openProgress(stream: WriteStream = process.stderr): Progress {
  return stream.isTTY ? new TerminalProgress(stream) : SILENT;
}

interface Line {
  readonly label: string;
  readonly total: number;
  bytes: number;
  word: string | undefined;
}

class TerminalProgress implements Progress {
  readonly #stream: WriteStream;
  readonly #lines: Line[] = [];
  #drawn = 0;
  #timer: NodeJS.Timeout | undefined;
  readonly #onExit = () => this.#stream.write(SHOW_CURSOR);
  readonly #onSignal = (signal: NodeJS.Signals) => {
    this.close();
    // Die of it, as if nobody had listened.
    process.kill(process.pid, signal);
  };

  constructor(stream: WriteStream) {
    this.#stream = stream;
  }

  add(label: string, total: number): ProgressItem {
    const line: Line = { label, total, bytes: 0, word: undefined };
    this.#lines.push(line);
    this.#start();
    return {
      advance: bytes => {
        line.bytes += bytes;
      },
      done: word => {
        line.bytes = line.total;
        line.word = word;
      },
    };
  }

  close(): void {
    if (this.#timer === undefined) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#draw();
    this.#stream.write(SHOW_CURSOR);
    process.off('exit', this.#onExit);
    process.off('SIGINT', this.#onSignal).off('SIGTERM', this.#onSignal);
  }

  #start(): void {
    if (this.#timer !== undefined) return;
    this.#stream.write(HIDE_CURSOR);
    process.once('exit', this.#onExit);
    process.once('SIGINT', this.#onSignal).once('SIGTERM', this.#onSignal);
    this.#timer = setInterval(() => this.#draw(), REDRAW_MS);
    this.#timer.unref();
  }

  #draw(): void {
    const { columns = 80, rows = 24 } = this.#stream;
    // Lines above the screen can't be redrawn: the running ones and the total have to fit.
    const room = Math.max(1, rows - 2);
    const running = this.#lines.filter(line => line.word === undefined);
    const shown = this.#lines.length <= room ? this.#lines : running.slice(0, room);
    const total: Line = {
      label: 'total',
      total: sum(this.#lines.map(line => line.total)),
      bytes: sum(this.#lines.map(line => line.bytes)),
      word: undefined,
    };
    const texts = [...shown, total].map(line => showLine(line).slice(0, columns - 1));
    const up = this.#drawn > 0 ? `\x1b[${this.#drawn}A` : '';
    this.#stream.write(`${up}\r\x1b[J${texts.join('\n')}\n`);
    this.#drawn = texts.length;
  }
}

function showLine({ label, total, bytes, word }: Line): string {
  const part = total === 0 ? 1 : Math.min(1, bytes / total);
  const filled = Math.round(part * BAR);
  const bar = `${'#'.repeat(filled)}${'.'.repeat(BAR - filled)}`;
  const figures = word ?? `${humanSize(bytes)} of ${humanSize(total)}`;
  return `${label.padEnd(12)} [${bar}] ${figures}`;
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, each) => total + each, 0);
}
