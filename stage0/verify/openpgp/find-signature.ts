/**
 * Where detached OpenPGP signatures lie, as for rkt: what `--signature` names; else FILE.asc beside an image's
 * file, URL.asc beside an image's URL. A server may answer 202 to ask for the image to be fetched first; then
 * the signature is asked for once more. For an archive of any format the signature is over the file's bytes.
 */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import type { Context } from '../../../src/context.ts';
import { errnoOf, reasonOf, systemError, TspodError } from '../../../src/errors.ts';
import type { Timing } from '../../fetch/retry.ts';
import type { FoundSignature } from '../types.ts';
import { MAX_BYTES } from './packets.ts';

export type FoundOpenPgp = FoundSignature & { readonly kind: 'openpgp' };

export type DetachedSignature =
  | { readonly state: 'found'; readonly signature: FoundOpenPgp }
  /** The server wants the image to be fetched first. `again` then downloads the signature. */
  | { readonly state: 'deferred'; again(): Promise<FoundOpenPgp> }
  /** There is none beside the image. `why` is for the message of who needed one. */
  | { readonly state: 'absent'; readonly why: string };

export type SignedImage =
  | { readonly path: string }
  /** `told`: a server named the URL, as discovery does. */
  | { readonly url: URL; readonly told?: boolean };

type Web = Pick<Context, 'insecure' | 'offline' | 'systemConfig' | 'localConfig' | 'userConfig'>;

export interface FindOptions {
  /** `--signature`: a file or a URL. What it names has to be there. */
  readonly named?: string | undefined;
  /** Told when a server defers. */
  readonly onDeferred?: (message: string) => void;
  /** For tests. */
  readonly timing?: Timing;
}

/**
 * @throws TspodError 'trust' when the named signature is not there, 'network' when a server can't be asked,
 *   'limit', 'offline', 'usage' for plain HTTP
 */
export async function findDetachedSignature(
  context: Web,
  image: SignedImage,
  options: FindOptions = {},
): Promise<DetachedSignature> {
  const found = await look(context, image, options);
  if (found.state === 'absent' && options.named !== undefined) {
    throw new TspodError('trust', found.why, { hint: 'it was named by --signature' });
  }
  return found;
}

function look(context: Web, image: SignedImage, options: FindOptions): Promise<DetachedSignature> {
  const { named } = options;
  if (named !== undefined) {
    if (isUrl(named)) return download(context, parseUrl(named), false, options);
    return Promise.resolve(readBeside(named, 'wait'));
  }
  if ('path' in image) return Promise.resolve(readBeside(`${image.path}.asc`, 'never wait'));
  return download(context, signatureUrl(image.url), image.told ?? false, options);
}

/** `https://HOST/NAME.aci?QUERY` → `https://HOST/NAME.aci.asc?QUERY`. */
export function signatureUrl(image: URL): URL {
  const url = new URL(image);
  url.pathname += '.asc';
  return url;
}

/** Whether text has the scheme of a URL. */
export function isUrl(text: string): boolean {
  return /^[a-z][a-z0-9+.-]*:\/\//i.test(text);
}

export function parseUrl(text: string): URL {
  if (URL.canParse(text)) return new URL(text);
  throw new TspodError('usage', `${JSON.stringify(text.slice(0, 200))} is not a URL`);
}

function readBeside(path: string, pipes: 'wait' | 'never wait'): DetachedSignature {
  try {
    const signature: FoundOpenPgp = {
      kind: 'openpgp',
      origin: path,
      bytes: readWhole(path, pipes),
    };
    return { state: 'found', signature };
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === 'ENOENT' || errno === 'ENOTDIR') {
      return { state: 'absent', why: `error opening signature file: ${path}: no such file` };
    }
    throw systemError('error opening signature file', error);
  }
}

/**
 * At most MAX_BYTES of a file or pipe. What a user names may be a shell's `<(…)`, worth waiting for; a pipe that
 * merely lies somewhere is as good as empty.
 */
export function readWhole(path: string, pipes: 'wait' | 'never wait' = 'wait'): Uint8Array {
  const fd = openSync(path, constants.O_RDONLY | (pipes === 'wait' ? 0 : constants.O_NONBLOCK));
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile() && !stat.isFIFO()) {
      throw new TspodError('reference', `${path}: it is not a file`);
    }
    const buffer = Buffer.alloc(MAX_BYTES + 1);
    let length = 0;
    while (length < buffer.length) {
      const got = readSync(fd, buffer, length, buffer.length - length, null);
      if (got === 0) return buffer.subarray(0, length);
      length += got;
    }
    throw new TspodError('limit', `${path}: longer than the limit of ${MAX_BYTES} bytes`);
  } finally {
    closeSync(fd);
  }
}

const ABSENT: ReadonlySet<number> = new Set([401, 403, 404, 410]);

async function download(
  context: Web,
  url: URL,
  told: boolean,
  options: FindOptions,
): Promise<DetachedSignature> {
  const what = 'error downloading the signature file';
  if (context.offline) {
    throw new TspodError('offline', `${what}: ${url.host} would be contacted`, {
      hint: 'do it without --offline',
    });
  }
  const { collect, loadConfig, WebClient } = await import('./network.ts');
  const client = new WebClient(context, loadConfig(context), options.timing);
  const origin = `${url.origin}${url.pathname}`;
  try {
    const got = await client.get(url, { told }, async exchange => {
      const { status } = exchange.response;
      if (status !== 200) return status;
      return collect(exchange.body(), MAX_BYTES, `signature ${origin}`);
    });
    if (typeof got !== 'number') {
      return { state: 'found', signature: { kind: 'openpgp', origin, bytes: got } };
    }
    const why = `${what}: ${origin}: status ${got}`;
    if (got === 202) {
      options.onDeferred?.('server requested deferring the signature download');
      return { state: 'deferred', again: () => downloadAgain(context, url, told, options) };
    }
    if (ABSENT.has(got)) return { state: 'absent', why };
    throw new TspodError('network', why);
  } catch (error) {
    if (!(error instanceof TspodError) || error.message.startsWith(what)) throw error;
    throw new TspodError(error.code, `${what}: ${error.message}`, {
      ...(error.hint === undefined ? {} : { hint: error.hint }),
      cause: error,
    });
  } finally {
    client.close();
  }
}

async function downloadAgain(
  context: Web,
  url: URL,
  told: boolean,
  options: FindOptions,
): Promise<FoundOpenPgp> {
  const found = await download(context, url, told, { ...options, onDeferred: () => undefined });
  if (found.state === 'found') return found.signature;
  throw new TspodError(
    'trust',
    found.state === 'absent'
      ? found.why
      : 'error downloading the signature file: server asked to defer the download again',
  );
}

const CHUNK = 64 * 1024;

/**
 * The content of an open file, from its beginning, as often as asked. Whoever verifies an archive keeps the
 * descriptor and reads the image from it, so that no other file is put in its place meanwhile.
 */
export function* fileContent(fd: number): Generator<Uint8Array> {
  for (let at = 0; ; ) {
    const buffer = Buffer.allocUnsafe(CHUNK);
    let got: number;
    try {
      got = readSync(fd, buffer, 0, CHUNK, at);
    } catch (error) {
      throw new TspodError('system', `can't read the image: ${reasonOf(error)}`, { cause: error });
    }
    if (got === 0) return;
    at += got;
    yield buffer.subarray(0, got);
  }
}
