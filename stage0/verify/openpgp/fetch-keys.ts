/**
 * Where keys come from: files, https, discovery (`ac-discovery-pubkeys`). What is trusted by them admits images
 * ever after, so certificates are checked and plain HTTP is refused whatever --insecure-options says of images.
 */
import type { Config } from '../../../src/config/config.ts';
import type { Context } from '../../../src/context.ts';
import { errnoOf, systemError, TspodError } from '../../../src/errors.ts';
import type { Timing } from '../../fetch/retry.ts';
import { isUrl, parseUrl, readWhole } from './find-signature.ts';
import { type KeyBlock, splitKeys } from './key-block.ts';
import { MAX_BYTES } from './packets.ts';

/** What is allowed on the way. */
export interface Transport {
  readonly allowHttp: boolean;
  readonly verifyTls: boolean;
  readonly timing: Timing | undefined;
}

/** The URLs of the keys for a name. @throws TspodError as discover() */
export async function discoverKeys(
  context: Context,
  name: string,
  transport: Transport,
): Promise<readonly string[]> {
  const { discover, loadConfig } = await import('./network.ts');
  const { allowHttp, timing } = transport;
  const found = await discover(
    insecureAs(context, transport),
    configAs(loadConfig(context), transport),
    name,
    'ac-discovery-pubkeys',
    { allowHttp, ...(timing === undefined ? {} : { timing }) },
  );
  // As a URL has it: what a page says may have characters that deceive the eye in a review.
  return [...new Set(found.map(({ template }) => parseUrl(template).href))];
}

/** Of the options only what the transport of keys obeys. */
function insecureAs(
  context: Context,
  { allowHttp, verifyTls }: Transport,
): Pick<Context, 'insecure' | 'offline'> {
  const insecure = new Set<'http' | 'tls'>();
  if (allowHttp) insecure.add('http');
  if (!verifyTls) insecure.add('tls');
  return { insecure, offline: context.offline };
}

/** Without a host's `insecure`, which was configured for images. */
function configAs(config: Config, { verifyTls }: Transport): Pick<Config, 'auth' | 'registries'> {
  if (!verifyTls) return config;
  const registries = new Map(
    [...config.registries].map(([host, settings]) => [
      host,
      { ...settings, insecure: new Set<never>() },
    ]),
  );
  return { auth: config.auth, registries };
}

/**
 * The keys of a file or URL.
 * @param told a server named the location, not the user: it has to be a URL
 */
export async function fetchKeys(
  context: Context,
  location: string,
  told: boolean,
  transport: Transport,
): Promise<readonly KeyBlock[]> {
  const shown = JSON.stringify(location);
  let bytes: Uint8Array;
  try {
    bytes =
      told || isUrl(location)
        ? await download(context, parseUrl(location), told, transport)
        : readWhole(location);
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === 'ENOENT') {
      throw new TspodError('not-found', `error accessing the key ${shown}: no such file`);
    }
    if (error instanceof TspodError) {
      throw new TspodError(error.code, `error accessing the key ${shown}: ${error.message}`, {
        ...(error.hint === undefined ? {} : { hint: error.hint }),
        cause: error,
      });
    }
    throw systemError(`error accessing the key ${shown}`, error);
  }
  return splitKeys(bytes, `key ${shown}`);
}

async function download(
  context: Context,
  url: URL,
  told: boolean,
  transport: Transport,
): Promise<Uint8Array> {
  if (url.protocol === 'http:' && !transport.allowHttp) {
    throw new TspodError('usage', '--insecure-allow-http required for http URLs');
  }
  if (url.protocol !== 'http:' && url.protocol !== 'https:') {
    throw new TspodError('usage', 'only local files and http or https URLs supported');
  }
  if (context.offline) {
    throw new TspodError('offline', `${url.host} would be contacted`, {
      hint: 'do it without --offline',
    });
  }
  const { collect, loadConfig, WebClient } = await import('./network.ts');
  const config = configAs(loadConfig(context), transport);
  const client = new WebClient(insecureAs(context, transport), config, transport.timing);
  try {
    return await client.get(url, { told }, exchange => {
      const { status } = exchange.response;
      if (status !== 200) throw new TspodError('network', `bad HTTP status code: ${status}`);
      return collect(exchange.body(), MAX_BYTES, 'it');
    });
  } finally {
    client.close();
  }
}
