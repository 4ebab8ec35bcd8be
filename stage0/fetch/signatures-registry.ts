/**
 * Where a registry has signatures: the referrers API (distribution-spec 1.1, "Listing Referrers"), the tag
 * `sha256-HEX` where it has no such API, tags of cosign's, and a lookaside location, as containers' tools have
 * them for OpenPGP: `LOOKASIDE/REPOSITORY@sha256=HEX/signature-N`.
 */
import type { Config } from '../../src/config/config.ts';
import type { Context } from '../../src/context.ts';
import { errnoOf, systemError, TspodError } from '../../src/errors.ts';
import { type Digest, digestAlgorithm, digestHex } from '../../src/image/digest.ts';
import { type Descriptor, MEDIA } from '../../src/image/oci.ts';
import {
  MANIFEST_MAX_BYTES,
  parseImageDocument,
  parseImageIndex,
} from '../../src/image/oci-validate.ts';
import { readWhole } from '../verify/openpgp/find-signature.ts';
import type { FoundSignature } from '../verify/types.ts';
import type { SignaturePlace } from './find-signatures.ts';
import type { Exchange } from './http.ts';
import type { Endpoint } from './registry-endpoint.ts';
import type { Timing } from './retry.ts';
import { checkContent, collect, digestOf } from './source.ts';
import { WebClient } from './web-server.ts';

const MAX_PAGES = 8;
const MAX_LOOKASIDE = 64;
const MAX_SIGNATURE = 1024 * 1024;
const MANIFEST_TYPES = `${MEDIA.ociManifest}, ${MEDIA.dockerManifest}`;

/** @param repository as this endpoint (the registry or a mirror) knows it */
export function registryPlace(
  endpoint: Endpoint,
  host: string,
  repository: string,
): SignaturePlace {
  const shown = `${host}/${repository}`;
  const manifestAt = (reference: string, accept: string) =>
    absentAsUndefined(['not-found'], () =>
      endpoint.get(`manifests/${reference}`, accept, ({ body }) =>
        collect(body(), MANIFEST_MAX_BYTES, `${shown}: manifest ${reference}`),
      ),
    );
  return {
    shown,
    async referrers(subject) {
      const listed = await listReferrers(endpoint, shown, repository, subject);
      if (listed !== undefined) return listed;
      const tag = `${digestAlgorithm(subject)}-${digestHex(subject)}`;
      const bytes = await manifestAt(tag, MEDIA.ociIndex);
      if (bytes === undefined) return [];
      const found = parseImageDocument(bytes, digestOf(bytes), undefined);
      // Some other thing that happens to have this tag.
      return found.kind === 'index' ? found.document.value.manifests : [];
    },
    async tagged(tag) {
      const bytes = await manifestAt(tag, MANIFEST_TYPES);
      return bytes === undefined ? [] : [bytes];
    },
    async manifest(descriptor) {
      const what = `${shown}: manifest ${descriptor.digest}`;
      const bytes = await manifestAt(descriptor.digest, MANIFEST_TYPES);
      if (bytes === undefined) throw new TspodError('protocol', `${what}: it is listed and absent`);
      checkContent(bytes, descriptor, what);
      return bytes;
    },
    async document(descriptor, maxBytes) {
      const what = `${shown}: signature ${descriptor.digest}`;
      if (descriptor.size > maxBytes) {
        throw new TspodError(
          'limit',
          `${what}: ${descriptor.size} bytes is over the limit of ${maxBytes}`,
        );
      }
      const bytes = await collect(endpoint.blob(descriptor, 0), descriptor.size, what);
      checkContent(bytes, descriptor, what);
      return bytes;
    },
  };
}

/** Undefined where there is no such API: older registries answer with all kinds of statuses. */
async function listReferrers(
  endpoint: Endpoint,
  shown: string,
  repository: string,
  subject: Digest,
): Promise<readonly Descriptor[] | undefined> {
  const path = `referrers/${subject}`;
  const all: Descriptor[] = [];
  let query: string | undefined = '';
  for (let page = 0; query !== undefined; page += 1) {
    if (page === MAX_PAGES) {
      throw new TspodError('limit', `${shown}: over the limit of ${MAX_PAGES} pages of referrers`);
    }
    const at: string = path + query;
    const got: Page | undefined = await absentAsUndefined(
      page === 0 ? ['not-found', 'protocol', 'denied'] : [],
      () => endpoint.get(at, MEDIA.ociIndex, readPage),
    );
    if (got === undefined) return undefined;
    all.push(...parseImageIndex(got.bytes, digestOf(got.bytes)).value.manifests);
    query = nextQuery(got, repository, path);
  }
  return all;
}

interface Page {
  readonly bytes: Uint8Array;
  readonly link: string | null;
  readonly url: URL;
}

async function readPage({ response, body, url }: Exchange): Promise<Page | undefined> {
  const type = response.headers.get('content-type')?.split(';')[0]?.trim().toLowerCase();
  if (type !== MEDIA.ociIndex) return undefined; // some page that is shown for every address
  const bytes = await collect(body(), MANIFEST_MAX_BYTES, 'list of referrers');
  return { bytes, link: response.headers.get('link'), url };
}

/** The query of the next page (RFC 8288). A link to anywhere else than the same list is an error. */
function nextQuery(
  { link, url: base }: Page,
  repository: string,
  path: string,
): string | undefined {
  const target = /^\s*<([^>]*)>\s*;\s*rel="?next"?/i.exec(link ?? '')?.[1];
  if (target === undefined || !URL.canParse(target, base.href)) return undefined;
  const url = new URL(target, base);
  const same = url.pathname.replaceAll('%3A', ':') === `/v2/${repository}/${path}`;
  if (same && url.origin === base.origin && url.search !== '') return url.search;
  throw new TspodError('protocol', `${base.host}: its list of referrers goes on somewhere else`);
}

async function absentAsUndefined<T>(
  absent: readonly string[],
  ask: () => Promise<T>,
): Promise<T | undefined> {
  try {
    return await ask();
  } catch (error) {
    if (error instanceof TspodError && absent.includes(error.code)) return undefined;
    throw error;
  }
}

/** OpenPGP signatures in a lookaside location, numbered from 1 without a gap. */
export async function* lookasideSignatures(
  context: Pick<Context, 'insecure'>,
  config: Config,
  base: URL,
  repository: string,
  subject: Digest,
  timing: Timing,
): AsyncGenerator<FoundSignature> {
  const client = new WebClient(context, config, timing);
  try {
    for (let number = 1; number <= MAX_LOOKASIDE; number += 1) {
      const url = new URL(base);
      const folder = `${repository}@${digestAlgorithm(subject)}=${digestHex(subject)}`;
      url.pathname = `${url.pathname.replace(/\/+$/, '')}/${folder}/signature-${number}`;
      const bytes = url.protocol === 'file:' ? readFile(url) : await download(client, url);
      if (bytes === undefined) return;
      yield { kind: 'openpgp', origin: url.href, bytes };
    }
  } finally {
    client.close();
  }
  throw new TspodError('limit', `${base.href}: over the limit of ${MAX_LOOKASIDE} signatures`);
}

function readFile(url: URL): Uint8Array | undefined {
  try {
    return readWhole(decodeURIComponent(url.pathname), 'never wait');
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === 'ENOENT' || errno === 'ENOTDIR') return undefined;
    throw systemError(`can't read the signature ${url.pathname}`, error);
  }
}

const ABSENT: ReadonlySet<number> = new Set([403, 404, 410]);

function download(client: WebClient, url: URL): Promise<Uint8Array | undefined> {
  return client.get(url, {}, async exchange => {
    const { status } = exchange.response;
    if (status === 200) return collect(exchange.body(), MAX_SIGNATURE, `signature ${url.href}`);
    if (ABSENT.has(status)) return undefined;
    throw new TspodError('network', `signature ${url.href}: status ${status}`);
  });
}
