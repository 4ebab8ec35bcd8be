/**
 * ACIs into the store: from a file, a URL or a discovered name to an image record, with everything that it
 * depends on (docs/images.md). The order for each image: get its file; read it through, which gives its ids
 * and its manifest; is it what was asked for; may it run; its dependencies in the same way; then, and not
 * before, its layers and its record.
 *
 * Each dependency becomes an image of its own, as in rkt. An image's layers are those of its dependencies, in
 * their order, and its own on top; a whitelist of the image cuts all of them down.
 */

import { closeSync, createReadStream } from 'node:fs';
import { resolve } from 'node:path';
import type { Config } from '../../../src/config/config.ts';
import { type Context, warn } from '../../../src/context.ts';
import { TspodError } from '../../../src/errors.ts';
import { aciLayerAnnotations, aciLayerType, aciTransform } from '../../../src/image/aci-layer.ts';
import {
  type AppcDependency,
  type AppcImageManifest,
  appcImageName,
} from '../../../src/image/appc-manifest.ts';
import {
  type AppcReference,
  aciUrlName,
  renderTemplate,
  showAppcReference,
  whyNotReferred,
} from '../../../src/image/appc-reference.ts';
import { toAppcHash } from '../../../src/image/digest.ts';
import type { AciTransform } from '../../../src/image/oci.ts';
import { MAX_LAYERS } from '../../../src/image/oci-validate.ts';
import { imageDigests } from '../../../src/store/digests.ts';
import { ensureLayers } from '../../../src/store/ensure-layers.ts';
import type { ImageRecord, Lease, Store, Verdict } from '../../../src/store/types.ts';
import type { Progress } from '../../progress.ts';
import type { SignedImage } from '../../verify/openpgp/find-signature.ts';
import { admit, admitStored, subjectNames, whyRefused } from '../../verify/policy.ts';
import { type DetachedSignatures, lookForSignature } from '../detached-signature.ts';
import { type Discovered, discover } from '../discovery.ts';
import type { FetchedImage, PullPolicy } from '../fetch.ts';
import { show } from '../http.ts';
import { fetchLayers, type WantedLayer } from '../layers.ts';
import type { Timing } from '../retry.ts';
import { WebClient } from '../web-server.ts';
import { downloadAci, type Freshness, MAX_ACI_BYTES } from './download.ts';
import { chunksOf, type InspectedAci, inspectAci, openAci } from './inspect.ts';
import { type AciLayer, ociForm } from './oci-form.ts';

/** Where the user says that an ACI is. */
export type AciTarget =
  /** `file`: where its bytes are, when not at the path that is shown. */
  | { readonly kind: 'aci-file'; readonly path: string; readonly file?: string }
  | { readonly kind: 'aci-url'; readonly url: URL }
  | { readonly kind: 'aci-name'; readonly reference: AppcReference };

export interface AciOptions {
  readonly pullPolicy: PullPolicy;
  readonly lease: Lease;
  readonly config: Config;
  readonly progress: Progress;
  /** `--signature`: a file or URL of the OpenPGP signature of the image itself, not of its dependencies. */
  readonly signature?: string | undefined;
  readonly timing?: Timing;
}

/** Images below one another, and all images of one fetch. */
const MAX_DEPTH = 20;
const MAX_IMAGES = 200;

/** The image is whole in the store, and leased. @throws TspodError by cause */
export async function fetchAci(
  context: Context,
  store: Store,
  target: AciTarget,
  options: AciOptions,
): Promise<FetchedImage> {
  const client = new WebClient(context, options.config, options.timing);
  try {
    const image = await new AciFetch(context, store, client, options).fetch(target, []);
    return { image, name: await shownName(store, image) };
  } finally {
    client.close();
  }
}

async function shownName(store: Store, image: ImageRecord): Promise<string> {
  const manifest = store.appcManifest(image);
  return manifest === undefined ? image.id : appcImageName(manifest.value);
}

/** What a file has to be. */
interface Asked {
  /** For messages: `image "./x.aci"`. */
  readonly what: string;
  readonly reference?: AppcReference;
  readonly dependency?: AppcDependency;
  /** Names besides the manifest's own. */
  readonly names: readonly string[];
  /** The names of the images that it is a dependency of. */
  readonly path: readonly string[];
}

class AciFetch {
  readonly #context: Context;
  readonly #store: Store;
  readonly #client: WebClient;
  readonly #options: AciOptions;
  #images = 0;

  constructor(context: Context, store: Store, client: WebClient, options: AciOptions) {
    this.#context = context;
    this.#store = store;
    this.#client = client;
    this.#options = options;
  }

  async fetch(
    target: AciTarget,
    path: readonly string[],
    dependency?: AppcDependency,
  ): Promise<ImageRecord> {
    this.#images += 1;
    if (this.#images > MAX_IMAGES) {
      throw new TspodError('limit', `image "${path[0]}": more than ${MAX_IMAGES} dependencies`);
    }
    const more = dependency === undefined ? {} : { dependency };
    switch (target.kind) {
      case 'aci-file': {
        const what = `image "${target.path}"`;
        const file = target.file ?? resolve(target.path);
        const asked = { what, names: [], path, ...more };
        return this.#import(file, asked, await this.#look({ path: file }, asked));
      }
      case 'aci-url':
        return this.#fromUrl(target.url, false, {
          what: `image "${show(target.url)}"`,
          path,
          ...more,
        });
      case 'aci-name':
        return this.#byName(target.reference, path, dependency);
    }
  }

  async #byName(
    reference: AppcReference,
    path: readonly string[],
    dependency: AppcDependency | undefined,
  ): Promise<ImageRecord> {
    const shown = showAppcReference(reference);
    const what = `image "${shown}"`;
    const known = this.#known(reference, dependency);
    const { pullPolicy } = this.#options;
    if (known !== undefined && pullPolicy !== 'update') return this.#use(known);
    if (pullPolicy === 'never') throw notInStore(what);
    if (this.#context.offline) {
      if (known !== undefined) return this.#use(known);
      throw new TspodError('offline', `${what}: ${reference.name} would be discovered`, {
        hint: 'it is not in the store; fetch it without --offline',
      });
    }
    const found = await this.#discover(reference, what);
    const asked = {
      what,
      reference,
      path,
      ...(dependency === undefined ? {} : { dependency }),
    };
    let last: unknown = new TspodError(
      'protocol',
      `${what}: no template of ${reference.name} gives a URL that can be fetched`,
    );
    for (const { template } of found) {
      const url = this.#renderUrl(template, reference);
      if (url === undefined) continue;
      try {
        return await this.#fromUrl(url, true, asked);
      } catch (error) {
        // Another place may have it; what is wrong with what this one has is to be known.
        if (!(error instanceof TspodError) || !ELSEWHERE.has(error.code)) throw error;
        last = error;
      }
    }
    throw last;
  }

  async #discover(reference: AppcReference, what: string): Promise<readonly Discovered[]> {
    const { config, timing } = this.#options;
    const allowHttp = this.#context.insecure.has('http');
    try {
      return await discover(this.#context, config, reference.name, 'ac-discovery', {
        allowHttp,
        ...(timing === undefined ? {} : { timing }),
      });
    } catch (error) {
      if (!(error instanceof TspodError)) throw error;
      const message = error.message.replace(`discovery of ${reference.name}: `, '');
      throw new TspodError(error.code, `${what}: it can't be discovered: ${message}`, {
        hint: `for an image of a registry write docker://${showAppcReference(reference)}`,
        cause: error,
      });
    }
  }

  #renderUrl(template: string, reference: AppcReference): URL | undefined {
    const text = renderTemplate(template, reference);
    if (text === undefined || !URL.canParse(text)) return undefined;
    const url = new URL(text);
    const usable =
      url.protocol === 'https:' || (url.protocol === 'http:' && this.#context.insecure.has('http'));
    return usable && url.username === '' && url.password === '' ? url : undefined;
  }

  /** In the store by this name, with these labels. */
  #known(
    reference: AppcReference,
    dependency: AppcDependency | undefined,
  ): ImageRecord | undefined {
    if (dependency?.imageID) {
      const image = this.#store.byIdPrefix(dependency.imageID.replace('-', ':'));
      return image !== undefined && this.#fits(image, reference) ? image : undefined;
    }
    const version = reference.labels.find(({ name }) => name === 'version');
    const name = version === undefined ? reference.name : `${reference.name}:${version.value}`;
    const image = this.#store.byName(name);
    return image !== undefined && this.#fits(image, reference) ? image : undefined;
  }

  #fits(image: ImageRecord, reference: AppcReference): boolean {
    const manifest = this.#store.appcManifest(image);
    return manifest !== undefined && whyNotReferred(reference, manifest.value) === undefined;
  }

  async #fromUrl(url: URL, told: boolean, asked: Omit<Asked, 'names'>): Promise<ImageRecord> {
    const { pullPolicy, progress } = this.#options;
    const stored = this.#formerOf(url, asked);
    // What the present rules refuse is looked at anew, signature and all, when that is what was asked for.
    const anew = pullPolicy === 'update' && stored !== undefined && (await this.#refuses(stored));
    const known = anew ? undefined : stored;
    // A discovered URL is looked for by name before.
    if (!told && known !== undefined && pullPolicy !== 'update') return this.#use(known);
    if (pullPolicy === 'never') throw notInStore(asked.what);
    const download = known === undefined ? undefined : this.#store.download(aciUrlName(url));
    if (known !== undefined && download !== undefined && download.freshUntil > Date.now()) {
      if (this.#context.debug) {
        warn(this.#context, `image for ${url.host}${url.pathname} isn't expired, not fetching.`);
      }
      return this.#use(known);
    }
    if (this.#context.offline) {
      if (known !== undefined) return this.#use(known);
      throw new TspodError('offline', `${asked.what}: ${url.host} would be contacted`, {
        hint: 'it is not in the store; fetch it without --offline',
      });
    }
    const size = asked.dependency?.size;
    const signatures = await this.#look({ url, told }, asked);
    const found = await downloadAci(
      {
        dir: this.#store.dir,
        client: this.#client,
        progress,
        onWait: () => warn(this.#context, 'another process is downloading this file, waiting...'),
      },
      {
        url,
        told,
        etag: download?.etag,
        maxBytes: size ?? MAX_ACI_BYTES,
        boundName: size === undefined ? 'the limit' : 'the size that its dependent image gives',
      },
    );
    if (found.state === 'same') {
      if (known === undefined) throw new Error('there was no ETag to ask with');
      this.#remember(url, found);
      return this.#use(known);
    }
    try {
      const image = await this.#import(
        found.path,
        { ...asked, names: [aciUrlName(url)] },
        signatures,
      );
      this.#remember(url, found);
      return image;
    } finally {
      found.close();
    }
  }

  /** What this URL has led to, where it is what is asked for: a template may lead several names to one place. */
  #formerOf(url: URL, { reference, dependency }: Omit<Asked, 'names'>): ImageRecord | undefined {
    const image = this.#store.byName(aciUrlName(url));
    if (image === undefined || (reference !== undefined && !this.#fits(image, reference))) {
      return undefined;
    }
    return dependency === undefined || hasId(image, dependency) ? image : undefined;
  }

  #remember(url: URL, { etag, maxAge }: Freshness): void {
    this.#store.setDownload(aciUrlName(url), { etag, freshUntil: Date.now() + maxAge });
  }

  async #refuses({ verdict, names }: ImageRecord): Promise<boolean> {
    return (await whyRefused(this.#context, verdict, subjectNames({ names }))) !== undefined;
  }

  /** An image that is there, and that the rules of today admit under the name of its manifest. */
  async #use(image: ImageRecord): Promise<ImageRecord> {
    const manifest = this.#store.appcManifest(image)?.value;
    const name = manifest === undefined ? image.id : appcImageName(manifest);
    await admitStored(this.#context, image, name, [name]);
    this.#options.lease.add(...imageDigests(image));
    await ensureLayers(this.#store, image);
    return image;
  }

  #look(
    image: SignedImage,
    { path, dependency }: Pick<Asked, 'path' | 'dependency'>,
  ): Promise<DetachedSignatures> {
    const { signature, timing } = this.#options;
    const named = path.length === 0 && dependency === undefined ? signature : undefined;
    return lookForSignature(this.#context, image, named, timing);
  }

  async #import(file: string, asked: Asked, signatures: DetachedSignatures): Promise<ImageRecord> {
    const { lease } = this.#options;
    const aci = await inspectAci(this.#store, file, asked.what);
    const { value } = aci.manifest;
    checkAsked(aci, asked);
    lease.add(aci.id, aci.blob.digest, aci.manifest.digest, aci.diffId);
    const verdict = await this.#admit(file, aci, asked, signatures);
    const below = await this.#dependencies(value, [...asked.path, value.name], asked.what);
    const layers = await this.#layers(file, aci, below, asked.what);
    lease.add(...layers.flatMap(({ blob, diffId }) => [blob.digest, diffId]));
    const { config, manifest } = ociForm(aci, layers);
    lease.add(config.digest, manifest.digest);
    this.#store.blobs.put(aci.manifest.bytes, aci.manifest.digest);
    await this.#unpack(file, aci, layers);
    const add = (name: string) =>
      this.#store.addImage({
        name,
        manifest,
        config,
        verdict,
        appc: { id: aci.id, manifest: aci.manifest.digest },
      });
    for (const name of asked.names) add(name);
    // Without a version it means the last one that came, as with rkt.
    add(value.name);
    const image = add(appcImageName(value));
    // The same ACI over former dependencies: its names are gone, and its id means this one.
    for (const { id, appc } of this.#store.images()) {
      if (appc?.id === aci.id && id !== image.id) this.#store.removeImage(id);
    }
    return image;
  }

  #admit(
    file: string,
    aci: InspectedAci,
    asked: Asked,
    signatures: DetachedSignatures,
  ): Promise<Verdict> {
    const { name } = aci.manifest.value;
    const subject = {
      name,
      reference: asked.what.replace(/^image "(.*)"$/, '$1'),
      digest: aci.blob.digest,
      content: () => createReadStream(file),
    };
    return admit(this.#context, {
      subjects: [subject],
      signatures: (_subject, kinds) => signatures(kinds),
      former: this.#store.byIdPrefix(aci.id)?.verdict,
      named: asked.path.length === 0 && this.#options.signature !== undefined,
    });
  }

  /** The images of the manifest's dependencies, lowest first. */
  async #dependencies(
    { dependencies }: AppcImageManifest,
    path: readonly string[],
    what: string,
  ): Promise<readonly ImageRecord[]> {
    const images: ImageRecord[] = [];
    for (const dependency of dependencies) {
      const { imageName, labels } = dependency;
      if (path.includes(imageName)) {
        const cycle = [...path.slice(path.indexOf(imageName)), imageName].join(' -> ');
        throw new TspodError(
          'protocol',
          `${what}: its dependencies go round in a circle: ${cycle}`,
        );
      }
      if (path.length >= MAX_DEPTH) {
        throw new TspodError('limit', `${what}: dependencies more than ${MAX_DEPTH} deep`);
      }
      const reference = { name: imageName, labels };
      const image = await this.fetch({ kind: 'aci-name', reference }, path, dependency);
      checkDependency(dependency, image, what);
      images.push(image);
    }
    return images;
  }

  /** All layers, lowest first, each once: of one that comes twice only the upper one can be seen. */
  async #layers(
    file: string,
    aci: InspectedAci,
    below: readonly ImageRecord[],
    what: string,
  ): Promise<readonly AciLayer[]> {
    const own = aci.manifest.value.pathWhitelist;
    const layers: AciLayer[] = [];
    for (const image of below) {
      const described = this.#store.manifest(image).value.layers;
      for (const [index, { diffId }] of image.layers.entries()) {
        const blob = described[index];
        const transform = blob && aciTransform(blob);
        if (blob === undefined || transform === undefined) {
          throw new TspodError(
            'protocol',
            `${what}: its dependency ${image.names[0] ?? image.id} is no ACI`,
          );
        }
        if (own.length === 0) {
          layers.push({ blob, diffId });
          continue;
        }
        const cut: AciTransform = { ...transform, above: [...transform.above, own] };
        const path = this.#store.blobs.path(blob.digest);
        const found = await inspectAci(this.#store, path, what, cut);
        const { mediaType, digest, size } = blob;
        layers.push({
          blob: { mediaType, digest, size, annotations: aciLayerAnnotations(cut) },
          diffId: found.diffId,
        });
      }
    }
    const transform: AciTransform = { kind: 'aci', own, above: [] };
    const diffId =
      own.length === 0 ? aci.diffId : (await inspectAci(this.#store, file, what, transform)).diffId;
    const annotations = aciLayerAnnotations(transform);
    layers.push({
      blob: {
        mediaType: aciLayerType(aci.compression),
        ...aci.blob,
        ...(Object.keys(annotations).length === 0 ? {} : { annotations }),
      },
      diffId,
    });
    const once = layers.filter(
      (layer, index) => !layers.slice(index + 1).some(later => later.diffId === layer.diffId),
    );
    if (once.length <= MAX_LAYERS) return once;
    throw new TspodError(
      'limit',
      `${what}: ${once.length} layers is over the limit of ${MAX_LAYERS}`,
    );
  }

  async #unpack(file: string, aci: InspectedAci, layers: readonly AciLayer[]): Promise<void> {
    const wanted: WantedLayer[] = layers.map(({ blob, diffId }) => {
      const transform = aciTransform(blob);
      return { blob, diffId, ...(transform === undefined ? {} : { transform }) };
    });
    const source = {
      async *blob({ digest }: { readonly digest: string }, offset: number) {
        if (digest !== aci.blob.digest) throw new Error('dependencies have their blobs');
        const fd = openAci(file, 'image');
        try {
          yield* chunksOf(fd, offset);
        } finally {
          closeSync(fd);
        }
      },
    };
    const onWait = () =>
      warn(this.#context, 'another process is fetching the same layer, waiting...');
    const stop = new AbortController();
    const { lease, progress } = this.#options;
    await fetchLayers({ store: this.#store, lease, source, progress, onWait, stop }, wanted);
  }
}

/** What another place may have where one fails. */
const ELSEWHERE: ReadonlySet<string> = new Set(['network', 'not-found', 'denied']);

function notInStore(what: string): TspodError {
  return new TspodError('not-found', `${what}: it is not in the store`, {
    hint: 'fetch it first, or use another --pull-policy',
  });
}

function checkAsked(aci: InspectedAci, { what, reference, dependency }: Asked): void {
  const why = reference && whyNotReferred(reference, aci.manifest.value);
  if (why !== undefined) {
    throw new TspodError('protocol', `${what}: what was found is another image: ${why}`);
  }
  const size = dependency?.size;
  if (size !== undefined && size !== aci.blob.size) {
    throw new TspodError(
      'digest',
      `${what}: it has ${aci.blob.size} bytes, and the image that depends on it says ${size}`,
    );
  }
}

/** @throws TspodError 'digest' for an image that is not the one that the dependency names by id */
function checkDependency(dependency: AppcDependency, image: ImageRecord, what: string): void {
  if (hasId(image, dependency)) return;
  const actual = toAppcHash(image.appc?.id ?? image.id).slice(0, 71);
  throw new TspodError(
    'digest',
    `${what}: its dependency ${image.names[0] ?? ''} has the id ${actual}, not ${dependency.imageID?.slice(0, 71)}`,
  );
}

function hasId({ id, appc }: ImageRecord, { imageID }: AppcDependency): boolean {
  return imageID === undefined || imageID === '' || toAppcHash(appc?.id ?? id).startsWith(imageID);
}
