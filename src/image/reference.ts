/**
 * What a user writes for an image, parsed by grammar before any of it becomes a path or a URL.
 *
 * Registry names follow the OCI distribution specification ("Pulling manifests") in the narrower form of
 * Docker's reference grammar, and are completed as Docker does: `docker.io`, `library/`, `latest`. `oci:` and
 * `oci-archive:` are spelled as skopeo spells them.
 */
import { resolve } from 'node:path';
import { TspodError } from '../errors.ts';
import { type Digest, digestHex, fromAppcHash, isDigest } from './digest.ts';

export type ImageReference =
  | RegistryReference
  | LayoutReference
  | { readonly kind: 'path'; readonly path: string }
  /** http or https, and it ends in .aci */
  | { readonly kind: 'aci-url'; readonly url: URL }
  /** A digest or a prefix of one, as `Store.byIdPrefix` takes it. */
  | { readonly kind: 'id'; readonly id: string }
  /** Anything else: an existing path, a bare hex id, or a name that the store may know. */
  | { readonly kind: 'name'; readonly name: string };

export interface RegistryReference {
  readonly kind: 'registry';
  /** HOST[:PORT], lower case; `docker.io` for Docker Hub */
  readonly registry: string;
  readonly repository: string;
  /** Undefined only where there is a digest. */
  readonly tag: string | undefined;
  readonly digest: Digest | undefined;
}

export interface LayoutReference {
  readonly kind: 'oci' | 'oci-archive' | 'docker-archive';
  /** as given; `-` of an archive is standard input */
  readonly path: string;
  /** `org.opencontainers.image.ref.name`; of a docker-archive HOST/NAME:TAG, or `@` and a number from 0 */
  readonly tag: string | undefined;
}

export const DOCKER_HUB = 'docker.io';
const MAX_TEXT = 4096;
const MAX_NAME = 255;

const HOST =
  /^(?:\[[0-9a-fA-F:]{2,45}\]|(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*)(?::([0-9]{1,5}))?$/;
const COMPONENT = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const TAG = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;
/** annotations.md, `org.opencontainers.image.ref.name`, without the slash. */
const REF_NAME = /^[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*$/;

/** @throws TspodError 'reference' that says what is wrong with it. */
export function parseReference(text: string): ImageReference {
  if (text === '') throw bad(text, 'it is empty');
  if (text === '-') return { kind: 'path', path: text };
  if (text.length > MAX_TEXT) throw bad(text, `longer than ${MAX_TEXT} characters`);
  if (/\p{Cc}/u.test(text)) throw bad(text, 'it has a control character');
  if (/^sha(?:256|512)[:-]/.test(text)) return parseId(text);
  if (/^(?:\/|\.\.?(?:\/|$))/.test(text)) return { kind: 'path', path: text };
  const scheme = /^([a-z][a-z0-9+.-]*):(.*)$/s.exec(text);
  switch (scheme?.[1]) {
    case 'docker':
      return parseRegistryReference((scheme[2] ?? '').replace(/^\/\//, ''), text);
    case 'oci':
    case 'oci-archive':
      return parseLayoutReference(scheme[1], scheme[2] ?? '', text);
    case 'docker-archive':
      return parseDockerArchive(scheme[2] ?? '', text);
    default:
  }
  if (scheme !== null && text.includes('://')) return parseUrl(text);
  if (text.endsWith('.aci')) return { kind: 'path', path: text };
  refuseLater(text, scheme?.[1]);
  return { kind: 'name', name: text };
}

/** The text by which the store knows an image, and which leads to it again. */
export function canonicalReference(reference: RegistryReference | LayoutReference): string {
  if (reference.kind !== 'registry') {
    const tag = reference.tag === undefined ? '' : `:${reference.tag}`;
    const isStdin = reference.kind !== 'oci' && reference.path === '-';
    return `${reference.kind}:${isStdin ? '-' : resolve(reference.path)}${tag}`;
  }
  const { registry, repository, tag, digest } = reference;
  const suffix = `${tag === undefined ? '' : `:${tag}`}${digest === undefined ? '' : `@${digest}`}`;
  return `docker://${registry}/${repository}${suffix}`;
}

/** What stands after `docker://`. */
export function parseRegistryReference(name: string, text = name): RegistryReference {
  let rest = name;
  let digest: Digest | undefined;
  const at = rest.indexOf('@');
  if (at >= 0) {
    const spelled = rest.slice(at + 1);
    if (!isDigest(spelled)) throw bad(text, 'what follows the @ is not a sha256 or sha512 digest');
    digest = spelled;
    rest = rest.slice(0, at);
  }
  let tag: string | undefined;
  const colon = rest.lastIndexOf(':');
  // The last colon is a tag's unless a slash follows: then it is a port's.
  if (colon > rest.lastIndexOf('/')) {
    tag = rest.slice(colon + 1);
    if (!TAG.test(tag)) throw bad(text, `the tag ${JSON.stringify(tag)} breaks the grammar`);
    rest = rest.slice(0, colon);
  }
  const { registry, path } = splitRegistry(rest);
  const host = HOST.exec(registry);
  const port = Number(host?.[1] ?? 1);
  // What is not a host to the URL standard (1.2.3.4.5) could not be asked.
  const usable = port > 0 && port <= 65535 && URL.canParse(`https://${registry}/`);
  if (host === null || !usable) {
    throw bad(text, `${JSON.stringify(registry)} is not HOST[:PORT]`);
  }
  const hub = registry === DOCKER_HUB;
  const repository = hub && !path.includes('/') ? `library/${path}` : path;
  if (!repository.split('/').every(component => COMPONENT.test(component))) {
    const why = /[A-Z]/.test(repository) ? 'has to be lower case' : 'breaks the grammar';
    throw bad(text, `the repository name ${JSON.stringify(path)} ${why}`);
  }
  if (registry.length + 1 + repository.length > MAX_NAME) {
    throw bad(text, `the name is longer than ${MAX_NAME} characters`);
  }
  if (/^[0-9a-f]{64}$/.test(path)) throw bad(text, 'a name of 64 hex digits looks like an id');
  return {
    kind: 'registry',
    registry,
    repository,
    tag: tag ?? (digest === undefined ? 'latest' : undefined),
    digest,
  };
}

/** The first component is a host when it has a dot or a colon, or is `localhost`. */
function splitRegistry(name: string): { registry: string; path: string } {
  const slash = name.indexOf('/');
  const first = name.slice(0, Math.max(slash, 0));
  if (slash < 0 || !(/[.:]/.test(first) || first === 'localhost')) {
    return { registry: DOCKER_HUB, path: name };
  }
  const registry = first.toLowerCase();
  const isHub = registry === 'index.docker.io' || registry === 'registry-1.docker.io';
  return { registry: isHub ? DOCKER_HUB : registry, path: name.slice(slash + 1) };
}

function parseLayoutReference(
  kind: LayoutReference['kind'],
  rest: string,
  text: string,
): LayoutReference {
  // A colon with no slash behind it starts the tag, so `oci:/a:b/c` is a path.
  const match = /^(.*?)(?::([^/]*))?$/s.exec(rest);
  const path = match?.[1] ?? '';
  const tag = match?.[2];
  if (path === '') throw bad(text, `${kind}: needs a path`);
  if (tag !== undefined && !REF_NAME.test(tag)) {
    throw bad(text, `the tag ${JSON.stringify(tag)} breaks the grammar`);
  }
  return { kind, path, tag };
}

/** As skopeo: the first colon ends the path. */
function parseDockerArchive(rest: string, text: string): LayoutReference {
  const colon = rest.indexOf(':');
  const path = colon < 0 ? rest : rest.slice(0, colon);
  if (path === '') throw bad(text, 'docker-archive: needs a path');
  const tag = colon < 0 ? undefined : dockerArchiveRef(rest.slice(colon + 1), text);
  return { kind: 'docker-archive', path, tag };
}

/**
 * Completes what chooses an image of a docker-archive: NAME[:TAG] as Docker does, `@INDEX` as it is.
 * @throws TspodError 'reference'
 */
export function dockerArchiveRef(ref: string, text: string): string {
  if (/^@[0-9]{1,4}$/.test(ref)) return `@${Number(ref.slice(1))}`;
  const { registry, repository, tag, digest } = parseRegistryReference(ref, text);
  if (tag === undefined || digest !== undefined) {
    throw bad(text, 'an image of a docker-archive is chosen by NAME:TAG or @NUMBER');
  }
  return `${registry}/${repository}:${tag}`;
}

function parseId(text: string): ImageReference {
  const whole = fromAppcHash(text);
  if (whole !== undefined) return { kind: 'id', id: whole };
  const [, algorithm, hex = ''] = /^(sha256|sha512)[:-]([0-9a-f]{2,128})$/.exec(text) ?? [];
  if (algorithm === undefined || hex.length > (algorithm === 'sha256' ? 64 : 128)) {
    throw bad(text, 'it is not an id: 2 or more lower-case hex digits have to follow');
  }
  return { kind: 'id', id: `${algorithm}:${hex}` };
}

/** `file:`, `http:` and `https:`, each of an ACI, as rkt takes them. */
function parseUrl(text: string): ImageReference {
  if (!URL.canParse(text)) throw bad(text, 'it is not a URL');
  const url = new URL(text);
  if (url.protocol === 'file:') {
    if (url.host !== '') throw bad(text, 'a file: URL has three slashes');
    return { kind: 'path', path: decodedPath(url, text) };
  }
  if (url.protocol !== 'https:' && url.protocol !== 'http:') {
    throw new TspodError(
      'unsupported',
      `image ${quote(text)}: ${url.protocol} URLs can't be fetched`,
      {
        hint: 'use https://HOST/PATH.aci, docker://HOST/NAME:TAG or a file',
      },
    );
  }
  // They would be kept with the image, and shown.
  if (url.username !== '' || url.password !== '') {
    throw bad('', 'credentials do not belong into a URL: they are configured in auth.d');
  }
  if (!url.pathname.endsWith('.aci')) throw bad(text, 'a URL has to end in .aci');
  url.hash = '';
  return { kind: 'aci-url', url };
}

function decodedPath(url: URL, text: string): string {
  try {
    const path = decodeURIComponent(url.pathname);
    if (!path.includes('\0')) return path;
  } catch {
    // told below
  }
  throw bad(text, 'its path is not well encoded');
}

/** Sources of rkt that this version does not have, each by its name. */
function refuseLater(text: string, scheme: string | undefined): void {
  const unsupported = (what: string) =>
    new TspodError('unsupported', `image ${quote(text)}: ${what} can't be fetched`, {
      hint: 'use docker://HOST/NAME:TAG, oci:FOLDER, oci-archive:FILE, docker-archive:FILE or an ACI',
    });
  if (scheme === 'cimd') throw unsupported('cimd: URLs');
  if (scheme === 'containers-storage' || scheme === 'dir') {
    throw unsupported(`${scheme}: images`);
  }
}

function bad(text: string, why: string): TspodError {
  return new TspodError('reference', `image ${quote(text)}: ${why}`);
}

function quote(text: string): string {
  return JSON.stringify(text.length > 200 ? `${text.slice(0, 200)}…` : text);
}

/** Whether bare text can be (the beginning of) an id. */
export function looksLikeId(text: string): boolean {
  return /^[0-9a-f]{2,128}$/.test(text);
}

/** First digits of a digest, for progress lines. */
export function shortDigest(digest: Digest): string {
  return digestHex(digest).slice(0, 12);
}
