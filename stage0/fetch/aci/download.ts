/**
 * An ACI by its URL into a file below the store's tmp, as rkt downloads: conditional by ETag, taken up again by
 * Range where a connection broke or a process was killed (RFC 9110, 13 and 14), one process at a time for a URL.
 * What is in the file is not trusted: whoever takes it in reads it through and knows it by its digest.
 */
import { createHash } from 'node:crypto';
import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { errnoOf, systemError, TspodError } from '../../../src/errors.ts';
import { PARTIAL_PREFIX } from '../../../src/store/blobs.ts';
import { Layout, unwritable } from '../../../src/store/layout.ts';
import { LockWait, lockEntry } from '../../../src/store/locks.ts';
import type { Progress, ProgressItem } from '../../progress.ts';
import { type Exchange, show } from '../http.ts';
import { sleep, Transient, waitBefore } from '../retry.ts';
import type { WebClient } from '../web-server.ts';

export interface DownloadRequest {
  readonly url: URL;
  /** A server named the URL. */
  readonly told: boolean;
  /** Of what is in the store: it is not sent again when it is still the same. */
  readonly etag: string | undefined;
  /** bytes; one more is an error that calls it `boundName` */
  readonly maxBytes: number;
  readonly boundName: string;
}

export interface Freshness {
  readonly etag: string | undefined;
  /** ms */
  readonly maxAge: number;
}

export type Downloaded =
  | ({ readonly state: 'same' } & Freshness)
  | ({
      readonly state: 'new';
      readonly path: string;
      /** Removes the file and lets go of its lock. */
      close(): void;
    } & Freshness);

export interface DownloadContext {
  /** The store's folder. */
  readonly dir: string;
  readonly client: WebClient;
  readonly progress: Progress;
  readonly onWait: () => void;
}

/** What any ACI may have, whoever serves it. */
export const MAX_ACI_BYTES = 64 * 1024 ** 3;
const MAX_AGE_MS = 365 * 24 * 3600 * 1000;
const MAX_ETAG = 1024;

/** @throws TspodError 'not-found', 'denied', 'network', 'protocol', 'limit', by cause */
export async function downloadAci(
  context: DownloadContext,
  request: DownloadRequest,
): Promise<Downloaded> {
  context.client.checkScheme(request.url);
  const partial = await lockPartial(context, request.url);
  let done = false;
  try {
    const result = await fill(context, request, partial);
    done = true;
    if (result.state === 'new') return result;
    partial.remove();
    return result;
  } finally {
    // Broken off: what came stays for the next time.
    if (!done && partial.size > 0) partial.release();
    else if (!done) partial.remove();
  }
}

/** The file of one URL, and what its content is a part of. */
class Partial {
  readonly path: string;
  readonly #tag: string;
  readonly fd: number;
  #open = true;

  constructor(path: string, fd: number) {
    this.path = path;
    this.fd = fd;
    this.#tag = path.replace(/partial$/, 'etag');
  }

  get size(): number {
    return fstatSync(this.fd).size;
  }

  /** The strong validator of what is there; undefined: it is a part of nobody knows what. */
  get validator(): string | undefined {
    try {
      return strongEtag(readFileSync(this.#tag, 'latin1'));
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined;
      throw systemError(`can't read ${this.#tag}`, error);
    }
  }

  restart(etag: string | undefined): void {
    ftruncateSync(this.fd, 0);
    const strong = etag === undefined ? undefined : strongEtag(etag);
    if (strong === undefined) rmSync(this.#tag, { force: true });
    else writeFileSync(this.#tag, strong, { mode: 0o600 });
  }

  write(chunk: Uint8Array, at: number): void {
    try {
      for (let done = 0; done < chunk.length; ) {
        done += writeSync(this.fd, chunk, done, chunk.length - done, at + done);
      }
    } catch (error) {
      throw systemError(`can't write ${this.path}`, error);
    }
  }

  release(): void {
    if (this.#open) closeSync(this.fd);
    this.#open = false;
  }

  remove(): void {
    if (!this.#open) return;
    rmSync(this.#tag, { force: true });
    rmSync(this.path, { force: true });
    this.release();
  }
}

async function lockPartial({ dir, onWait }: DownloadContext, url: URL): Promise<Partial> {
  const layout = new Layout(dir);
  layout.make();
  const hash = createHash('sha256').update(url.href).digest('hex');
  const path = `${layout.tmp}/${PARTIAL_PREFIX}url.${hash}.partial`;
  const { O_RDWR, O_CREAT, O_NOFOLLOW } = constants;
  const wait = new LockWait(onWait);
  for (;;) {
    let fd: number | undefined;
    try {
      fd = lockEntry(path, () => openSync(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0o600));
    } catch (error) {
      throw unwritable(dir, error);
    }
    if (fd !== undefined) return new Partial(path, fd);
    await wait.pause();
  }
}

async function fill(
  context: DownloadContext,
  request: DownloadRequest,
  partial: Partial,
): Promise<Downloaded> {
  const { timing } = context.client;
  const line: { item: ProgressItem | undefined } = { item: undefined };
  let failures = 0;
  for (;;) {
    const before = partial.size;
    try {
      return await once(context, request, partial, line);
    } catch (error) {
      if (!(error instanceof Transient)) throw error;
      failures = partial.size > before ? 1 : failures + 1;
      if (failures >= timing.attempts) throw error;
      await sleep(waitBefore(failures, timing, error.retryAfter));
    }
  }
}

async function once(
  { client, progress }: DownloadContext,
  request: DownloadRequest,
  partial: Partial,
  line: { item: ProgressItem | undefined },
): Promise<Downloaded> {
  const { url, told } = request;
  const validator = partial.validator;
  const from = validator === undefined ? 0 : partial.size;
  const resumes = validator !== undefined && from > 0;
  const exchange = await client.open(url, {
    told,
    headers: {
      ...(resumes ? { Range: `bytes=${from}-`, 'If-Range': validator } : {}),
      ...(!resumes && request.etag !== undefined ? { 'If-None-Match': request.etag } : {}),
    },
  });
  try {
    const { status } = exchange.response;
    if (status === 304 && !resumes && request.etag !== undefined) {
      return { state: 'same', ...freshness(exchange, request.etag) };
    }
    if (status === 416 && resumes) {
      partial.restart(undefined);
      throw new Transient(new TspodError('network', `${show(exchange.url)}: it can't be resumed`));
    }
    const start = status === 206 && resumes ? checkRange(exchange, from) : 0;
    if (status !== 200 && start === 0) throw failure(exchange);
    if (start === 0) partial.restart(exchange.response.headers.get('etag') ?? undefined);
    const length = Number(exchange.response.headers.get('content-length') ?? Number.NaN);
    const total = start + length;
    if (total > request.maxBytes) throw tooLong(request);
    line.item ??= startLine(progress, url, Number.isNaN(total) ? 0 : total, start);
    let at = start;
    for await (const chunk of exchange.body()) {
      if (at + chunk.length > request.maxBytes) throw tooLong(request);
      partial.write(chunk, at);
      at += chunk.length;
      line.item.advance(chunk.length);
    }
    if (!Number.isNaN(total) && at !== total) {
      throw new Transient(
        new TspodError('network', `${show(exchange.url)}: it ended after ${at} of ${total} bytes`),
      );
    }
    line.item.done('done');
    return {
      state: 'new',
      path: partial.path,
      close: () => partial.remove(),
      ...freshness(exchange, undefined),
    };
  } catch (error) {
    if (error instanceof TspodError && error.code === 'limit') partial.restart(undefined);
    throw error;
  } finally {
    exchange.end();
  }
}

function startLine(progress: Progress, url: URL, total: number, there: number): ProgressItem {
  const item = progress.add(url.pathname.split('/').at(-1) ?? '', total);
  item.advance(there);
  return item;
}

function tooLong({ url, maxBytes, boundName }: DownloadRequest): TspodError {
  return new TspodError('limit', `${show(url)}: longer than ${boundName} of ${maxBytes} bytes`);
}

/** Where the answer begins, which has to be where it was asked to. */
function checkRange(exchange: Exchange, from: number): number {
  const header = exchange.response.headers.get('content-range') ?? '';
  const start = Number(/^bytes ([0-9]+)-[0-9]+\/(?:[0-9]+|\*)$/.exec(header)?.[1]);
  if (start === from) return start;
  throw new TspodError(
    'protocol',
    `${show(exchange.url)}: its Content-Range is not what was asked for`,
  );
}

function failure({ response: { status }, url }: Exchange): TspodError {
  if (status === 401 || status === 403) {
    return new TspodError('denied', `${show(url)}: access is denied (status ${status})`, {
      hint: 'credentials for the host belong into auth.d, kind auth',
    });
  }
  if (status === 404 || status === 410) {
    return new TspodError('not-found', `${show(url)}: there is no such file (status ${status})`);
  }
  return new TspodError('protocol', `${show(url)}: status ${status}`);
}

/** RFC 9111, 5.2.2: max-age, but nothing with no-cache or no-store. */
function freshness({ response }: Exchange, former: string | undefined): Freshness {
  const etag = response.headers.get('etag') ?? former;
  const control = (response.headers.get('cache-control') ?? '').toLowerCase();
  const seconds = Number(/(?:^|[\s,])max-age="?([0-9]{1,12})/.exec(control)?.[1] ?? 0);
  const never = /(?:^|[\s,])(?:no-cache|no-store)\b/.test(control);
  return {
    etag:
      etag !== undefined &&
      /^(?:W\/)?"[\x21\x23-\x7e\x80-\xff]*"$/.test(etag) &&
      etag.length <= MAX_ETAG
        ? etag
        : undefined,
    maxAge: never ? 0 : Math.min(seconds * 1000, MAX_AGE_MS),
  };
}

/** A weak one does not say that the bytes are the same. */
function strongEtag(text: string): string | undefined {
  return /^"[\x21\x23-\x7e\x80-\xff]*"$/.test(text) && text.length <= MAX_ETAG ? text : undefined;
}
