/**
 * Plain web servers, that is, whatever is no registry: discovery pages, ACIs, signatures, keys. What the user
 * has configured for a host applies to each request: `auth.d` (kind `auth`), over https only, and the TLS
 * files of `registries.d`.
 */
import type { Config } from '../../src/config/config.ts';
import type { Context } from '../../src/context.ts';
import { TspodError } from '../../src/errors.ts';
import { type Exchange, HttpClient, show } from './http.ts';
import {
  isTransientStatus,
  parseRetryAfter,
  TIMING,
  type Timing,
  Transient,
  withRetries,
} from './retry.ts';

export interface WebRequest {
  readonly headers?: Readonly<Record<string, string>>;
  /** A server named this URL, not the user: it must not lead to the local link. */
  readonly told?: boolean;
}

/** What is answered with a status that mends itself is asked for again; any other status is the caller's. */
export class WebClient {
  readonly #context: Pick<Context, 'insecure'>;
  readonly #config: Pick<Config, 'auth' | 'registries'>;
  readonly #clients = new Map<string, HttpClient>();
  readonly timing: Timing;

  constructor(
    context: Pick<Context, 'insecure'>,
    config: Pick<Config, 'auth' | 'registries'>,
    timing: Timing = TIMING,
  ) {
    this.#context = context;
    this.#config = config;
    this.timing = timing;
  }

  /**
   * A GET whose answer `use` reads; again when it breaks off or the server is busy.
   * @throws TspodError 'usage' for a URL of plain HTTP that is not allowed, 'unsupported' for other schemes
   */
  get<T>(url: URL, request: WebRequest, use: (exchange: Exchange) => Promise<T>): Promise<T> {
    return withRetries(this.timing, async () => {
      const exchange = await this.open(url, request);
      try {
        return await use(exchange);
      } finally {
        exchange.end();
      }
    });
  }

  /** One try of a GET. @throws Transient for what another may mend */
  async open(url: URL, { headers, told }: WebRequest): Promise<Exchange> {
    this.checkScheme(url);
    const exchange = await this.#client(url).request(url, {
      ...(headers === undefined ? {} : { headers }),
      authorization: this.#authorization(url),
      ...(told === undefined ? {} : { told }),
    });
    const { status, headers: answered } = exchange.response;
    if (!isTransientStatus(status)) return exchange;
    exchange.end();
    throw new Transient(
      new TspodError(
        'network',
        `${show(exchange.url)}: ${status === 429 ? 'too many requests' : `status ${status}`}`,
      ),
      parseRetryAfter(answered.get('retry-after')),
    );
  }

  /** @throws TspodError for anything but https, and http where it is allowed */
  checkScheme(url: URL): void {
    if (url.protocol === 'https:') return;
    if (url.protocol !== 'http:') {
      throw new TspodError('unsupported', `${show(url)}: ${url.protocol} URLs can't be fetched`);
    }
    if (this.#context.insecure.has('http')) return;
    throw new TspodError('usage', `${show(url)}: refused to fetch over plain HTTP`, {
      hint: 'to do it all the same use --insecure-options=http',
    });
  }

  close(): void {
    for (const client of this.#clients.values()) client.close();
    this.#clients.clear();
  }

  #client(url: URL): HttpClient {
    const host = url.host.toLowerCase();
    const former = this.#clients.get(host);
    if (former !== undefined) return former;
    const settings = this.#config.registries.get(host);
    const client = new HttpClient(this.timing, {
      verify: !(this.#context.insecure.has('tls') || (settings?.insecure.has('tls') ?? false)),
      caCertificate: settings?.caCertificate,
      clientCertificate: settings?.clientCertificate,
      clientKey: settings?.clientKey,
    });
    this.#clients.set(host, client);
    return client;
  }

  #authorization(url: URL): string | undefined {
    // In the clear anybody on the way could read it.
    if (url.protocol !== 'https:') return undefined;
    const credentials = this.#config.auth.get(url.host.toLowerCase())?.credentials;
    switch (credentials?.type) {
      case undefined:
        return undefined;
      case 'basic':
        return `Basic ${Buffer.from(`${credentials.user}:${credentials.password}`).toString('base64')}`;
      case 'oauth':
        return `Bearer ${credentials.token}`;
      case 'aws':
        throw new TspodError(
          'unsupported',
          `${url.host}: its credentials are of type aws, which can't be used to fetch`,
          { hint: 'give it credentials of type basic or oauth in auth.d' },
        );
    }
  }
}
