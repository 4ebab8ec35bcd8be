/**
 * Writes OCI image layouts from tars, without any code of tspod: what tspod reads in the functional tests
 * comes from somebody else. Descriptors carry what the OCI image specification 1.1 asks for, no more.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream, mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PassThrough, Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGzip, createZstdCompress } from 'node:zlib';

export type Compression = 'none' | 'gzip' | 'zstd';

export interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
}

export interface WrittenLayer extends Descriptor {
  readonly diffId: string;
}

/** The `config` object of an OCI image configuration; the subset the tests use. */
export interface ImageConfig {
  readonly User?: string;
  readonly Env?: readonly string[];
  readonly Entrypoint?: readonly string[];
  readonly Cmd?: readonly string[];
  readonly WorkingDir?: string;
  readonly ExposedPorts?: Readonly<Record<string, object>>;
  readonly Volumes?: Readonly<Record<string, object>>;
  readonly Labels?: Readonly<Record<string, string>>;
  readonly StopSignal?: string;
}

const SUFFIX = { none: '', gzip: '+gzip', zstd: '+zstd' } as const;

/** Puts bytes into the layout's blobs. */
export function writeBlob(
  layout: string,
  bytes: string | Uint8Array,
  mediaType: string,
): Descriptor {
  const hex = createHash('sha256').update(bytes).digest('hex');
  const folder = join(layout, 'blobs/sha256');
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, hex), bytes);
  return { mediaType, digest: `sha256:${hex}`, size: Buffer.byteLength(bytes) };
}

/** Puts the tar at `tar` into the layout's blobs as a layer. */
export async function writeLayer(
  layout: string,
  tar: string,
  compression: Compression,
): Promise<WrittenLayer> {
  const folder = join(layout, 'blobs/sha256');
  mkdirSync(folder, { recursive: true });
  const aside = join(layout, `layer-${process.pid}-${Math.random().toString(36).slice(2)}`);
  const plain = hashing();
  const packed = hashing();
  await pipeline(
    createReadStream(tar, { highWaterMark: 1 << 20 }),
    plain.stream,
    compressor(compression),
    packed.stream,
    createWriteStream(aside),
  );
  const { hex, size } = packed.result();
  renameSync(aside, join(folder, hex));
  return {
    mediaType: `application/vnd.oci.image.layer.v1.tar${SUFFIX[compression]}`,
    digest: `sha256:${hex}`,
    size,
    diffId: `sha256:${plain.result().hex}`,
  };
}

/** Writes config and manifest and makes the layout name them `tag`; earlier tags go. */
export function writeImage(
  layout: string,
  tag: string,
  layers: readonly WrittenLayer[],
  config: ImageConfig,
): Descriptor {
  const image = writeBlob(
    layout,
    JSON.stringify({
      created: '2024-01-01T00:00:00Z',
      architecture: process.arch === 'x64' ? 'amd64' : process.arch,
      os: 'linux',
      config,
      rootfs: { type: 'layers', diff_ids: layers.map(layer => layer.diffId) },
      history: layers.map(() => ({ created: '2024-01-01T00:00:00Z', created_by: 'tests' })),
    }),
    'application/vnd.oci.image.config.v1+json',
  );
  const mediaType = 'application/vnd.oci.image.manifest.v1+json';
  const manifest = writeBlob(
    layout,
    JSON.stringify({
      schemaVersion: 2,
      mediaType,
      config: image,
      layers: layers.map(({ mediaType, digest, size }) => ({ mediaType, digest, size })),
    }),
    mediaType,
  );
  writeFileSync(join(layout, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  writeFileSync(
    join(layout, 'index.json'),
    JSON.stringify({
      schemaVersion: 2,
      manifests: [{ ...manifest, annotations: { 'org.opencontainers.image.ref.name': tag } }],
    }),
  );
  return manifest;
}

/** GNU tar of a folder's content, with numeric owners, xattrs and a stable order. */
export function tarFolder(folder: string, tar: string): void {
  const options = [
    '--xattrs',
    '--numeric-owner',
    '--sort=name',
    '--mtime=@1700000000',
    '--format=pax',
  ];
  const ended = spawnSync('tar', [...options, '-C', folder, '-cf', tar, '.'], { encoding: 'utf8' });
  if (ended.status !== 0) throw new Error(`tar of ${folder}: ${ended.stderr}`);
}

function compressor(compression: Compression): Transform {
  if (compression === 'gzip') return createGzip({ level: 6 });
  if (compression === 'zstd') return createZstdCompress();
  return new PassThrough();
}

function hashing(): { stream: Transform; result: () => { hex: string; size: number } } {
  const hash = createHash('sha256');
  let size = 0;
  const stream = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      hash.update(chunk);
      size += chunk.length;
      done(null, chunk);
    },
  });
  return { stream, result: () => ({ hex: hash.digest('hex'), size }) };
}
