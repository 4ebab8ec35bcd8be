/**
 * An archive of `docker save` as an image source. It has a config and layers and no manifest of a registry, so
 * one is made of them: its digest is that of what it says, and the same archive gives the same one. Layers are
 * known by the diff-ids of the config; a compressed one gets the digest of its own bytes.
 */
import { createHash } from 'node:crypto';
import { TspodError } from '../../src/errors.ts';
import { type Digest, parseDigest } from '../../src/image/digest.ts';
import { type Compression, type Descriptor, MEDIA } from '../../src/image/oci.ts';
import {
  CONFIG_MAX_BYTES,
  MANIFEST_MAX_BYTES,
  parseImageConfig,
} from '../../src/image/oci-validate.ts';
import { canonicalReference, type LayoutReference } from '../../src/image/reference.ts';
import type { ArchiveFiles } from './archive-files.ts';
import { compressionOfBytes, SNIFF_BYTES } from './compression.ts';
import { chooseSavedImage, parseSavedImages } from './docker-manifest.ts';
import {
  type ArchiveFile,
  checkContent,
  collect,
  digestOf,
  type ImageSource,
  type TopDocument,
} from './source.ts';

export class DockerArchiveSource implements ImageSource {
  readonly name: string;
  readonly archive?: ArchiveFile;
  readonly #files: ArchiveFiles;
  readonly #ref: string | undefined;
  readonly #shown: string;
  readonly #members = new Map<Digest, string>();
  #config: Uint8Array = new Uint8Array();

  constructor(reference: LayoutReference, files: ArchiveFiles, archive?: ArchiveFile) {
    if (archive !== undefined) this.archive = archive;
    this.name = canonicalReference(reference);
    this.#shown = `image ${this.name}`;
    this.#files = files;
    this.#ref = reference.tag;
  }

  async top(): Promise<TopDocument> {
    const list = await this.#small('manifest.json', MANIFEST_MAX_BYTES);
    const image = chooseSavedImage(parseSavedImages(list, this.#shown), this.#ref, this.#shown);
    this.#config = await this.#small(image.config, CONFIG_MAX_BYTES);
    const digest = digestOf(this.#config);
    const named = /^(?:blobs\/sha256\/)?([0-9a-f]{64})(?:\.json)?$/.exec(image.config)?.[1];
    if (named !== undefined && digest !== `sha256:${named}`) {
      throw new TspodError(
        'digest',
        `${this.#shown}: ${image.config}: its content has the digest ${digest}`,
      );
    }
    const { diffIds } = parseImageConfig(this.#config, digest).value;
    if (diffIds.length !== image.layers.length) {
      throw new TspodError(
        'protocol',
        `${this.#shown}: manifest.json has ${image.layers.length} layers and the config ${diffIds.length}`,
      );
    }
    const layers: Descriptor[] = [];
    for (const [index, diffId] of diffIds.entries()) {
      layers.push(await this.#layer(image.layers[index] ?? '', diffId));
    }
    const config = { mediaType: MEDIA.ociConfig, digest, size: this.#config.length };
    const manifest = { schemaVersion: 2, mediaType: MEDIA.ociManifest, config, layers };
    const bytes = Buffer.from(JSON.stringify(manifest));
    return { bytes, digest: digestOf(bytes), mediaType: MEDIA.ociManifest };
  }

  /** What `top` made is no index. */
  async manifest({ digest }: Descriptor): Promise<Uint8Array> {
    throw new TspodError('protocol', `${this.#shown}: there is no manifest ${digest} in it`);
  }

  async document(descriptor: Descriptor, maxBytes: number): Promise<Uint8Array> {
    if (this.#config.length > maxBytes) {
      throw new TspodError('limit', `${this.#shown}: its config is over ${maxBytes} bytes`);
    }
    checkContent(this.#config, descriptor, `${this.#shown}: the config`);
    return this.#config;
  }

  blob({ digest }: Descriptor, offset: number): AsyncIterable<Uint8Array> {
    const member = this.#members.get(digest);
    if (member !== undefined) return this.#files.read(member, offset);
    throw new TspodError('not-found', `${this.#shown}: there is no layer ${digest} in it`);
  }

  close(): void {
    this.#files.close();
  }

  async #layer(name: string, diffId: Digest): Promise<Descriptor> {
    const member = this.#member(name);
    const size = this.#files.size(member) ?? 0;
    const compression = await this.#compression(member);
    const digest = compression === 'none' ? diffId : await this.#hash(member);
    this.#members.set(digest, member);
    return { mediaType: LAYER_TYPES[compression], digest, size };
  }

  async #compression(member: string): Promise<Compression> {
    const parts: Uint8Array[] = [];
    let length = 0;
    for await (const chunk of this.#files.read(member, 0)) {
      parts.push(chunk.subarray(0, SNIFF_BYTES));
      length += chunk.length;
      if (length >= SNIFF_BYTES) break;
    }
    return compressionOfBytes(Buffer.concat(parts));
  }

  async #hash(member: string): Promise<Digest> {
    const hash = createHash('sha256');
    for await (const chunk of this.#files.read(member, 0)) hash.update(chunk);
    return parseDigest(`sha256:${hash.digest('hex')}`, this.#shown);
  }

  async #small(name: string, maxBytes: number): Promise<Uint8Array> {
    const member = this.#member(name);
    const size = this.#files.size(member) ?? 0;
    const what = `${this.#shown}: ${JSON.stringify(name.slice(0, 200))}`;
    if (size > maxBytes) {
      throw new TspodError('limit', `${what}: ${size} bytes is over the limit of ${maxBytes}`);
    }
    return collect(this.#files.read(member, 0), maxBytes, what);
  }

  #member(name: string): string {
    const member = this.#files.resolve(name);
    if (member !== undefined) return member;
    const shown = JSON.stringify(name.slice(0, 200));
    throw new TspodError('protocol', `${this.#shown}: ${shown} is missing in it`);
  }
}

/** Docker's type says nothing of how it is packed. */
const ANY = 'application/vnd.docker.image.rootfs.diff.tar.gzip';
const LAYER_TYPES: Readonly<Record<Compression, string>> = {
  none: 'application/vnd.oci.image.layer.v1.tar',
  gzip: 'application/vnd.oci.image.layer.v1.tar+gzip',
  zstd: 'application/vnd.oci.image.layer.v1.tar+zstd',
  bzip2: ANY,
  xz: ANY,
};
