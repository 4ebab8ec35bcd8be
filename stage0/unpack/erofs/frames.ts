/** The frames that a job's socket brings (message.ts), read with the pace of whoever takes the bytes. */
import type { Socket } from 'node:net';
import { Readable } from 'node:stream';
import { TspodError } from '../../../src/errors.ts';
import { ABORT } from './message.ts';

/** A path, some numbers, and the whitelists of an ACI's manifest, which is at most 4 MiB. */
const JOB_MAX_BYTES = 32 * 1024 * 1024;

/**
 * Bytes that a decoder gets at a time. A socket brings 64 KiB, and each time a decoder's thread has used up its
 * input it stands still until this one, which is busy with what came before, gives it more.
 */
const PORTION = 512 * 1024;

export class FrameReader {
  readonly #socket: Socket;
  readonly #head = Buffer.alloc(4);
  #headFilled = 0;
  /** Bytes of the frame in hand that are still to come. */
  #left = 0;
  #job: Buffer[] | undefined = [];
  #jobReady: ((job: Buffer | undefined) => void) | undefined;
  #waiting: (Buffer | undefined)[] = [];
  #data: Readable | undefined;
  #portion: Buffer | undefined;
  #filled = 0;
  #ended = true;
  #wake: (() => void) | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => this.#take(chunk));
    const closed = () => {
      this.#data?.destroy(new TspodError('unpack', 'layer: the one who wanted it is gone'));
      this.#ended = true;
      this.#wake?.();
      this.#give(undefined);
    };
    socket.on('end', closed);
    socket.on('error', closed);
  }

  /** The next job's first frame; undefined when no more come. */
  job(): Promise<Buffer | undefined> {
    if (this.#waiting.length > 0) return Promise.resolve(this.#waiting.shift());
    return new Promise(resolve => {
      this.#jobReady = resolve;
    });
  }

  /** The bytes of the job that `job` gave. */
  data(): Readable {
    if (this.#data === undefined) throw new Error('there is no job');
    return this.#data;
  }

  /** Throws away what is left of the job: a failed one still has its end to come. */
  async skip(): Promise<void> {
    this.#data?.on('error', () => {});
    this.#data?.destroy();
    this.#socket.resume();
    while (!this.#ended) {
      await new Promise<void>(resolve => {
        this.#wake = resolve;
      });
    }
    this.#data = undefined;
  }

  #flush(): void {
    const portion = this.#portion?.subarray(0, this.#filled);
    this.#portion = undefined;
    this.#filled = 0;
    if (portion === undefined || this.#data?.destroyed !== false) return;
    if (!this.#data.push(portion)) this.#socket.pause();
  }

  #give(job: Buffer | undefined): void {
    if (this.#jobReady === undefined) this.#waiting.push(job);
    else this.#jobReady(job);
    this.#jobReady = undefined;
  }

  #take(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#left === 0) {
        this.#head[this.#headFilled++] = chunk[at++] ?? 0;
        if (this.#headFilled === 4) {
          this.#headFilled = 0;
          this.#begin(this.#head.readUInt32LE());
        }
        continue;
      }
      const part = chunk.subarray(at, at + this.#left);
      at += part.length;
      this.#left -= part.length;
      this.#bytes(part);
    }
  }

  #begin(length: number): void {
    if (length === ABORT || length === 0) {
      if (length === 0) {
        this.#flush();
        this.#data?.push(null);
      } else this.#data?.destroy(new TspodError('unpack', 'layer: unpacking was given up'));
      this.#job = [];
      this.#ended = true;
      this.#wake?.();
      return;
    }
    if (this.#job !== undefined && length > JOB_MAX_BYTES) throw new Error('a job of that size');
    this.#left = length;
  }

  #bytes(part: Buffer): void {
    if (this.#job === undefined) {
      // One that failed takes no more, and what comes is thrown away.
      if (this.#data?.destroyed !== false) return;
      for (let at = 0; at < part.length; ) {
        this.#portion ??= Buffer.allocUnsafeSlow(PORTION);
        const taken = part.copy(this.#portion, this.#filled, at);
        at += taken;
        this.#filled += taken;
        if (this.#filled === PORTION) this.#flush();
      }
      return;
    }
    this.#job.push(part);
    if (this.#left > 0) return;
    const job = Buffer.concat(this.#job);
    this.#job = undefined;
    this.#ended = false;
    this.#portion = undefined;
    this.#filled = 0;
    this.#data = new Readable({
      highWaterMark: 2 * PORTION,
      read: () => {
        this.#socket.resume();
      },
      destroy: (error, done) => {
        this.#socket.resume();
        done(error);
      },
    });
    this.#give(job);
  }
}
