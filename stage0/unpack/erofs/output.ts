/** An image as it is written: from its first byte to its last, a piece at a time. */

/** The piece in hand. Places ascend; what is passed over is zero. */
export class Output {
  buffer: Buffer;
  readonly pieceBytes: number;
  /** Place of the piece's first byte. */
  #start: number;
  #used = 0;
  #full: Buffer[] = [];

  constructor(start: number, pieceBytes: number) {
    this.#start = start;
    this.pieceBytes = pieceBytes;
    this.buffer = Buffer.alloc(pieceBytes);
  }

  /** Makes room for `length` bytes at `place`; returns where that is in `buffer`, which may be a new one. */
  to(place: number, length: number): number {
    if (place < this.#start + this.#used) throw new Error('an image is written backwards');
    if (place + length > this.#start + this.pieceBytes) this.#next(place);
    const at = place - this.#start;
    this.#used = at + length;
    return at;
  }

  /** What there is ends at `place`, where the next piece begins. */
  #next(place: number): void {
    for (; place - this.#start > this.pieceBytes; this.#start += this.pieceBytes) {
      this.#push(this.pieceBytes);
    }
    this.#push(place - this.#start);
    this.#start = place;
    this.#used = 0;
  }

  #push(length: number): void {
    if (length === 0) return;
    this.#full.push(this.buffer.subarray(0, length));
    this.buffer = Buffer.alloc(this.pieceBytes);
  }

  *full(): Generator<Uint8Array, void, undefined> {
    if (this.#full.length === 0) return;
    yield* this.#full;
    this.#full = [];
  }

  *end(place: number): Generator<Uint8Array, void, undefined> {
    this.#next(place);
    yield* this.full();
  }
}
