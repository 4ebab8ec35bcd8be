/** Bytes by number from a stream of chunks, for decoders of formats that say how long their parts are. */

/** Compressed data that is not what its format says. The message ends a sentence. */
export class DamagedData extends Error {}

const EMPTY: Buffer = Buffer.alloc(0);

export class ByteSource {
  readonly #chunks: AsyncIterator<Buffer>;
  #ready: Buffer = EMPTY;
  #ended = false;

  constructor(chunks: AsyncIterable<Buffer>) {
    this.#chunks = chunks[Symbol.asyncIterator]();
  }

  /** Exactly `count` bytes. @throws DamagedData where the stream ends before */
  async take(count: number): Promise<Buffer> {
    const bytes = await this.peek(count);
    if (bytes.length < count) throw new DamagedData('it is cut off');
    this.#ready = this.#ready.subarray(count);
    return bytes;
  }

  /** The next `count` bytes, fewer only at the end; they stay. */
  async peek(count: number): Promise<Buffer> {
    if (this.#ready.length < count && !this.#ended) await this.#fill(count);
    return this.#ready.subarray(0, count);
  }

  skip(count: number): void {
    this.#ready = this.#ready.subarray(count);
  }

  async #fill(count: number): Promise<void> {
    const parts = [this.#ready];
    let length = this.#ready.length;
    while (length < count) {
      const next = await this.#chunks.next();
      if (next.done) {
        this.#ended = true;
        break;
      }
      parts.push(next.value);
      length += next.value.length;
    }
    this.#ready = Buffer.concat(parts, length);
  }
}
