/**
 * appc image discovery (appc 0.8.11, "App Container Image Discovery"): from an image's name to the templates
 * of its URLs, or to the URLs of its keys, by meta elements of pages at the name and above it.
 *
 * Only https, unless plain HTTP is allowed: then it is tried where there is no TLS. What a page says is no
 * more trustworthy than its server; signatures are checked by keys, not by where they came from.
 */
import type { Config } from '../../src/config/config.ts';
import type { Context } from '../../src/context.ts';
import { TspodError } from '../../src/errors.ts';
import { isAcIdentifier } from '../../src/image/appc-names.ts';
import { type Exchange, WithoutTls } from './http.ts';
import { scanMetaTags } from './meta-tags.ts';
import type { Timing } from './retry.ts';
import { collect } from './source.ts';
import { WebClient } from './web-server.ts';

export interface Discovered {
  /** The beginning of names that the template is for. */
  readonly prefix: string;
  /** A URL template (`ac-discovery`) or a URL (`ac-discovery-pubkeys`), as the page has it. */
  readonly template: string;
}

export type DiscoveryTag = 'ac-discovery' | 'ac-discovery-pubkeys';

const MAX_PAGE_BYTES = 1024 * 1024;
/** Each costs a request. */
const MAX_COMPONENTS = 16;
/** Endpoints of one page that are for the name. */
const MAX_FOUND = 20;

/**
 * What the page nearest to `name` says, in its order; only what is for `name`.
 * @param name an AC identifier, e.g. `example.com/reduce-worker`, without labels
 * @throws TspodError 'not-found' when no page has such an element, 'network' when the host can't be asked,
 *   'offline', 'reference', 'limit'
 */
export async function discover(
  context: Pick<Context, 'insecure' | 'offline'>,
  config: Pick<Config, 'auth' | 'registries'>,
  name: string,
  tag: DiscoveryTag,
  options: { readonly allowHttp: boolean; readonly timing?: Timing },
): Promise<readonly Discovered[]> {
  const components = name.split('/');
  if (!isAcIdentifier(name) || components.length > MAX_COMPONENTS) {
    const why = isAcIdentifier(name)
      ? `it has more than ${MAX_COMPONENTS} components`
      : 'it is not an appc name';
    throw new TspodError('reference', `discovery of ${JSON.stringify(name.slice(0, 200))}: ${why}`);
  }
  if (context.offline) {
    throw new TspodError('offline', `discovery of ${name}: ${components[0]} would be contacted`, {
      hint: 'do it without --offline',
    });
  }
  const insecure = new Set(context.insecure);
  if (options.allowHttp) insecure.add('http');
  else insecure.delete('http');
  const client = new WebClient({ insecure }, config, options.timing);
  let last = 'the pages have no such element';
  try {
    for (let length = components.length; length > 0; length -= 1) {
      const place = components.slice(0, length).join('/');
      const page = await readPage(client, place, options.allowHttp);
      if ('status' in page) {
        last = `status ${page.status}`;
        continue;
      }
      const found = findTags(page.html, name, tag);
      if (found.length > 0) return found;
      last = `its page has no ${tag} element for this name`;
    }
  } finally {
    client.close();
  }
  throw new TspodError('not-found', `discovery of ${name}: ${components[0]}: ${last}`, {
    hint:
      tag === 'ac-discovery'
        ? 'for an image of a registry write docker://HOST/NAME:TAG'
        : 'name the key: "trust --prefix PREFIX FILE"',
  });
}

/** A page's elements that are for `name`: its prefix has to end where a component of the name ends. */
export function findTags(html: string, name: string, tag: DiscoveryTag): readonly Discovered[] {
  const found: Discovered[] = [];
  for (const { name: its, content } of scanMetaTags(html)) {
    if (its !== tag) continue;
    const [prefix = '', template = '', ...more] = content.trim().split(/\s+/);
    if (template === '' || more.length > 0 || !isFor(prefix, name)) continue;
    found.push({ prefix, template });
    if (found.length === MAX_FOUND) break;
  }
  return found;
}

/** Otherwise `example.co` could speak for `example.com`. */
function isFor(prefix: string, name: string): boolean {
  return (
    prefix === name ||
    (prefix !== '' && name.startsWith(prefix.endsWith('/') ? prefix : `${prefix}/`))
  );
}

type Page = { readonly html: string } | { readonly status: number };

async function readPage(client: WebClient, place: string, allowHttp: boolean): Promise<Page> {
  const read = async (exchange: Exchange): Promise<Page> => {
    const { status } = exchange.response;
    if (status !== 200) return { status };
    const bytes = await collect(exchange.body(), MAX_PAGE_BYTES, `discovery page of ${place}`);
    return { html: Buffer.from(bytes).toString('utf8') };
  };
  const secure = new URL(`https://${place}?ac-discovery=1`);
  try {
    return await client.get(secure, {}, read);
  } catch (error) {
    // A certificate that is wrong is no reason to do without one.
    if (!allowHttp || !(error instanceof WithoutTls)) throw error;
    return client.get(new URL(`http://${place}?ac-discovery=1`), {}, read);
  }
}
