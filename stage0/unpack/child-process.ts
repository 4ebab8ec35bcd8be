/**
 * Starts the child that unpacks (child.ts) and owns it: one writer on its pipe, a watch on its progress,
 * a cap on what it may say, and an end by SIGKILL whatever happens (security rows 17 and 26).
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { Readable, Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { TspodError } from '../../src/errors.ts';
import type { AciTransform } from '../../src/image/oci.ts';
import { artifact } from '../../src/sys/artifacts.ts';
import { type Answer, EXTRA_FD, type Job, TAR_FD, type Unpacked } from './message.ts';

/** Bytes of the child's standard output, and of its standard error, that are kept. */
const OUTPUT_CAP = 64 * 1024;
/** Of a job that keeps the names of all layers, whose own bound (merge-layers.ts) says so first. */
const MERGE_HEAP_MIB = 2048;
/** An ACI's manifest in base64, and the rest. */
const INSPECT_CAP = 6 * 1024 * 1024;

type JobWithoutParent = Job extends infer One
  ? One extends Job
    ? Omit<One, 'parent'>
    : never
  : never;

export class UnpackChild {
  readonly #child: ChildProcess;
  readonly #idleMs: number;
  readonly #outputCap: number;
  readonly #closed: Promise<void>;
  /** Its answer, or why there is none; never rejects. */
  readonly #outcome: Promise<Answer>;
  #output = '';
  #errors = '';
  #ended = false;
  #failure: TspodError | undefined;
  #timer: NodeJS.Timeout | undefined;
  #wake: (() => void) | undefined;

  /**
   * @param idleMs how long the child may neither take a byte nor say that it works
   * @param extra what it gets on descriptor 3, for one blob or for each of `blobs`
   * @param blobs descriptors of ours that a job reads which gives a tar
   */
  constructor(
    job: JobWithoutParent,
    idleMs: number,
    extra?: AciTransform | readonly (AciTransform | null)[],
    blobs?: readonly number[],
  ) {
    if (process.geteuid?.() !== 0) {
      throw new TspodError('privilege', "can't unpack layers: their owners and devices need root", {
        hint: 'run it as root, for instance with sudo',
      });
    }
    this.#idleMs = idleMs;
    this.#outputCap = job.job === 'inspect-aci' ? INSPECT_CAP : OUTPUT_CAP;
    const message = JSON.stringify({
      ...job,
      ...(extra === undefined || blobs !== undefined ? {} : { aci: true }),
      parent: process.pid,
    });
    const flags = blobs === undefined ? nodeFlags(256) : nodeFlags(MERGE_HEAP_MIB);
    this.#child = spawn(process.execPath, [...flags, entry(), message], {
      stdio: [
        blobs === undefined ? 'pipe' : 'ignore',
        'pipe',
        'pipe',
        ...(extra === undefined ? [] : ['pipe' as const]),
        ...(blobs === undefined ? [] : (['pipe', ...blobs] as const)),
      ],
      // Large buffers go back to the kernel at once, instead of to a heap that never shrinks (mallopt(3)).
      env: { MALLOC_MMAP_THRESHOLD_: '131072', MALLOC_TRIM_THRESHOLD_: '1048576' },
      cwd: '/',
      // Ctrl-C is for the one who was started, whose end is this one's (dieWithParent).
      detached: true,
    });
    const more = this.#child.stdio[EXTRA_FD];
    if (more instanceof Writable) {
      more.on('error', () => undefined); // its end has a better reason, which the answer gives
      more.end(JSON.stringify(extra));
    }
    this.#child.stdout?.on('data', (chunk: Buffer) => this.#hear(chunk));
    this.#child.stderr?.on('data', (chunk: Buffer) => {
      if (this.#errors.length < OUTPUT_CAP) this.#errors += chunk.toString('utf8');
    });
    // What matters is the answer, which says why; the pipe's EPIPE is only its consequence.
    this.#child.stdin?.on('error', () => this.#wake?.());
    this.#child.stdin?.on('drain', () => this.#wake?.());
    this.#closed = new Promise(resolve => {
      this.#child.on('error', error => {
        this.#failure ??= new TspodError('system', `can't start the unpacker: ${error.message}`);
        resolve();
      });
      this.#child.on('close', () => resolve());
    });
    this.#outcome = this.#closed.then(() => {
      this.#ended = true;
      clearTimeout(this.#timer);
      this.#wake?.();
      return this.#read();
    });
  }

  /** Resolves when the child can take more. @throws the child's failure */
  async write(chunk: Uint8Array): Promise<void> {
    await this.#checkAlive();
    const stdin = this.#child.stdin;
    if (stdin?.write(chunk) !== false) return;
    this.#watch();
    await new Promise<void>(resolve => {
      this.#wake = resolve;
      if (this.#ended || stdin.destroyed || !stdin.writableNeedDrain) resolve();
    });
    this.#wake = undefined;
    clearTimeout(this.#timer);
    await this.#checkAlive();
  }

  /**
   * The tar of a job that gives one. Whoever stops before its end has to `kill`.
   * @throws the child's failure
   */
  async *tar(): AsyncGenerator<Buffer> {
    const stream = this.#child.stdio[TAR_FD];
    if (!(stream instanceof Readable)) throw new Error('this job gives no tar');
    this.#watch();
    for await (const chunk of stream) {
      clearTimeout(this.#timer); // the time until the next is asked for is not the child's
      yield chunk;
      this.#watch();
    }
    await this.finish();
  }

  /** Ends the input and waits for the answer. */
  async finish(): Promise<Unpacked | undefined> {
    this.#child.stdin?.end();
    this.#watch();
    const answer = await this.#outcome;
    if (answer.ok) return answer.result;
    throw failureOf(answer);
  }

  /** Ends the child and waits until it is gone. */
  async kill(): Promise<void> {
    this.#failure ??= new TspodError('unpack', 'layer: unpacking was given up');
    this.#child.kill('SIGKILL');
    this.#child.stdin?.destroy();
    await this.#closed;
  }

  async #checkAlive(): Promise<void> {
    if (this.#failure === undefined && !this.#ended && this.#child.stdin?.destroyed === false)
      return;
    this.#watch(); // it has closed its input, so it should be about to answer
    const answer = await this.#outcome;
    if (!answer.ok) throw failureOf(answer);
    throw new TspodError('unpack', 'layer: the unpacker ended before its input did');
  }

  #watch(): void {
    clearTimeout(this.#timer);
    if (this.#ended) return;
    this.#timer = setTimeout(() => {
      const seconds = Math.round(this.#idleMs / 1000);
      this.#failure ??= new TspodError(
        'unpack',
        `layer: the unpacker made no progress for ${seconds} s`,
      );
      this.#child.kill('SIGKILL');
    }, this.#idleMs);
  }

  #hear(chunk: Buffer): void {
    this.#timer?.refresh();
    const text = chunk.toString('utf8').trim();
    if (text === '') return;
    this.#output += text;
    if (this.#output.length <= this.#outputCap) return;
    this.#failure ??= new TspodError(
      'limit',
      `layer: the unpacker said more than ${this.#outputCap} bytes`,
    );
    this.#output = '';
    this.#child.kill('SIGKILL');
  }

  #read(): Answer {
    if (this.#failure !== undefined) {
      const { code, message, hint } = this.#failure;
      return { ok: false, code, message, ...(hint === undefined ? {} : { hint }) };
    }
    try {
      const answer: Answer = JSON.parse(this.#output);
      return answer;
    } catch {
      const { exitCode, signalCode } = this.#child;
      const why = signalCode === null ? `exit status ${exitCode}` : signalCode;
      const said = this.#errors.trim().split('\n').slice(-8).join(' ').slice(0, 500);
      const message = `layer: the unpacker ended without an answer (${why})`;
      return { ok: false, code: 'unpack', message: said === '' ? message : `${message}: ${said}` };
    }
  }
}

function failureOf(answer: Extract<Answer, { ok: false }>): TspodError {
  const { code, message, hint } = answer;
  return new TspodError(code, message, hint === undefined ? {} : { hint });
}

/** The bundle's child beside the bundle; from sources, the source. */
function entry(): string {
  const source = fileURLToPath(new URL('./child.ts', import.meta.url));
  return import.meta.url.endsWith('.ts') && existsSync(source)
    ? source
    : artifact('unpack-child.js');
}

/** Nothing of the parent's own flags; memory is bounded, because only views of chunks are kept. */
function nodeFlags(heapMib: number): string[] {
  return ['--no-warnings', `--max-old-space-size=${heapMib}`, '--max-semi-space-size=4'];
}
