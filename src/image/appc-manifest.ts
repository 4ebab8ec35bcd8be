/**
 * The appc ImageManifest (appc 0.8.11, "Image Manifest Schema"): what is in an ACI's file `manifest`, read
 * into checked values. Its app is read as strictly as that of a pod manifest: a field of it that nothing here
 * knows asks for something that would not be done. Beside the app unknown fields are passed over, as rkt does.
 */

import { TspodError } from '../errors.ts';
import { JsonReader } from '../pod/json-reader.ts';
import { readApp, readNameValue } from '../pod/manifest.ts';
import type { App, NameValue } from './appc.ts';
import { isAcIdentifier, isAcImageId, isAcVersion } from './appc-names.ts';
import { isCleanAbsolute } from './convert.ts';
import { hostPlatform } from './platform.ts';

export interface AppcDependency {
  readonly imageName: string;
  /** `sha512-<hex>`, whole or its beginning */
  readonly imageID?: string;
  readonly labels: readonly NameValue[];
  /** bytes of the ACI's file as it is served */
  readonly size?: number;
}

export interface AppcImageManifest {
  readonly name: string;
  readonly labels: readonly NameValue[];
  readonly app?: App;
  readonly annotations: readonly NameValue[];
  readonly dependencies: readonly AppcDependency[];
  /** Clean absolute paths; one may end in a slash. */
  readonly pathWhitelist: readonly string[];
}

export const APPC_IMAGE_MANIFEST_MAX_BYTES = 4 * 1024 * 1024;
const MAX_LIST = 10_000;
const MAX_WHITELIST = 100_000;
const MAX_TEXT = 128 * 1024;
export const MAX_DEPENDENCIES = 100;

/**
 * @param what for messages, e.g. `image example.com/app`
 * @throws TspodError 'protocol' that names the field, 'limit' for a bound
 */
export function parseAppcImageManifest(bytes: Uint8Array, what: string): AppcImageManifest {
  try {
    return read(bytes, `${what}: its manifest`);
  } catch (error) {
    if (!(error instanceof TspodError) || error.code !== 'pod') throw error;
    throw new TspodError('protocol', error.message, { cause: error });
  }
}

function read(bytes: Uint8Array, what: string): AppcImageManifest {
  const top = JsonReader.parse(bytes, {
    what,
    maxBytes: APPC_IMAGE_MANIFEST_MAX_BYTES,
    maxList: MAX_LIST,
    maxText: MAX_TEXT,
  }).object();
  top.get('acKind').oneOf(['ImageManifest']);
  const version = top.get('acVersion');
  if (!isAcVersion(version.text())) throw version.wrong('it is not a version');
  return {
    name: identifier(top.get('name')),
    labels: readLabels(top.get('labels')),
    ...top.optional('app', readApp),
    annotations: readPairs(top.get('annotations'), 'annotation'),
    dependencies: listOrEmpty(top.get('dependencies'), MAX_DEPENDENCIES, readDependency),
    pathWhitelist: listOrEmpty(top.get('pathWhitelist'), MAX_WHITELIST, readPath),
  };
}

function listOrEmpty<T>(
  field: JsonReader,
  most: number,
  readItem: (item: JsonReader) => T,
): readonly T[] {
  return field.value === undefined || field.value === null ? [] : field.list(most, readItem);
}

function readDependency(reader: JsonReader): AppcDependency {
  const object = reader.object();
  const imageName = identifier(
    // What it was called before appc 0.5.
    object.get('imageName').value === undefined ? object.get('app') : object.get('imageName'),
  );
  return {
    imageName,
    ...object.optional('imageID', field => {
      const id = field.text();
      if (id !== '' && !isAcImageId(id)) throw field.wrong('it is not sha512-HEX');
      return id;
    }),
    labels: readLabels(object.get('labels')),
    ...object.optional('size', field => field.integer(0, Number.MAX_SAFE_INTEGER)),
  };
}

function readLabels(field: JsonReader): readonly NameValue[] {
  const labels = readPairs(field, 'label');
  if (labels.some(({ name }) => name === 'name')) throw field.wrong('invalid label name: "name"');
  return labels;
}

/** Names are AC identifiers, each once. */
function readPairs(field: JsonReader, what: string): readonly NameValue[] {
  const seen = new Set<string>();
  return field.listOrEmpty(item => {
    const pair = readNameValue(item);
    if (!isAcIdentifier(pair.name)) throw item.wrong(`${quote(pair.name)} is no ${what}'s name`);
    if (seen.has(pair.name)) throw item.wrong(`duplicate ${what}s of name ${quote(pair.name)}`);
    seen.add(pair.name);
    return pair;
  });
}

function readPath(field: JsonReader): string {
  const path = field.textWithoutNul();
  if (!isCleanAbsolute(path))
    throw field.wrong(`${quote(path)} is not an absolute path without ".."`);
  return path;
}

function identifier(field: JsonReader): string {
  const text = field.text();
  if (!isAcIdentifier(text)) throw field.wrong(`${quote(text)} is not an appc name`);
  return text;
}

function quote(text: string): string {
  return JSON.stringify(text.slice(0, 100));
}

export function labelOf(
  { labels }: Pick<AppcImageManifest, 'labels'>,
  name: string,
): string | undefined {
  return labels.find(label => label.name === name)?.value;
}

/** `NAME[:VERSION]`, as rkt shows it and as the store files it. */
export function appcImageName(manifest: Pick<AppcImageManifest, 'name' | 'labels'>): string {
  const version = labelOf(manifest, 'version');
  // A version that could be read as something else stays out of the name.
  return version !== undefined && /^[^\s:,/@\p{Cc}]{1,128}$/u.test(version)
    ? `${manifest.name}:${version}`
    : manifest.name;
}

/** Architectures by appc's names, to Go's. */
const GOARCH: Readonly<Record<string, string>> = {
  i386: '386',
  aarch64: 'arm64',
  aarch64_be: 'arm64be',
  armv6l: 'arm',
  armv7l: 'arm',
  armv7b: 'armbe',
};

/** A name that appc does not have is taken as it is. */
export function goArchitecture(arch: string): string {
  return GOARCH[arch] ?? arch;
}

/** The labels of this machine, by which images are discovered. */
export function hostLabels(): { readonly os: string; readonly arch: string } {
  const { os, architecture } = hostPlatform();
  const [arch] = Object.entries(GOARCH).find(([, go]) => go === architecture) ?? [architecture];
  return { os, arch };
}

const OS_ARCH: Readonly<Record<string, readonly string[]>> = {
  linux: [
    'amd64',
    'i386',
    'aarch64',
    'aarch64_be',
    'armv6l',
    'armv7l',
    'armv7b',
    'ppc64',
    'ppc64le',
    's390x',
  ],
};

/** @throws TspodError 'pod', in rkt's words, for an image that is not for this machine */
export function checkAppcPlatform(manifest: AppcImageManifest, image: string): void {
  const bad = (why: string) => new TspodError('pod', `image ${image}: ${why}`);
  const os = labelOf(manifest, 'os');
  const arch = labelOf(manifest, 'arch');
  if (os === undefined) throw bad('missing os label in the image manifest');
  if (arch === undefined) throw bad('missing arch label in the image manifest');
  const known = OS_ARCH[os];
  if (known === undefined) {
    throw bad(`bad os ${quote(os)} (must be one of: ${Object.keys(OS_ARCH).join(', ')})`);
  }
  const host = hostLabels().arch;
  const wanted =
    host === 'amd64'
      ? ['amd64', 'i386']
      : host === 'aarch64'
        ? ['aarch64', 'armv7l', 'armv6l']
        : [host];
  if (!wanted.includes(arch)) {
    throw bad(`bad arch ${quote(arch)} for ${os} (must be one of: ${wanted.join(', ')})`);
  }
}
