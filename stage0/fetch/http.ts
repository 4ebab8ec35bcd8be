/**
 * One HTTP exchange: agents (TLS files, proxies, connect time-out), time-outs, redirects that can't be
 * abused, failures told by their cause. What a status means is the caller's business.
 *
 * Redirects are followed here, by hand: at most 10, never from https to http, never to an address of the
 * local link (cloud metadata services live there), and credentials never leave the origin they are for.
 */

import { lookup } from 'node:dns';
import { readFileSync } from 'node:fs';
import { Agent as HttpAgent, type AgentOptions as HttpAgentOptions } from 'node:http';
import { type AgentOptions, Agent as HttpsAgent } from 'node:https';
import { BlockList, isIP, type LookupFunction } from 'node:net';
import type { Duplex, Readable } from 'node:stream';
import fetch, { type Response } from 'node-fetch';
import { errnoOf, reasonOf, systemError, TspodError } from '../../src/errors.ts';
import { proxyFor } from './proxy.ts';
import { type Timing, Transient } from './retry.ts';

export interface TlsSettings {
  readonly verify: boolean;
  readonly caCertificate: string | undefined;
  readonly clientCertificate: string | undefined;
  readonly clientKey: string | undefined;
}

export interface Exchange {
  readonly response: Response;
  /** Where it was found after redirects. */
  readonly url: URL;
  /** Ends the exchange; what was not read is dropped. */
  end(): void;
  /** The body with the idle time-out. Throws Transient 'network' when it breaks off. */
  body(): AsyncIterable<Uint8Array>;
}

export interface RequestOptions {
  readonly method?: 'GET' | 'POST' | 'HEAD' | 'PATCH' | 'PUT';
  readonly headers?: Readonly<Record<string, string>>;
  /** For this origin only. */
  readonly authorization?: string | undefined;
  readonly form?: string;
  /** Sent as it is, with the length in `headers`; made anew for each try. Redirects are not for such a request. */
  readonly upload?: () => Readable | Buffer;
  /** Redirects to follow; default 10. */
  readonly redirects?: number;
  /** The user did not name this URL, a server did. */
  readonly told?: boolean;
}

const MAX_REDIRECTS = 10;
const REDIRECTS = new Set([301, 302, 303, 307, 308]);

const LINK_LOCAL = new BlockList();
LINK_LOCAL.addSubnet('169.254.0.0', 16, 'ipv4');
LINK_LOCAL.addSubnet('0.0.0.0', 8, 'ipv4');
LINK_LOCAL.addSubnet('fe80::', 10, 'ipv6');
LINK_LOCAL.addSubnet('64:ff9b::a9fe:0', 112, 'ipv6');
LINK_LOCAL.addAddress('fd00:ec2::254', 'ipv6');
LINK_LOCAL.addAddress('::', 'ipv6');

export class HttpClient {
  readonly #timing: Timing;
  readonly #tls: TlsSettings;
  readonly #signal: AbortSignal | undefined;
  readonly #agents = new Map<string, HttpAgent>();

  /** @param signal ends every exchange under way, and each later one, at once */
  constructor(timing: Timing, tls: TlsSettings, signal?: AbortSignal) {
    this.#timing = timing;
    this.#tls = tls;
    this.#signal = signal;
  }

  close(): void {
    for (const agent of this.#agents.values()) agent.destroy();
    this.#agents.clear();
  }

  /** @throws Transient for what another try may mend, else TspodError by cause. */
  async request(start: URL, options: RequestOptions = {}): Promise<Exchange> {
    let url = start;
    let told = options.told ?? false;
    for (let hops = options.redirects ?? MAX_REDIRECTS; ; hops -= 1) {
      if (told) refuseLinkLocal(url);
      const exchange = await this.#once(url, options, url.origin === start.origin, told);
      const { response } = exchange;
      if (!REDIRECTS.has(response.status)) return exchange;
      const location = response.headers.get('location');
      exchange.end();
      if (location === null) throw protocol(url, `status ${response.status} without a Location`);
      if (hops === 0) {
        throw new TspodError(
          'limit',
          `${show(start)}: more than ${options.redirects ?? MAX_REDIRECTS} redirects`,
        );
      }
      const next = resolveRedirect(url, location);
      if (next.origin !== url.origin) told = true;
      url = next;
    }
  }

  async #once(url: URL, options: RequestOptions, own: boolean, told: boolean): Promise<Exchange> {
    const agent = await this.#agent(url, told);
    const abort = new AbortController();
    const signals = [abort.signal, ...(this.#signal === undefined ? [] : [this.#signal])];
    // An answer to an upload comes after its last byte, however long that takes; a dead line breaks off.
    const timer =
      options.upload === undefined
        ? setTimeout(() => abort.abort(), this.#timing.headers)
        : undefined;
    let response: Response;
    try {
      response = await fetch(url.href, {
        method: options.method ?? 'GET',
        redirect: 'manual',
        signal: AbortSignal.any(signals),
        agent,
        // A registry must hand out a blob's own bytes; a decoded one would never fit its digest.
        compress: false,
        headers: {
          'User-Agent': 'tspod',
          'Accept-Encoding': 'identity',
          ...options.headers,
          ...(own && options.authorization !== undefined
            ? { Authorization: options.authorization }
            : {}),
        },
        ...(options.form === undefined ? {} : { body: options.form }),
        ...(options.upload === undefined ? {} : { body: options.upload() }),
      });
    } catch (error) {
      this.#signal?.throwIfAborted();
      if (abort.signal.aborted) {
        const why = `no answer in ${this.#timing.headers / 1000} s`;
        throw new Transient(new TspodError('network', `${show(url)}: ${why}`));
      }
      throw connectionError(url, error);
    } finally {
      clearTimeout(timer);
    }
    return {
      response,
      url,
      end: () => abort.abort(),
      body: () => readBody(response, url, abort, this.#timing.idle, this.#signal),
    };
  }

  async #agent(url: URL, told: boolean): Promise<HttpAgent> {
    const proxy = proxyFor(url, process.env);
    const key = `${url.protocol}${told}${proxy?.href ?? ''}`;
    const former = this.#agents.get(key);
    if (former !== undefined) return former;
    const agent = await this.#makeAgent(url, told, proxy);
    this.#agents.set(key, agent);
    return agent;
  }

  async #makeAgent(url: URL, told: boolean, proxy: URL | undefined): Promise<HttpAgent> {
    const secure = url.protocol === 'https:';
    const tls = secure ? tlsOptions(this.#tls) : {};
    let agent: HttpAgent;
    if (proxy === undefined) {
      const options: AgentOptions & HttpAgentOptions = {
        keepAlive: true,
        ...(told ? { lookup: safeLookup } : {}),
        ...tls,
      };
      agent = secure ? new HttpsAgent(options) : new HttpAgent(options);
    } else {
      const { HttpProxyAgent, HttpsProxyAgent } = await import('./proxy-agents.ts');
      const kept = { keepAlive: true };
      if (secure) {
        // What it is made with is for the proxy, its `options` for who is behind the tunnel: the registry's
        // CA and client certificate must reach the one and not the other.
        const tunnel = new HttpsProxyAgent(proxy, kept);
        Object.assign(tunnel.options, tls);
        agent = tunnel;
      } else agent = new HttpProxyAgent(proxy, kept);
    }
    limitConnect(agent, this.#timing.connect);
    return agent;
  }
}

/** A socket that is not connected in time is destroyed, with an error of its own. */
function limitConnect(agent: HttpAgent, ms: number): void {
  const create = agent.createConnection.bind(agent);
  agent.createConnection = (options, callback) => {
    const socket = create(options, callback);
    if (socket) armConnectTimer(socket, ms);
    return socket;
  };
}

function armConnectTimer(socket: Duplex, ms: number): void {
  const timer = setTimeout(() => {
    socket.destroy(Object.assign(new Error('connect timed out'), { code: 'ETIMEDOUT' }));
  }, ms);
  const clear = () => clearTimeout(timer);
  const ready = 'encrypted' in socket ? 'secureConnect' : 'connect';
  socket.once(ready, clear).once('close', clear).once('error', clear);
}

function tlsOptions(tls: TlsSettings): AgentOptions {
  return {
    rejectUnauthorized: tls.verify,
    ...(tls.caCertificate === undefined ? {} : { ca: readPem(tls.caCertificate) }),
    ...(tls.clientCertificate === undefined ? {} : { cert: readPem(tls.clientCertificate) }),
    ...(tls.clientKey === undefined ? {} : { key: readPem(tls.clientKey) }),
  };
}

function readPem(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new TspodError('config', systemError(`can't read ${path}`, error).message, {
      hint: 'see registries.d',
      cause: error,
    });
  }
}

const safeLookup: LookupFunction = (hostname, options, callback) => {
  lookup(hostname, { ...options, all: true }, (error, addresses) => {
    if (error !== null) return callback(error, '', 0);
    const bad = addresses.find(({ address }) => isLinkLocal(address));
    const [first] = addresses;
    if (bad !== undefined || first === undefined) {
      const refused = new Error(`${hostname} is an address of the local link`);
      return callback(Object.assign(refused, { code: 'ELINKLOCAL' }), '', 0);
    }
    if (options.all) callback(null, addresses);
    else callback(null, first.address, first.family);
  });
};

export function isLinkLocal(address: string): boolean {
  const family = isIP(address);
  if (family === 0) return false;
  return LINK_LOCAL.check(address, family === 6 ? 'ipv6' : 'ipv4');
}

function refuseLinkLocal(url: URL): void {
  if (!isLinkLocal(url.hostname.replace(/^\[|\]$/g, ''))) return;
  throw new TspodError(
    'protocol',
    `${show(url)}: refused to follow a server to an address of the local link`,
  );
}

function resolveRedirect(from: URL, location: string): URL {
  let next: URL;
  try {
    next = new URL(location, from);
  } catch {
    throw protocol(from, 'it redirects to something that is not a URL');
  }
  if (next.protocol !== 'https:' && next.protocol !== 'http:') {
    throw protocol(from, `it redirects to a ${next.protocol} URL`);
  }
  if (from.protocol === 'https:' && next.protocol === 'http:') {
    throw protocol(from, 'it redirects from https to http');
  }
  // They would be sent as credentials of the new host.
  next.username = '';
  next.password = '';
  return next;
}

async function* readBody(
  response: Response,
  url: URL,
  abort: AbortController,
  idle: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  const { body } = response;
  if (body === null) return;
  let timedOut = false;
  const arm = () =>
    setTimeout(() => {
      timedOut = true;
      abort.abort();
    }, idle);
  let timer = arm();
  try {
    for await (const chunk of body) {
      clearTimeout(timer);
      yield typeof chunk === 'string' ? Buffer.from(chunk) : chunk;
      timer = arm();
    }
  } catch (error) {
    signal?.throwIfAborted();
    const why = timedOut ? `no byte in ${idle / 1000} s` : 'the connection broke off';
    throw new Transient(new TspodError('network', `${show(url)}: ${why}`, { cause: error }));
  } finally {
    clearTimeout(timer);
    abort.abort();
  }
}

/** Without query and user: they may be credentials (signed URLs of object stores). */
export function show(url: URL): string {
  return `${url.protocol}//${url.host}${url.pathname}`;
}

function protocol(url: URL, why: string): TspodError {
  return new TspodError('protocol', `${show(url)}: ${why}`);
}

/** Nobody answers by TLS there: nobody listens, or who does speaks something else. */
export class WithoutTls extends TspodError {}

/** What OpenSSL says of an answer that is no TLS record, e.g. an HTTP server's to a ClientHello. */
const NO_TLS_RECORD = /wrong[ _]version[ _]number|packet[ _]length[ _]too[ _]long/i;

/** The failure by its cause, with the way out. */
function connectionError(url: URL, error: unknown): TspodError {
  const errno = rootErrno(error);
  const proxy = proxyFor(url, process.env);
  const by = proxy === undefined ? '' : ` by proxy ${hostAndPort(proxy)}`;
  const host = `${hostAndPort(url)}${by}`;
  const network = (why: string, hint?: string) =>
    new TspodError('network', `${host}: ${why}`, {
      ...(hint === undefined ? {} : { hint }),
      cause: error,
    });
  if (error instanceof TspodError) return error;
  switch (errno) {
    case 'ENOTFOUND':
      return network('unknown host', 'check the name of the registry');
    case 'EAI_AGAIN':
      return new Transient(
        network('its name can not be looked up now', 'check the DNS of this machine'),
      );
    case 'ECONNREFUSED': {
      const refused = network(
        'connection refused',
        proxy === undefined ? 'is the server running, and is this its port?' : undefined,
      );
      return proxy === undefined ? withoutTls(refused) : refused;
    }
    case 'ECONNRESET':
    case 'EPIPE':
    case 'UND_ERR_SOCKET':
    case 'ERR_STREAM_PREMATURE_CLOSE':
      return new Transient(network('the connection broke off'));
    case 'ETIMEDOUT':
      return new Transient(network('no connection in time', 'check the address, and proxies'));
    case 'EHOSTUNREACH':
    case 'ENETUNREACH':
      return network('no route to it', 'check the network, or use --offline');
    case 'ELINKLOCAL':
      return new TspodError(
        'protocol',
        `${host}: refused to follow a server to an address of the local link`,
      );
    default:
  }
  if (errno === 'EPROTO' || errno?.startsWith('ERR_SSL_')) {
    const reason = `${errno} ${reasonOf(error)}`;
    if (NO_TLS_RECORD.test(reason)) {
      const hint = 'if it is a registry over plain HTTP, use --insecure-options=http';
      return withoutTls(network('it does not speak TLS', hint));
    }
    const alert = /SSL routines:[^:]*:([^:]+)/.exec(reason)?.[1];
    return network(`TLS: the handshake failed${alert === undefined ? '' : ` (${alert})`}`);
  }
  if (errno !== undefined && /CERT|SELF_SIGNED|ALTNAME|UNABLE_TO|ISSUER|TLS|SSL/.test(errno)) {
    return network(
      `TLS: ${certificateFault(errno)}`,
      'name its CA in registries.d (caCertificate), or use --insecure-options=tls',
    );
  }
  if (/Proxy connection ended/.test(reasonOf(error))) {
    return network('the proxy ended the connection without an answer');
  }
  return network(errno ?? 'the request failed');
}

function withoutTls({ code, message, hint, cause }: TspodError): WithoutTls {
  return new WithoutTls(code, message, { ...(hint === undefined ? {} : { hint }), cause });
}

function hostAndPort(url: URL): string {
  return `${url.hostname}:${url.port || (url.protocol === 'https:' ? 443 : 80)}`;
}

function certificateFault(errno: string): string {
  switch (errno) {
    case 'CERT_HAS_EXPIRED':
      return 'its certificate has expired';
    case 'ERR_TLS_CERT_ALTNAME_INVALID':
      return 'its certificate is for another name';
    case 'DEPTH_ZERO_SELF_SIGNED_CERT':
    case 'SELF_SIGNED_CERT_IN_CHAIN':
    case 'UNABLE_TO_VERIFY_LEAF_SIGNATURE':
    case 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY':
    case 'UNABLE_TO_GET_ISSUER_CERT':
      return 'its certificate is of an unknown authority';
    default:
      return errno;
  }
}

function rootErrno(error: unknown): string | undefined {
  if (error instanceof AggregateError) return rootErrno(error.errors[0]);
  const own = errnoOf(error);
  if (own !== undefined) return own;
  return error instanceof Error && error.cause !== undefined ? rootErrno(error.cause) : undefined;
}
