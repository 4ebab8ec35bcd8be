/**
 * One host that serves one repository: requests with authorization and retries, statuses told by cause, and
 * blobs as streams that take themselves up again by Range (RFC 9110, 14) when a connection breaks.
 */
import { TspodError } from '../../src/errors.ts';
import { isObject, parseBoundedJson } from '../../src/image/json.ts';
import type { Descriptor } from '../../src/image/oci.ts';
import type { Credentials } from './credentials.ts';
import {
  type Exchange,
  HttpClient,
  type RequestOptions,
  show,
  type TlsSettings,
  WithoutTls,
} from './http.ts';
import { CREDENTIALS_HINT, RegistryAuthorizer } from './registry-auth.ts';
import {
  isTransientStatus,
  parseRetryAfter,
  sleep,
  type Timing,
  Transient,
  waitBefore,
  withRetries,
} from './retry.ts';
import { collect } from './source.ts';

const MAX_ERROR_BODY = 16 * 1024;
const MAX_ERROR_TEXT = 200;

export interface EndpointOptions {
  /** HOST[:PORT] */
  readonly host: string;
  readonly repository: string;
  /** for messages */
  readonly image: string;
  readonly timing: Timing;
  readonly allowHttp: boolean;
  readonly tls: TlsSettings;
  readonly actions?: 'pull' | 'pull,push';
  /** Stops everything under way. */
  readonly signal?: AbortSignal | undefined;
  readonly credentials: () => Promise<Credentials | undefined>;
}

export class Endpoint {
  readonly #options: EndpointOptions;
  readonly #http: HttpClient;
  #base: Promise<{ readonly url: URL; readonly auth: RegistryAuthorizer }> | undefined;

  constructor(options: EndpointOptions) {
    this.#options = options;
    this.#http = new HttpClient(options.timing, options.tls, options.signal);
  }

  close(): void {
    this.#http.close();
  }

  /** GETs below the repository and reads the answer with `use`, again when it breaks off. */
  async get<T>(path: string, accept: string, use: (exchange: Exchange) => Promise<T>): Promise<T> {
    const ask = async () => {
      const exchange = await this.#ask(path, { Accept: accept });
      if (exchange.response.status === 200) {
        try {
          return await use(exchange);
        } finally {
          exchange.end();
        }
      }
      throw await this.#failure(exchange);
    };
    return withRetries(this.#options.timing, ask, this.#options.signal);
  }

  /**
   * A blob's bytes from `offset` to its size. A break is mended by Range; tries are counted from the last
   * byte that came, so a long download over a bad line ends, and a dead one too.
   */
  async *blob(descriptor: Descriptor, offset: number): AsyncGenerator<Uint8Array> {
    const { timing, signal } = this.#options;
    let at = offset;
    let failures = 0;
    while (at < descriptor.size || (descriptor.size === 0 && failures === 0)) {
      const from = at;
      try {
        for await (const chunk of this.#blobOnce(descriptor, at)) {
          at += chunk.length;
          yield chunk;
        }
        if (at < descriptor.size) throw this.#truncated(descriptor, at);
        return;
      } catch (error) {
        if (!(error instanceof Transient)) throw error;
        failures = at > from ? 1 : failures + 1;
        if (failures >= timing.attempts) throw error;
        await sleep(waitBefore(failures, timing, error.retryAfter), signal);
      }
    }
  }

  async *#blobOnce(descriptor: Descriptor, offset: number): AsyncGenerator<Uint8Array> {
    const path = `blobs/${descriptor.digest}`;
    const exchange = await this.#ask(
      path,
      offset === 0 ? {} : { Range: `bytes=${offset}-${descriptor.size - 1}` },
    );
    const { response } = exchange;
    let skip = 0;
    if (response.status === 206 && offset > 0) checkRange(exchange, offset);
    else if (response.status === 200) skip = offset;
    else if (response.status === 416 && offset > 0) {
      // It has less than we have, or does not like ranges: the whole, and what is there already is skipped.
      exchange.end();
      yield* this.#whole(descriptor, offset);
      return;
    } else throw await this.#failure(exchange);
    yield* bounded(exchange, descriptor, skip, offset);
  }

  async *#whole(descriptor: Descriptor, skip: number): AsyncGenerator<Uint8Array> {
    const exchange = await this.#ask(`blobs/${descriptor.digest}`, {});
    if (exchange.response.status !== 200) throw await this.#failure(exchange);
    yield* bounded(exchange, descriptor, skip, skip);
  }

  #truncated(descriptor: Descriptor, at: number): Transient {
    const why = `ended after ${at} of ${descriptor.size} bytes`;
    return new Transient(
      new TspodError('network', `${this.#options.host}: blob ${descriptor.digest} ${why}`),
    );
  }

  /**
   * One request that changes something, or asks about it: below the repository, or where the registry has said
   * that an upload goes on. That may be another host, which gets no credentials (CVE-2020-15157).
   * @param expected statuses that are an answer; any other is the failure that it is
   * @throws TspodError by cause; Transient where another try may help
   */
  async send(
    path: string | URL,
    options: Pick<RequestOptions, 'headers' | 'upload'> & {
      readonly method: NonNullable<RequestOptions['method']>;
    },
    expected: readonly number[],
  ): Promise<Exchange> {
    const { url, auth } = await this.#connect();
    const target =
      typeof path === 'string' ? new URL(`/v2/${this.#options.repository}/${path}`, url) : path;
    const own = target.origin === url.origin;
    for (let tries = 0; ; tries += 1) {
      const authorization = own ? await auth.header() : undefined;
      const exchange = await this.#http.request(target, {
        ...options,
        authorization,
        told: !own,
        redirects: 0,
      });
      const { response } = exchange;
      if (expected.includes(response.status)) return exchange;
      const challenge = response.headers.get('www-authenticate');
      const asked = response.status === 401 && own && tries < 2;
      if (!asked || !(await auth.challenged(challenge, authorization))) {
        throw await this.#failure(exchange);
      }
      exchange.end();
    }
  }

  async #ask(path: string, headers: Readonly<Record<string, string>>): Promise<Exchange> {
    const { url, auth } = await this.#connect();
    const target = new URL(`/v2/${this.#options.repository}/${path}`, url);
    for (let tries = 0; ; tries += 1) {
      const authorization = await auth.header();
      const exchange = await this.#http.request(target, { headers, authorization });
      const { response } = exchange;
      const challenge = response.headers.get('www-authenticate');
      const own = exchange.url.origin === target.origin;
      if (response.status !== 401 || !own || tries >= 2) return exchange;
      if (!(await auth.challenged(challenge, authorization))) return exchange;
      exchange.end();
    }
  }

  #connect(): Promise<{ readonly url: URL; readonly auth: RegistryAuthorizer }> {
    this.#base ??= this.#findBase().then(
      url => ({
        url,
        auth: new RegistryAuthorizer({
          http: this.#http,
          timing: this.#options.timing,
          origin: url,
          repository: this.#options.repository,
          allowHttp: this.#options.allowHttp,
          actions: this.#options.actions,
          signal: this.#options.signal,
          credentials: this.#options.credentials,
        }),
      }),
      (error: unknown) => {
        this.#base = undefined; // the next try asks again
        throw error;
      },
    );
    return this.#base;
  }

  /**
   * https; plain HTTP only where it is allowed and nobody answers by TLS. A time-out, a reset, a certificate
   * that is not trusted are what an attacker on the wire would cause: they fail.
   */
  async #findBase(): Promise<URL> {
    const { host, allowHttp } = this.#options;
    const secure = new URL(`https://${host}/v2/`);
    if (!allowHttp) return secure;
    try {
      const exchange = await this.#http.request(secure, { redirects: 0 });
      exchange.end();
      return secure;
    } catch (error) {
      if (error instanceof WithoutTls) return new URL(`http://${host}/v2/`);
      if (error instanceof TspodError && error.code === 'limit') return secure; // it redirects
      throw error;
    }
  }

  /** A status that is not what was asked for, by its cause. */
  async #failure(exchange: Exchange): Promise<TspodError> {
    const { response, url } = exchange;
    const { image, host } = this.#options;
    const { status } = response;
    const retryAfter = parseRetryAfter(response.headers.get('retry-after'));
    const said = await errorText(exchange);
    const because = said === undefined ? '' : ` (${said})`;
    if (isTransientStatus(status)) {
      const what = status === 429 ? 'too many requests' : `status ${status}`;
      return new Transient(new TspodError('network', `${url.host}: ${what}${because}`), retryAfter);
    }
    if (status === 401 || status === 403) {
      const what = status === 401 ? 'it wants other credentials' : 'access is denied';
      return new TspodError('denied', `image "${image}": ${host}: ${what}${because}`, {
        hint: CREDENTIALS_HINT,
      });
    }
    if (status === 404) {
      const what = url.pathname.includes('/manifests/') ? 'no such image' : 'a blob is missing';
      return new TspodError('not-found', `image "${image}": ${host}: ${what}${because}`);
    }
    return new TspodError('protocol', `${show(url)}: status ${status}${because}`);
  }
}

/** The body from where it is wanted to the descriptor's size; one byte more is an error. */
async function* bounded(
  exchange: Exchange,
  descriptor: Descriptor,
  skip: number,
  offset: number,
): AsyncGenerator<Uint8Array> {
  const length = Number(exchange.response.headers.get('content-length') ?? Number.NaN);
  const expected = descriptor.size - (offset - skip);
  if (length > expected) {
    exchange.end();
    throw oversized(descriptor);
  }
  let left = skip;
  let taken = 0;
  for await (const chunk of exchange.body()) {
    taken += chunk.length;
    if (taken > expected) throw oversized(descriptor);
    const dropped = Math.min(left, chunk.length);
    left -= dropped;
    if (dropped < chunk.length) yield chunk.subarray(dropped);
  }
}

function oversized({ digest, size }: Descriptor): TspodError {
  return new TspodError('limit', `blob ${digest}: the server sends more than its ${size} bytes`);
}

function checkRange(exchange: Exchange, offset: number): void {
  const header = exchange.response.headers.get('content-range') ?? '';
  const start = /^bytes ([0-9]+)-[0-9]+\/(?:[0-9]+|\*)$/.exec(header)?.[1];
  if (Number(start) === offset) return;
  exchange.end();
  throw new TspodError(
    'protocol',
    `${show(exchange.url)}: its Content-Range is not what was asked for`,
  );
}

/** The code and message of the specification's error body; undefined when there is none. */
async function errorText(exchange: Exchange): Promise<string | undefined> {
  try {
    const bytes = await collect(exchange.body(), MAX_ERROR_BODY, 'error');
    const body = parseBoundedJson(bytes, MAX_ERROR_BODY, { what: 'error', code: 'protocol' });
    const errors = isObject(body) ? body.errors : undefined;
    const first: unknown = Array.isArray(errors) ? errors[0] : undefined;
    if (!isObject(first)) return undefined;
    const parts = [first.code, first.message].filter(
      part => typeof part === 'string' && part !== '',
    );
    // A server that echoes what it was sent must not bring a token to the screen.
    const text = parts.join(': ').replace(/\b(?:Bearer|Basic)\s+\S+/gi, '[hidden]');
    return text === '' ? undefined : text.slice(0, MAX_ERROR_TEXT);
  } catch {
    return undefined;
  }
}
