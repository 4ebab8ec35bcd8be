/**
 * From what the user wrote to an image in the store (docs/images.md). Order of the steps: resolve by rkt's
 * rules and pull policy; manifest; trust; config; layers; record. Nothing is fetched beyond what the next
 * decision needs, and nothing unverified reaches the store.
 */
import { closeSync, existsSync, lstatSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { type Context, warn } from '../../src/context.ts';
import { TspodError } from '../../src/errors.ts';
import { parseAppcReference } from '../../src/image/appc-reference.ts';
import type { Digest } from '../../src/image/digest.ts';
import type { Descriptor, ImageManifest, Raw } from '../../src/image/oci.ts';
import {
  CONFIG_MAX_BYTES,
  type ImageDocument,
  parseImageConfig,
  parseImageDocument,
} from '../../src/image/oci-validate.ts';
import { checkPlatform, choosePlatform, hostPlatform } from '../../src/image/platform.ts';
import {
  canonicalReference,
  type ImageReference,
  type LayoutReference,
  looksLikeId,
  parseReference,
  type RegistryReference,
} from '../../src/image/reference.ts';
import { imageDigests } from '../../src/store/digests.ts';
import { ensureLayers } from '../../src/store/ensure-layers.ts';
import { findImage } from '../../src/store/find-image.ts';
import type { ImageRecord, Lease, Store } from '../../src/store/types.ts';
import { admit, admitStored, subjectName } from '../verify/policy.ts';
import type { FoundSignature, SignatureKind, Subject } from '../verify/types.ts';
import type { AciTarget } from './aci/fetch-aci.ts';
import { checkLayerType } from './compression.ts';
import type { Timing } from './retry.ts';
import type { ImageSource } from './source.ts';

/** rkt: `new` is the default of run and prepare, `update` that of fetch. */
export type PullPolicy = 'new' | 'update' | 'never';

export interface FetchOptions {
  readonly pullPolicy: PullPolicy;
  readonly lease: Lease;
  /** `--signature`: a file or URL of the image's OpenPGP signature. */
  readonly signature?: string | undefined;
  /** For tests. */
  readonly timing?: Timing;
}

export interface FetchedImage {
  readonly image: ImageRecord;
  /** The name to show: the canonical reference, or an id. */
  readonly name: string;
}

/** An index may name indexes; nobody nests them deeper. */
const MAX_INDEX_DEPTH = 3;

/**
 * The image is whole in the store, and leased.
 * @throws TspodError by cause; then nothing new is named in the store.
 */
export async function fetchImage(
  context: Context,
  store: Store,
  text: string,
  options: FetchOptions,
): Promise<FetchedImage> {
  const target = resolveText(store, parseReference(text), text, options.pullPolicy);
  if ('image' in target) {
    const { image, name, names } = target;
    refuseSignature(options, text);
    await admitStored(context, image, text, names);
    return stored(store, options.lease, image, name);
  }
  if ('aci' in target) return fromAci(context, store, target.aci, options);
  if ('file' in target) return fromFile(context, store, target.file, text, options);
  const { remote } = target;
  const name = canonicalReference(remote);
  const known = store.byName(name);
  const asks = options.signature !== undefined && options.pullPolicy !== 'never';
  if (known !== undefined && !asks && fromStore(remote, options.pullPolicy)) {
    refuseSignature(options, text);
    await admitStored(context, known, text, [name]);
    return stored(store, options.lease, known, name);
  }
  if (options.pullPolicy === 'never') {
    throw notInStore(text);
  }
  const stop = new AbortController();
  try {
    // The unpacker starts while the registry is asked.
    if (known === undefined && remote.kind === 'registry') store.layers.expect();
    const source = await openSource(context, remote, options.timing, stop.signal);
    return await fromSource(context, store, source, options, stop);
  } finally {
    await store.layers.rest();
  }
}

async function fromSource(
  context: Context,
  store: Store,
  source: ImageSource,
  options: FetchOptions,
  stop = new AbortController(),
): Promise<FetchedImage> {
  try {
    const image = await fetchFrom(context, store, source, options, stop);
    return { image, name: storeName(source) ?? image.id };
  } finally {
    source.close();
  }
}

/** What came by standard input has no name that would lead to it again. */
function storeName({ name }: ImageSource): string | undefined {
  return /^(?:oci|docker)-archive:-(?::|$)/.test(name) ? undefined : name;
}

/** A file by its bare path, or `-`: its content says what it is. */
async function fromFile(
  context: Context,
  store: Store,
  path: string,
  text: string,
  options: FetchOptions,
): Promise<FetchedImage> {
  const { archiveKind, openArchive } = await import('./layout.ts');
  if (path === '-') return fromInput(context, store, text, options);
  if ((await archiveKind(path)) === 'aci') {
    return fromAci(context, store, { kind: 'aci-file', path }, options);
  }
  if (options.pullPolicy === 'never') {
    for (const kind of ['oci-archive', 'docker-archive'] as const) {
      const name = canonicalReference({ kind, path, tag: undefined });
      const known = store.byName(name);
      if (known === undefined) continue;
      await admitStored(context, known, text, [name]);
      return stored(store, options.lease, known, name);
    }
    throw notInStore(text);
  }
  const source = await openArchive(context.dir, path, undefined, undefined);
  return fromSource(context, store, source, options);
}

async function fromInput(
  context: Context,
  store: Store,
  text: string,
  options: FetchOptions,
): Promise<FetchedImage> {
  if (options.pullPolicy === 'never') throw notInStore(text);
  const { archiveKind, copyOfInput, openArchive } = await import('./layout.ts');
  const fd = await copyOfInput(context.dir, 'image -');
  const file = `/proc/self/fd/${fd}`;
  let kind: Awaited<ReturnType<typeof archiveKind>> | undefined;
  try {
    kind = await archiveKind(file);
    if (kind === 'aci') {
      return await fromAci(context, store, { kind: 'aci-file', path: '-', file }, options);
    }
  } finally {
    if (kind !== 'images') closeSync(fd);
  }
  const source = await openArchive(context.dir, '-', undefined, undefined, fd);
  return fromSource(context, store, source, options);
}

function notInStore(text: string): TspodError {
  return new TspodError('not-found', `image "${text}": it is not in the store`, {
    hint: 'fetch it first, or use another --pull-policy',
  });
}

/** Whether the store has something says nothing about a signature that is given now. */
function refuseSignature({ signature }: FetchOptions, text: string): void {
  if (signature === undefined) return;
  throw new TspodError('usage', `image "${text}": --signature is for what is fetched`, {
    hint: 'it is in the store; name the file, URL or reference that it comes from',
  });
}

/** Files are looked at anew each time, as in rkt: they may have changed, and it costs next to nothing. */
function fromStore(remote: RegistryReference | LayoutReference, policy: PullPolicy): boolean {
  if (policy === 'never') return true;
  // What is named by digest can't have changed.
  return remote.kind === 'registry' && (policy === 'new' || remote.digest !== undefined);
}

type Target =
  /** `names`: those that it was asked for by; all for an id. */
  | { readonly image: ImageRecord; readonly name: string; readonly names: readonly string[] }
  | { readonly remote: RegistryReference | LayoutReference }
  | { readonly aci: AciTarget }
  | { readonly file: string };

/** rkt's order: image id, then path, then name. */
function resolveText(
  store: Store,
  reference: ImageReference,
  text: string,
  policy: PullPolicy,
): Target {
  switch (reference.kind) {
    case 'registry':
    case 'oci':
    case 'oci-archive':
    case 'docker-archive':
      return { remote: reference };
    case 'path':
      return fileAt(reference.path, text);
    case 'aci-url':
      return { aci: { kind: 'aci-url', url: reference.url } };
    case 'id': {
      const image = store.byIdPrefix(reference.id);
      if (image !== undefined) return byId(image);
      throw new TspodError('not-found', `image "${text}": no image with this id is in the store`, {
        hint: '"image list" shows what is there',
      });
    }
    case 'name': {
      if (looksLikeId(text)) {
        const image = store.byIdPrefix(text);
        if (image !== undefined) return byId(image);
      }
      if (existsSync(text)) return fileAt(text, text);
      return namedImage(store, text, policy);
    }
  }
}

function byId(image: ImageRecord): Target {
  return { image, name: image.names[0] ?? image.id, names: image.names };
}

/** By a name that the store knows, or one that can be discovered (appc). */
function namedImage(store: Store, text: string, policy: PullPolicy): Target {
  const reference = parseAppcReference(text);
  try {
    const image = findImage(store, text);
    if (policy === 'update' && reference !== undefined && image.appc !== undefined) {
      return { aci: { kind: 'aci-name', reference } };
    }
    const name = image.names.find(each => each.includes(text));
    return name === undefined ? byId(image) : { image, name, names: [name] };
  } catch (error) {
    if (!(error instanceof TspodError) || error.code !== 'not-found') throw error;
    if (reference !== undefined) return { aci: { kind: 'aci-name', reference } };
    throw new TspodError('not-found', `image "${text}": neither a file nor an image in the store`, {
      hint: `to fetch it from a registry write docker://${text}`,
    });
  }
}

/** A bare path: a file, or a layout's folder. */
function fileAt(path: string, text: string): Target {
  if (path === '-') return { file: path };
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat === undefined)
    throw new TspodError('not-found', `image "${text}": no such file or folder`);
  if (stat.isFile()) return { file: path };
  if (!stat.isDirectory())
    throw new TspodError('reference', `image "${text}": not a file or folder`);
  if (lstatSync(join(path, 'oci-layout'), { throwIfNoEntry: false }) === undefined) {
    throw new TspodError('reference', `image "${text}": the folder is not an OCI image layout`, {
      hint: 'it has no file "oci-layout"',
    });
  }
  return { remote: { kind: 'oci', path, tag: undefined } };
}

async function fromAci(
  context: Context,
  store: Store,
  target: AciTarget,
  { pullPolicy, lease, timing, signature }: FetchOptions,
): Promise<FetchedImage> {
  const { fetchAci, loadConfig, openProgress } = await import('./aci.ts');
  const progress = openProgress();
  try {
    return await fetchAci(context, store, target, {
      pullPolicy,
      lease,
      progress,
      config: loadConfig(context),
      signature,
      ...(timing === undefined ? {} : { timing }),
    });
  } finally {
    progress.close();
  }
}

async function stored(
  store: Store,
  lease: Lease,
  image: ImageRecord,
  name: string,
): Promise<FetchedImage> {
  lease.add(...imageDigests(image));
  if (image.layers.some(({ diffId }) => !store.layers.has(diffId))) {
    await ensureLayers(store, image);
  }
  return { image, name };
}

async function openSource(
  context: Context,
  remote: RegistryReference | LayoutReference,
  timing: Timing | undefined,
  signal: AbortSignal,
): Promise<ImageSource> {
  if (remote.kind === 'registry') {
    if (context.offline) {
      const name = canonicalReference(remote);
      throw new TspodError('offline', `image "${name}": ${remote.registry} would be contacted`, {
        hint: 'it is not in the store; fetch it without --offline',
      });
    }
    const { loadConfig, openRegistry } = await import('./remote.ts');
    return openRegistry(context, loadConfig(context), remote, timing, signal);
  }
  const { LayoutSource, openArchive, openLayoutFolder } = await import('./layout.ts');
  if (remote.kind === 'oci')
    return new LayoutSource(remote, openLayoutFolder(resolve(remote.path)));
  return openArchive(context.dir, remote.path, remote.kind, remote.tag);
}

async function fetchFrom(
  context: Context,
  store: Store,
  source: ImageSource,
  { lease, signature }: FetchOptions,
  stop: AbortController,
): Promise<ImageRecord> {
  const documents = await findManifest(source);
  const { manifest } = documents;
  const { config: configBlob, layers } = manifest.value;
  lease.add(manifest.digest, configBlob.digest, ...layers.map(({ digest }) => digest));
  const former = store.images().find(image => image.manifestDigest === manifest.digest);
  const verdict = await admit(context, {
    subjects: await subjectsOf(source, documents, signature),
    signatures: (subject, kinds) => signaturesOf(context, source, subject, kinds, signature),
    former: former?.verdict,
    named: signature !== undefined,
  });
  if (former !== undefined && former.verdict === verdict) {
    lease.add(...former.layers.map(({ diffId }) => diffId));
    if (isWhole(store, former, storeName(source))) {
      store.touch(former);
      return former;
    }
  }
  layers.forEach(checkLayerType);
  const bytes = await source.document(configBlob, CONFIG_MAX_BYTES);
  const config = parseImageConfig(bytes, configBlob.digest);
  checkPlatform(config.value, hostPlatform(), `image "${source.name}"`);
  const wanted = pair(layers, config.value.diffIds, source.name);
  lease.add(...config.value.diffIds);
  const { fetchLayers, openProgress } = await import('./transfer.ts');
  const progress = openProgress();
  try {
    const onWait = () => warn(context, 'another process is fetching the same layer, waiting...');
    await fetchLayers({ store, lease, source, progress, onWait, stop }, wanted);
  } finally {
    progress.close();
  }
  const name = storeName(source);
  return store.addImage({ ...(name === undefined ? {} : { name }), manifest, config, verdict });
}

/** Under this name already, with all its parts: a record that is written again costs a handful of fsyncs. */
function isWhole(store: Store, image: ImageRecord, name: string | undefined): boolean {
  return (
    (name === undefined || store.byName(name)?.manifestDigest === image.manifestDigest) &&
    [image.id, image.manifestDigest].every(digest => store.blobs.has(digest)) &&
    image.layers.every(
      ({ blob, diffId }) => store.blobs.has(blob.digest) && store.layers.has(diffId),
    )
  );
}

function pair(
  layers: readonly Descriptor[],
  diffIds: readonly Digest[],
  name: string,
): { blob: Descriptor; diffId: Digest }[] {
  if (layers.length !== diffIds.length) {
    throw new TspodError(
      'protocol',
      `image "${name}": its manifest has ${layers.length} layers and its config ${diffIds.length}`,
    );
  }
  return layers.flatMap((blob, index) => {
    const diffId = diffIds[index];
    return diffId === undefined ? [] : [{ blob, diffId }];
  });
}

interface Documents {
  /** The top document and what it led through; the manifest is the last one. */
  readonly all: readonly Pick<Raw<unknown>, 'bytes' | 'digest'>[];
  readonly manifest: Raw<ImageManifest>;
}

/** Through indexes, by this machine's platform, to a manifest. */
async function findManifest(source: ImageSource): Promise<Documents> {
  const top = await source.top();
  const all: Pick<Raw<unknown>, 'bytes' | 'digest'>[] = [top];
  let found: ImageDocument = parseImageDocument(top.bytes, top.digest, top.mediaType);
  for (let depth = 0; found.kind === 'index'; depth += 1) {
    if (depth === MAX_INDEX_DEPTH) {
      throw new TspodError(
        'limit',
        `image "${source.name}": indexes nested over ${MAX_INDEX_DEPTH} deep`,
      );
    }
    const { manifests } = found.document.value;
    const chosen = choosePlatform(manifests, hostPlatform(), `image "${source.name}"`);
    const bytes = await source.manifest(chosen);
    found = parseImageDocument(bytes, chosen.digest, chosen.mediaType);
    all.push({ bytes, digest: chosen.digest });
  }
  return { all, manifest: found.document };
}

/**
 * A signature over an index vouches for the manifest that it names by digest, and the other way round; one over
 * an archive for all that is in it. An archive is looked at only where there is a signature for it.
 */
async function subjectsOf(
  source: ImageSource,
  { all }: Documents,
  signature: string | undefined,
): Promise<readonly Subject[]> {
  const name = subjectName(source.name) ?? source.name;
  const subjects = all.map(({ bytes, digest }) => ({
    name,
    reference: source.name,
    digest,
    content: () => [bytes],
  }));
  const { archive } = source;
  if (archive === undefined) return subjects;
  if (signature === undefined && !existsSync(`${archive.path}.asc`)) return subjects;
  const { archiveSubject } = await import('./signatures.ts');
  return [archiveSubject(archive, name, source.name), ...subjects];
}

async function* signaturesOf(
  context: Context,
  source: ImageSource,
  subject: Subject,
  kinds: ReadonlySet<SignatureKind>,
  named: string | undefined,
): AsyncGenerator<FoundSignature> {
  const { archive } = source;
  const file = archive?.content === subject.content ? archive : undefined;
  // What is named is the signature of the archive where there is one, else of a manifest.
  const detached = archive === undefined ? named !== undefined : file !== undefined;
  if (detached && kinds.has('openpgp')) {
    const { detachedSignatures } = await import('./signatures.ts');
    yield* detachedSignatures(context, file?.path, named);
  }
  if (file === undefined && source.signatures !== undefined) {
    yield* source.signatures(subject.digest, kinds);
  }
}
