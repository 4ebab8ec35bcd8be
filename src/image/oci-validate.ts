/**
 * From bytes to the types of oci.ts, with bounds. Specification: OCI image-spec 1.1 (manifest.md,
 * image-index.md, config.md, descriptor.md) and Docker's "Image Manifest Version 2, Schema 2".
 *
 * A document's kind must not depend on who reads it (CVE-2021-41190): the mediaType that it was served or
 * described with, its own mediaType field and its shape have to agree, and one with both `manifests` and
 * `layers` is refused.
 */
import { TspodError } from '../errors.ts';
import { type Digest, parseDigest } from './digest.ts';
import { type JsonObject, JsonReader, parseBoundedJson } from './json.ts';
import {
  type ContainerConfig,
  type Descriptor,
  type Healthcheck,
  type ImageConfig,
  type ImageIndex,
  type ImageManifest,
  MEDIA,
  type Platform,
  type Raw,
} from './oci.ts';

export const MANIFEST_MAX_BYTES = 4 * 1024 * 1024;
export const CONFIG_MAX_BYTES = 4 * 1024 * 1024;
/** Overlayfs takes 500 lower layers; Docker makes at most 127. */
export const MAX_LAYERS = 500;
const MAX_INDEX_ENTRIES = 1000;
const MAX_MAP_KEYS = 10_000;
const MAX_STRINGS = 10_000;

/** A manifest or an index: what a registry serves below /manifests/, and what an index points to. */
export type ImageDocument =
  | { readonly kind: 'manifest'; readonly document: Raw<ImageManifest> }
  | { readonly kind: 'index'; readonly document: Raw<ImageIndex> };

/**
 * Parses what is either. `bytes` are known to have `digest`.
 * @param mediaType what it was served or described as; undefined where nobody said
 * @throws TspodError 'protocol' with the JSON path, or 'limit'.
 */
export function parseImageDocument(
  bytes: Uint8Array,
  digest: Digest,
  mediaType: string | undefined,
): ImageDocument {
  const reader = new JsonReader({ what: `manifest ${digest}`, code: 'protocol' });
  const object = reader.object(parseBoundedJson(bytes, MANIFEST_MAX_BYTES, reader.kind), '');
  if (object.schemaVersion === 1 || isSchema1(mediaType)) {
    throw new TspodError('unsupported', `manifest ${digest}: it is a Docker schema 1 manifest`, {
      hint: 'push the image again with a current tool, which writes schema 2 or OCI',
    });
  }
  if (object.schemaVersion !== 2) reader.fail('schemaVersion', 'is not 2');
  const kind = documentKind(reader, object, mediaType);
  const own = reader.optionalString(object.mediaType, 'mediaType');
  if (kind === 'index') {
    const type = own ?? mediaType ?? MEDIA.ociIndex;
    return { kind, document: { bytes, digest, value: readIndex(reader, object, type) } };
  }
  const type = own ?? mediaType ?? MEDIA.ociManifest;
  return { kind, document: { bytes, digest, value: readManifest(reader, object, type) } };
}

/** As parseImageDocument, for what must be a manifest. */
export function parseImageManifest(
  bytes: Uint8Array,
  digest: Digest,
  mediaType?: string,
): Raw<ImageManifest> {
  const parsed = parseImageDocument(bytes, digest, mediaType);
  if (parsed.kind === 'manifest') return parsed.document;
  throw new TspodError('protocol', `manifest ${digest}: it is an index, not a manifest`);
}

/** As parseImageDocument, for the `index.json` of a layout, which may lack a mediaType. */
export function parseImageIndex(bytes: Uint8Array, digest: Digest): Raw<ImageIndex> {
  const parsed = parseImageDocument(bytes, digest, undefined);
  if (parsed.kind === 'index') return parsed.document;
  throw new TspodError('protocol', `index ${digest}: it is a manifest, not an index`);
}

/**
 * config.md. `bytes` are known to have `digest`.
 * @throws TspodError 'protocol' with the JSON path, or 'limit'.
 */
export function parseImageConfig(bytes: Uint8Array, digest: Digest): Raw<ImageConfig> {
  const reader = new JsonReader({ what: `image config ${digest}`, code: 'protocol' });
  const object = reader.object(parseBoundedJson(bytes, CONFIG_MAX_BYTES, reader.kind), '');
  const rootfs = reader.object(object.rootfs, 'rootfs');
  if (rootfs.type !== 'layers') reader.fail('rootfs.type', 'is not "layers"');
  const diffIds =
    rootfs.diff_ids === null || rootfs.diff_ids === undefined
      ? []
      : reader.array(rootfs.diff_ids, 'rootfs.diff_ids', MAX_LAYERS);
  const variant = reader.optionalString(object.variant, 'variant');
  const created = reader.optionalString(object.created, 'created');
  const author = reader.optionalString(object.author, 'author');
  const value: ImageConfig = {
    os: reader.nonEmptyString(object.os, 'os'),
    architecture: reader.nonEmptyString(object.architecture, 'architecture'),
    ...(variant === undefined || variant === '' ? {} : { variant }),
    ...(created === undefined ? {} : { created }),
    ...(author === undefined ? {} : { author }),
    config: readContainerConfig(reader, reader.optionalObject(object.config, 'config') ?? {}),
    diffIds: diffIds.map((item, index) =>
      parseDigest(item, `${reader.kind.what}: rootfs.diff_ids[${index}]`),
    ),
  };
  return { bytes, digest, value };
}

function isSchema1(mediaType: string | undefined): boolean {
  return mediaType?.startsWith('application/vnd.docker.distribution.manifest.v1+') ?? false;
}

const KIND_OF_TYPE = new Map<string, ImageDocument['kind']>([
  [MEDIA.ociIndex, 'index'],
  [MEDIA.dockerIndex, 'index'],
  [MEDIA.ociManifest, 'manifest'],
  [MEDIA.dockerManifest, 'manifest'],
]);

function documentKind(
  reader: JsonReader,
  object: JsonObject,
  told: string | undefined,
): ImageDocument['kind'] {
  const isIndex = 'manifests' in object;
  const isManifest = 'layers' in object || 'config' in object;
  if (isIndex && isManifest) reader.fail('', 'is both an index and a manifest');
  if (!isIndex && !isManifest) reader.fail('', 'is neither an index nor a manifest');
  const shape = isIndex ? 'index' : 'manifest';
  const own = reader.optionalString(object.mediaType, 'mediaType');
  if (own !== undefined) {
    const kind = KIND_OF_TYPE.get(own);
    if (kind === undefined) reader.fail('mediaType', `${quote(own)} is not that of an image`);
    if (kind !== shape) reader.fail('mediaType', `${quote(own)} does not fit its content`);
  }
  if (told !== undefined) {
    if (KIND_OF_TYPE.get(told) !== shape) {
      reader.fail('', `was served as ${quote(told)} and is an image ${shape}`);
    }
    if (own !== undefined && own !== told) {
      reader.fail(
        'mediaType',
        `${quote(own)} is not the type ${quote(told)} that it was served as`,
      );
    }
  }
  return shape;
}

function readManifest(reader: JsonReader, object: JsonObject, mediaType: string): ImageManifest {
  const config = readDescriptor(reader, object.config, 'config');
  if (config.mediaType !== MEDIA.ociConfig && config.mediaType !== MEDIA.dockerConfig) {
    throw new TspodError(
      'unsupported',
      `${reader.kind.what}: it is an artifact of type ${quote(config.mediaType)}, not an image`,
    );
  }
  const layers = reader
    .array(object.layers, 'layers', MAX_LAYERS)
    .map((item, index) => readDescriptor(reader, item, `layers[${index}]`));
  checkSizesAgree(reader, [config, ...layers]);
  return {
    mediaType,
    config,
    layers,
    annotations: reader.stringMap(object.annotations, 'annotations', MAX_MAP_KEYS),
  };
}

/** The same blob named twice must be the same: a size is what bounds its download. */
function checkSizesAgree(reader: JsonReader, descriptors: readonly Descriptor[]): void {
  const seen = new Map<Digest, Descriptor>();
  for (const descriptor of descriptors) {
    const former = seen.get(descriptor.digest);
    if (former !== undefined && former.size !== descriptor.size) {
      reader.fail('', `gives ${descriptor.digest} two sizes`);
    }
    seen.set(descriptor.digest, descriptor);
  }
}

function readIndex(reader: JsonReader, object: JsonObject, mediaType: string): ImageIndex {
  const manifests = reader
    .array(object.manifests, 'manifests', MAX_INDEX_ENTRIES)
    .map((item, index) => readDescriptor(reader, item, `manifests[${index}]`));
  return { mediaType, manifests };
}

/** `urls` and `data` are not read: foreign content is never followed, and a blob comes by its digest. */
export function readDescriptor(reader: JsonReader, value: unknown, path: string): Descriptor {
  const object = reader.object(value, path);
  const artifactType = reader.optionalString(object.artifactType, `${path}.artifactType`);
  const platform = readPlatform(reader, object.platform, `${path}.platform`);
  return {
    mediaType: reader.nonEmptyString(object.mediaType, `${path}.mediaType`),
    digest: parseDigest(object.digest, `${reader.kind.what}: ${path}.digest`),
    size: reader.size(object.size, `${path}.size`),
    ...(platform === undefined ? {} : { platform }),
    ...(artifactType === undefined || artifactType === '' ? {} : { artifactType }),
    ...(object.annotations === undefined || object.annotations === null
      ? {}
      : {
          annotations: reader.stringMap(object.annotations, `${path}.annotations`, MAX_MAP_KEYS),
        }),
  };
}

function readPlatform(reader: JsonReader, value: unknown, path: string): Platform | undefined {
  const object = reader.optionalObject(value, path);
  if (object === undefined) return undefined;
  const variant = reader.optionalString(object.variant, `${path}.variant`);
  return {
    os: reader.optionalString(object.os, `${path}.os`) ?? '',
    architecture: reader.optionalString(object.architecture, `${path}.architecture`) ?? '',
    ...(variant === undefined || variant === '' ? {} : { variant }),
  };
}

function readHealthcheck(reader: JsonReader, value: unknown): Healthcheck | undefined {
  const object = reader.optionalObject(value, 'config.Healthcheck');
  if (object === undefined) return undefined;
  const numbers = ['Interval', 'Timeout', 'StartPeriod', 'StartInterval', 'Retries'].flatMap(key =>
    object[key] === undefined || object[key] === null
      ? []
      : [[key, reader.size(object[key], `config.Healthcheck.${key}`)] as const],
  );
  const test = reader.strings(object.Test, 'config.Healthcheck.Test', MAX_STRINGS);
  return { Test: test, ...Object.fromEntries(numbers) };
}

function readContainerConfig(reader: JsonReader, object: JsonObject): ContainerConfig {
  const text = (key: string) => reader.optionalString(object[key], `config.${key}`) ?? '';
  const list = (key: string) => reader.strings(object[key], `config.${key}`, MAX_STRINGS);
  /** A JSON object whose keys are a set. */
  const set = (key: string) =>
    reader.keys(reader.optionalObject(object[key], `config.${key}`), `config.${key}`, MAX_MAP_KEYS);
  const healthcheck = readHealthcheck(reader, object.Healthcheck);
  const config: ContainerConfig = {
    User: text('User'),
    Env: list('Env'),
    Entrypoint: list('Entrypoint'),
    Cmd: list('Cmd'),
    WorkingDir: text('WorkingDir'),
    ExposedPorts: set('ExposedPorts'),
    Volumes: set('Volumes'),
    Labels: reader.stringMap(object.Labels, 'config.Labels', MAX_MAP_KEYS),
    StopSignal: text('StopSignal'),
    ...(healthcheck === undefined ? {} : { Healthcheck: healthcheck }),
  };
  for (const key of ['Env', 'Entrypoint', 'Cmd'] as const) {
    config[key].forEach((item, index) => {
      // It ends a string for the kernel: what is run would not be what is shown.
      if (item.includes('\0')) reader.fail(`config.${key}[${index}]`, 'has a NUL in it');
    });
  }
  for (const key of ['User', 'WorkingDir'] as const) {
    if (config[key].includes('\0')) reader.fail(`config.${key}`, 'has a NUL in it');
  }
  return config;
}

function quote(text: string): string {
  return JSON.stringify(text.slice(0, 100));
}
