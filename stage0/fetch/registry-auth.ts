/**
 * Authorization for one repository of one registry (distribution "Token Authentication Specification" and
 * its OAuth2 variant, RFC 7617). The registry itself says where tokens come from; only a challenge from the
 * registry's own origin is believed, so nobody it redirects to can ask for credentials (CVE-2020-15157).
 */
import { TspodError } from '../../src/errors.ts';
import { JsonReader, parseBoundedJson } from '../../src/image/json.ts';
import { type Challenge, parseChallenges } from './challenge.ts';
import type { Credentials } from './credentials.ts';
import { type HttpClient, show } from './http.ts';
import {
  isTransientStatus,
  parseRetryAfter,
  type Timing,
  Transient,
  withRetries,
} from './retry.ts';
import { collect } from './source.ts';

const MAX_TOKEN_ANSWER = 1024 * 1024;
/** The specification's default, and how long before its end a token is no longer used. */
const DEFAULT_EXPIRY = 60_000;
const MARGIN = 10_000;

export interface Authorizer {
  /** The header to send now; undefined before the registry asked for one. */
  header(): Promise<string | undefined>;
  /** Takes a 401's challenge. False when nothing more can be offered. */
  challenged(header: string | null, sent: string | undefined): Promise<boolean>;
}

export interface AuthorizerOptions {
  readonly http: HttpClient;
  readonly timing: Timing;
  readonly origin: URL;
  readonly repository: string;
  readonly allowHttp: boolean;
  /** What a token is asked for; default `pull`. */
  readonly actions?: 'pull' | 'pull,push' | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly credentials: () => Promise<Credentials | undefined>;
}

export class RegistryAuthorizer implements Authorizer {
  readonly #options: AuthorizerOptions;
  #scheme: Challenge | undefined;
  #token: { readonly value: string; readonly until: number } | undefined;
  /** Several layers ask at once; one goes. */
  #pending: Promise<string> | undefined;
  #credentials: Promise<Credentials | undefined> | undefined;

  constructor(options: AuthorizerOptions) {
    this.#options = options;
  }

  async header(): Promise<string | undefined> {
    if (this.#scheme === undefined) return undefined;
    const credentials = await this.#findCredentials();
    if (this.#scheme.scheme === 'basic') {
      return credentials?.kind === 'basic' ? basic(credentials) : undefined;
    }
    if (credentials?.kind === 'bearer') return `Bearer ${credentials.token}`;
    return `Bearer ${await this.#bearer(this.#scheme)}`;
  }

  async challenged(header: string | null, sent: string | undefined): Promise<boolean> {
    const { origin } = this.#options;
    const challenges = header === null ? [] : parseChallenges(header);
    if (challenges === undefined) {
      throw new TspodError('protocol', `${show(origin)}: its WWW-Authenticate header is malformed`);
    }
    const challenge =
      challenges.find(({ scheme }) => scheme === 'bearer') ??
      challenges.find(({ scheme }) => scheme === 'basic');
    if (challenge === undefined) return false;
    const first = this.#scheme === undefined;
    this.#scheme = challenge;
    // A token that was refused may have expired early; a password will not get better.
    if (
      challenge.scheme === 'bearer' &&
      sent !== undefined &&
      sent === `Bearer ${this.#token?.value}`
    ) {
      this.#token = undefined;
      return true;
    }
    return (await this.header()) !== undefined && (first || sent === undefined);
  }

  #findCredentials(): Promise<Credentials | undefined> {
    this.#credentials ??= this.#options.credentials();
    return this.#credentials;
  }

  #bearer(challenge: Challenge): Promise<string> {
    const token = this.#token;
    if (token !== undefined && Date.now() < token.until) return Promise.resolve(token.value);
    const { timing, signal } = this.#options;
    this.#pending ??= withRetries(timing, () => this.#fetchToken(challenge), signal).finally(() => {
      this.#pending = undefined;
    });
    return this.#pending;
  }

  async #fetchToken(challenge: Challenge): Promise<string> {
    const url = this.#realm(challenge.parameters.get('realm'));
    const service = challenge.parameters.get('service');
    // Nothing else is ever asked for, whatever the challenge names.
    const scope = `repository:${this.#options.repository}:${this.#options.actions ?? 'pull'}`;
    const credentials = await this.#findCredentials();
    const told = url.origin !== this.#options.origin.origin;
    const request =
      credentials?.kind === 'identity'
        ? this.#options.http.request(url, {
            method: 'POST',
            told,
            redirects: 0,
            headers: { 'Content-Type': 'application/x-www-form-urlencoded' },
            form: new URLSearchParams({
              grant_type: 'refresh_token',
              refresh_token: credentials.token,
              client_id: 'tspod',
              scope,
              ...(service === undefined ? {} : { service }),
            }).toString(),
          })
        : this.#options.http.request(withQuery(url, service, scope), {
            told,
            redirects: credentials === undefined ? 5 : 0,
            authorization: credentials?.kind === 'basic' ? basic(credentials) : undefined,
          });
    const { response, body, end } = await request;
    const { status } = response;
    if (status !== 200) {
      end();
      throw tokenRefused(url, status, credentials, response.headers.get('retry-after'));
    }
    const what = `token server ${show(url)}`;
    const bytes = await collect(body(), MAX_TOKEN_ANSWER, what);
    const reader: JsonReader = new JsonReader({ what, code: 'protocol' });
    const answer = reader.object(parseBoundedJson(bytes, MAX_TOKEN_ANSWER, reader.kind), '');
    const value =
      reader.optionalString(answer.token, 'token') ||
      reader.optionalString(answer.access_token, 'access_token');
    if (!value) reader.fail('', 'has no token');
    if (!/^[\x21-\x7e]+$/.test(value)) reader.fail('token', 'has characters that no header takes');
    const seconds = answer.expires_in;
    const lasts =
      typeof seconds === 'number' && seconds > 0
        ? Math.min(seconds, 86_400) * 1000
        : DEFAULT_EXPIRY;
    this.#token = { value, until: Date.now() + Math.max(lasts - MARGIN, lasts / 2) };
    return value;
  }

  #realm(realm: string | undefined): URL {
    const { origin, allowHttp } = this.#options;
    let url: URL;
    try {
      url = new URL(realm ?? '');
    } catch {
      throw new TspodError(
        'protocol',
        `${show(origin)}: the realm of its token server is not a URL`,
      );
    }
    if (url.protocol !== 'https:' && !(url.protocol === 'http:' && allowHttp)) {
      throw new TspodError(
        'protocol',
        `${show(origin)}: its token server ${show(url)} is not https`,
        {
          hint: 'use --insecure-options=http if the network between is trusted',
        },
      );
    }
    url.username = '';
    url.password = '';
    return url;
  }
}

function withQuery(realm: URL, service: string | undefined, scope: string): URL {
  const url = new URL(realm);
  if (service !== undefined) url.searchParams.set('service', service);
  url.searchParams.set('scope', scope);
  return url;
}

function basic({ user, password }: Extract<Credentials, { kind: 'basic' }>): string {
  return `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`;
}

function tokenRefused(
  url: URL,
  status: number,
  credentials: Credentials | undefined,
  retryAfter: string | null,
): TspodError {
  if (isTransientStatus(status)) {
    const error = new TspodError('network', `token server ${show(url)}: status ${status}`);
    return new Transient(error, parseRetryAfter(retryAfter));
  }
  if (status === 401 || status === 403 || status === 400) {
    const why = credentials === undefined ? 'it wants credentials' : 'it refused the credentials';
    return new TspodError('denied', `token server ${show(url)}: ${why}`, {
      hint: CREDENTIALS_HINT,
    });
  }
  return new TspodError('protocol', `token server ${show(url)}: status ${status}`);
}

export const CREDENTIALS_HINT = 'configure them in auth.d, or log in with docker or podman login';
