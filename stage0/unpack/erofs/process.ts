/**
 * Starts the child that takes layers in as EROFS (child.ts) and owns it: hands its sockets to one layer
 * after another, watches its progress, caps what it may say, and ends it (security rows 17 and 26).
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { TspodError } from '../../../src/errors.ts';
import { artifact } from '../../../src/sys/artifacts.ts';
import {
  ABORT,
  FIRST_SLOT,
  type IndexAnswer,
  type Indexed,
  type IndexJob,
  SLOTS,
} from './message.ts';

/** Characters of an answer, and of the child's standard error, that are kept. */
const OUTPUT_CAP = 64 * 1024;

/** One layer's way to the child. */
export interface IndexStream {
  /** Resolves when the child can take more. @throws the child's failure */
  write(chunk: Uint8Array): Promise<void>;
  finish(): Promise<Indexed>;
  /** Resolves when the child no longer touches the layer's folder. */
  abort(): Promise<void>;
}

export class IndexProcess {
  readonly #child: ChildProcess;
  readonly #closed: Promise<void>;
  readonly #idleMs: number;
  readonly #all: readonly Slot[];
  readonly #free: Slot[];
  readonly #waiting: { give(slot: Slot): void; fail(error: TspodError): void }[] = [];
  #errors = '';
  #failure: TspodError | undefined;
  #ended = false;

  /**
   * @param root the folder that the child is confined to
   * @param idleMs how long the child may neither take a byte nor say that it works
   */
  constructor(root: string, idleMs: number) {
    this.#idleMs = idleMs;
    const message = JSON.stringify({ parent: process.pid, root });
    this.#child = spawn(process.execPath, [...NODE_FLAGS, entry(), message], {
      stdio: ['ignore', 'ignore', 'pipe', ...Array.from({ length: SLOTS }, () => 'pipe' as const)],
      // Large buffers go back to the kernel at once, instead of to a heap that never shrinks (mallopt(3)).
      env: { MALLOC_MMAP_THRESHOLD_: '131072', MALLOC_TRIM_THRESHOLD_: '1048576' },
      cwd: '/',
      // Ctrl-C is for the one who was started, whose end is this one's (dieWithParent).
      detached: true,
    });
    this.#child.stderr?.on('data', (chunk: Buffer) => {
      if (this.#errors.length < OUTPUT_CAP) this.#errors += chunk.toString('utf8');
    });
    this.#all = Array.from({ length: SLOTS }, (_, slot) => {
      const socket = this.#child.stdio[FIRST_SLOT + slot];
      if (!(socket instanceof Socket)) throw new Error('a pipe to a child is a socket');
      return new Slot(socket, () => this.kill('the unpacker said more than it may'));
    });
    this.#free = [...this.#all];
    // Nobody waits for a child that has no job.
    this.#child.unref();
    if (this.#child.stderr instanceof Socket) this.#child.stderr.unref();
    this.#closed = new Promise<void>(resolve => {
      this.#child.on('error', error => {
        this.#failure ??= new TspodError('system', `can't start the unpacker: ${error.message}`);
        resolve();
      });
      this.#child.on('close', () => resolve());
    }).then(() => {
      this.#ended = true;
      const failure = this.#death();
      for (const slot of this.#all) slot.fail(failure);
      for (const next of this.#waiting.splice(0)) next.fail(failure);
    });
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** Takes a slot, waiting for one when all are in use, and sends the job. */
  async begin(job: IndexJob): Promise<IndexStream> {
    const slot = await this.#take();
    slot.start(job);
    let released = false;
    const release = () => {
      if (released) return;
      released = true;
      const next = this.#waiting.shift();
      if (next === undefined) this.#free.push(slot);
      else next.give(slot);
    };
    const watched = async <T>(work: Promise<T>): Promise<T> => {
      const timer = setTimeout(
        () => this.kill(`the unpacker made no progress for ${Math.round(this.#idleMs / 1000)} s`),
        this.#idleMs,
      );
      slot.onHeard = () => timer.refresh();
      try {
        return await work;
      } finally {
        clearTimeout(timer);
      }
    };
    return {
      write: async chunk => {
        const full = slot.write(chunk);
        if (full !== undefined) await watched(full);
      },
      finish: async () => {
        slot.end(0);
        const answer = await watched(slot.answer);
        release();
        if (answer.ok) return answer.result;
        throw failureOf(answer);
      },
      abort: async () => {
        if (released) return;
        slot.end(ABORT);
        await watched(slot.answer);
        release();
      },
    };
  }

  /** Lets the child end, which it does when its sockets are closed, and waits for that. */
  async close(): Promise<void> {
    this.#child.ref();
    for (const slot of this.#all) slot.close();
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), this.#idleMs);
    await this.#closed;
    clearTimeout(timer);
  }

  kill(why: string): void {
    this.#failure ??= new TspodError('unpack', `layer: ${why}`);
    this.#child.kill('SIGKILL');
  }

  async #take(): Promise<Slot> {
    if (this.#ended) throw this.#death();
    const slot = this.#free.shift();
    if (slot !== undefined) return slot;
    return new Promise((give, fail) => {
      this.#waiting.push({ give, fail });
    });
  }

  #death(): TspodError {
    if (this.#failure !== undefined) return this.#failure;
    const { exitCode, signalCode } = this.#child;
    const why = signalCode === null ? `exit status ${exitCode}` : signalCode;
    const said = this.#errors.trim().split('\n').slice(-8).join(' ').slice(0, 500);
    const message = `layer: the unpacker ended without an answer (${why})`;
    return new TspodError('unpack', said === '' ? message : `${message}: ${said}`);
  }
}

/** One socket, and the job that it has. */
class Slot {
  readonly #socket: Socket;
  readonly #tooMuch: () => void;
  #text = '';
  #answered = true;
  #answer: IndexAnswer | undefined;
  #resolve: ((answer: IndexAnswer) => void) | undefined;
  #failure: TspodError | undefined;
  #wake: (() => void) | undefined;
  #closed = true;
  answer: Promise<IndexAnswer> = Promise.resolve({ ok: false, code: 'unpack', message: 'no job' });
  onHeard: (() => void) | undefined;

  constructor(socket: Socket, tooMuch: () => void) {
    this.#socket = socket;
    this.#tooMuch = tooMuch;
    socket.on('data', (chunk: Buffer) => this.#hear(chunk));
    socket.on('drain', () => {
      this.onHeard?.();
      this.#wake?.();
    });
    // What matters is why the child ended; the pipe's EPIPE is only its consequence.
    socket.on('error', () => this.#wake?.());
    socket.unref();
  }

  start(job: IndexJob): void {
    this.#answered = false;
    this.#answer = undefined;
    this.#closed = false;
    this.answer = new Promise(resolve => {
      this.#resolve = resolve;
    });
    this.#socket.ref();
    if (this.#failure !== undefined) this.fail(this.#failure);
    else this.#frame(Buffer.from(JSON.stringify(job)));
  }

  /** @returns what to wait for before the next write, when the child has enough for now */
  write(chunk: Uint8Array): Promise<void> | undefined {
    this.#check();
    if (chunk.length === 0 || this.#frame(chunk)) return undefined;
    return new Promise<void>(resolve => {
      this.#wake = resolve;
    }).then(() => {
      this.#wake = undefined;
      this.#check();
    });
  }

  end(length: 0 | typeof ABORT): void {
    if (this.#closed && length === 0) return;
    this.#closed = true;
    const head = Buffer.alloc(4);
    head.writeUInt32LE(length);
    if (!this.#socket.destroyed) this.#socket.write(head);
  }

  fail(failure: TspodError): void {
    this.#failure = failure;
    const { code, message, hint } = failure;
    this.#settle({ ok: false, code, message, ...(hint === undefined ? {} : { hint }) });
  }

  close(): void {
    this.#socket.end();
  }

  #check(): void {
    if (this.#answer === undefined) return;
    if (!this.#answer.ok) throw failureOf(this.#answer);
    throw new TspodError('unpack', 'layer: the unpacker ended before its input did');
  }

  #frame(bytes: Uint8Array): boolean {
    const head = Buffer.alloc(4);
    head.writeUInt32LE(bytes.length);
    this.#socket.cork();
    this.#socket.write(head);
    const room = this.#socket.write(bytes);
    this.#socket.uncork();
    return room;
  }

  #hear(chunk: Buffer): void {
    this.onHeard?.();
    this.#text += chunk.toString('utf8');
    if (this.#text.length > OUTPUT_CAP) {
      this.#text = '';
      this.#tooMuch();
      return;
    }
    for (let end = this.#text.indexOf('\n'); end >= 0; end = this.#text.indexOf('\n')) {
      const line = this.#text.slice(0, end);
      this.#text = this.#text.slice(end + 1);
      if (line !== '') this.#settle(JSON.parse(line));
    }
  }

  #settle(answer: IndexAnswer): void {
    if (this.#answered) return;
    this.#answered = true;
    this.#answer = answer;
    this.#socket.unref();
    this.#resolve?.(answer);
    this.#wake?.();
  }
}

function failureOf(answer: Extract<IndexAnswer, { ok: false }>): TspodError {
  const { code, message, hint } = answer;
  return new TspodError(code, message, hint === undefined ? {} : { hint });
}

/** The bundle's child beside the bundle; from sources, the source. */
function entry(): string {
  const source = fileURLToPath(new URL('./child.ts', import.meta.url));
  return import.meta.url.endsWith('.ts') && existsSync(source)
    ? source
    : artifact('index-child.js');
}

/**
 * Nothing of the parent's own flags; memory is bounded: what stays is the index of the layers under way, each
 * within its budget (budget.ts), which a layer must hit before V8 gives up on all of them.
 */
const NODE_FLAGS = ['--no-warnings', '--max-old-space-size=3072', '--max-semi-space-size=4'];
