/**
 * One blob into a registry (OCI distribution specification 1.1, "Pushing blobs"): mounted from another
 * repository of the same registry where that has it, else uploaded whole, or in pieces where the registry
 * asks for them or takes no body of that size. An upload that broke off goes on where the registry says.
 */
import type { Readable } from 'node:stream';
import { TspodError } from '../../src/errors.ts';
import type { Descriptor } from '../../src/image/oci.ts';
import type { Exchange } from '../fetch/http.ts';
import type { Endpoint } from '../fetch/registry-endpoint.ts';
import { sleep, type Timing, Transient, waitBefore } from '../fetch/retry.ts';

/** Of a piece, unless the registry wants larger ones. */
const PIECE = 32 * 1024 * 1024;
/** A registry may want pieces as large as this, and no larger ones. */
const MOST_PIECE = 1024 ** 3;

export interface Upload {
  readonly endpoint: Endpoint;
  readonly blob: Descriptor;
  /** Another repository of the registry that may have it. */
  readonly from: string | undefined;
  readonly timing: Timing;
  readonly signal: AbortSignal;
  /** `end` is exclusive. */
  read(start: number, end: number): Readable;
  /** How many of its bytes are sent; fewer than before when something has to be sent again. */
  sent(bytes: number): void;
}

/** @returns what was done, for who watches. Tries are counted from the last byte that got there. */
export async function uploadBlob(upload: Upload): Promise<'pushed' | 'mounted'> {
  const { timing, signal } = upload;
  const session = new Session(upload);
  for (let failures = 0; ; ) {
    const before = session.offset;
    try {
      return await session.run();
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof Transient)) throw error;
      failures = session.offset > before ? 1 : failures + 1;
      if (failures >= timing.attempts) throw error;
      await sleep(waitBefore(failures, timing, error.retryAfter), signal);
      await session.ask();
    }
  }
}

class Session {
  /** What the registry is known to have of it. */
  offset = 0;
  readonly #upload: Upload;
  #location: URL | undefined;
  /** Bytes of a piece; undefined: whole. */
  #piece: number | undefined;

  constructor(upload: Upload) {
    this.#upload = upload;
  }

  async run(): Promise<'pushed' | 'mounted'> {
    if (this.#location === undefined && (await this.#begin())) return 'mounted';
    // An upload in pieces may take up where a whole one broke off.
    if (this.#piece === undefined && this.offset > 0) this.#piece = PIECE;
    if (this.#piece === undefined && (await this.#whole())) return 'pushed';
    const { blob } = this.#upload;
    while (this.offset < blob.size) await this.#sendPiece(this.#piece ?? PIECE);
    const done = await this.#send('PUT', this.#closing(), [201, 204], { 'Content-Length': '0' });
    done.end();
    return 'pushed';
  }

  /** After a failure: what has come of it? Whatever is not a clear answer begins anew. */
  async ask(): Promise<void> {
    const location = this.#location;
    if (location === undefined) return;
    try {
      const told = await this.#send('GET', location, [204], {});
      told.end();
      this.#goOn(told);
      this.offset = Math.min(rangeEnd(told) ?? 0, this.#upload.blob.size);
    } catch (error) {
      this.#upload.signal.throwIfAborted();
      if (!(error instanceof TspodError)) throw error;
      this.#location = undefined;
      this.offset = 0;
    }
    this.#upload.sent(this.offset);
  }

  /** @returns whether the registry has it by now */
  async #begin(): Promise<boolean> {
    const { blob, from } = this.#upload;
    const query =
      from === undefined
        ? ''
        : `?mount=${encodeURIComponent(blob.digest)}&from=${encodeURIComponent(from)}`;
    const begun = await this.#send('POST', `blobs/uploads/${query}`, [201, 202], {
      'Content-Length': '0',
    });
    begun.end();
    if (begun.response.status === 201) return true;
    this.offset = 0;
    this.#goOn(begun);
    const least = Number(begun.response.headers.get('oci-chunk-min-length') ?? Number.NaN);
    if (least > MOST_PIECE) {
      throw new TspodError(
        'limit',
        `${begun.url.host}: it wants pieces of ${least} bytes, more than the bound of ${MOST_PIECE}`,
      );
    }
    if (least > 0) this.#piece = Math.max(PIECE, Math.ceil(least));
    return false;
  }

  /** @returns false when the registry takes no body of that size */
  async #whole(): Promise<boolean> {
    const { blob } = this.#upload;
    const headers = {
      'Content-Type': 'application/octet-stream',
      'Content-Length': String(blob.size),
    };
    const expected = [201, 204, 413];
    const done = await this.#send('PUT', this.#closing(), expected, headers, [0, blob.size]);
    done.end();
    if (done.response.status !== 413) return true;
    this.#piece = PIECE;
    this.#upload.sent(0);
    if (await this.#begin()) return true;
    return false;
  }

  async #sendPiece(size: number): Promise<void> {
    const start = this.offset;
    const end = Math.min(start + size, this.#upload.blob.size);
    const headers = {
      'Content-Type': 'application/octet-stream',
      'Content-Length': String(end - start),
      'Content-Range': `${start}-${end - 1}`,
    };
    const taken = await this.#send('PATCH', this.#place(), [202, 204], headers, [start, end]);
    taken.end();
    this.#goOn(taken);
    // Who says nothing has taken all of it.
    const told = rangeEnd(taken) ?? end;
    if (told <= start || told > end) {
      throw new TspodError('protocol', `${taken.url.host}: it took another piece than it was sent`);
    }
    this.offset = told;
    this.#upload.sent(told);
  }

  #place(): URL {
    if (this.#location === undefined) throw new Error('the upload has not begun');
    return this.#location;
  }

  #closing(): URL {
    const url = new URL(this.#place());
    url.searchParams.set('digest', this.#upload.blob.digest);
    return url;
  }

  #goOn(exchange: Exchange): void {
    const location = exchange.response.headers.get('location');
    if (location === null && this.#location !== undefined) return;
    this.#location = uploadPlace(exchange.url, location);
  }

  #send(
    method: 'GET' | 'PATCH' | 'POST' | 'PUT',
    path: string | URL,
    expected: readonly number[],
    headers: Readonly<Record<string, string>>,
    body?: readonly [start: number, end: number],
  ): Promise<Exchange> {
    const { endpoint, read, sent } = this.#upload;
    if (body === undefined) return endpoint.send(path, { method, headers }, expected);
    const [start, end] = body;
    const content = () => {
      let at = start;
      sent(at);
      const stream = read(start, end);
      stream.on('data', (chunk: Uint8Array) => {
        at += chunk.length;
        sent(at);
      });
      return stream;
    };
    return endpoint.send(path, { method, headers, upload: content }, expected);
  }
}

/** `Range: 0-99` is 100 bytes; `0-0`, as the first answer of some registries, may be none. */
function rangeEnd({ response }: Exchange): number | undefined {
  const last = /^(?:bytes=)?0-([0-9]{1,15})$/.exec(response.headers.get('range') ?? '')?.[1];
  if (last === undefined) return undefined;
  return last === '0' ? 0 : Number(last) + 1;
}

function uploadPlace(from: URL, location: string | null): URL {
  const broken = (why: string) =>
    new TspodError('protocol', `${from.host}: it began an upload ${why}`);
  if (location === null) throw broken('without saying where it goes on');
  let url: URL;
  try {
    url = new URL(location, from);
  } catch {
    throw broken('and said something that is no URL');
  }
  if (url.protocol !== 'https:' && !(url.protocol === 'http:' && from.protocol === 'http:')) {
    throw broken('that goes on by another protocol');
  }
  // They would be sent as credentials of the other host.
  url.username = '';
  url.password = '';
  return url;
}
