/**
 * The OCI image specification 1.1 and Docker's schema 2 as readonly types. The validators are in
 * oci-validate.ts; nothing outside builds these types from JSON by a cast.
 */
import type { Digest } from './digest.ts';

export const MEDIA = {
  ociIndex: 'application/vnd.oci.image.index.v1+json',
  ociManifest: 'application/vnd.oci.image.manifest.v1+json',
  ociConfig: 'application/vnd.oci.image.config.v1+json',
  dockerIndex: 'application/vnd.docker.distribution.manifest.list.v2+json',
  dockerManifest: 'application/vnd.docker.distribution.manifest.v2+json',
  dockerConfig: 'application/vnd.docker.container.image.v1+json',
} as const;

/** OCI image-spec descriptor.md. `urls` is deliberately absent: foreign layers are never followed. */
export interface Descriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  /** bytes */
  readonly size: number;
  readonly platform?: Platform;
  /** What kind of artifact the manifest is of; indexes of referrers say it. */
  readonly artifactType?: string;
  readonly annotations?: Readonly<Record<string, string>>;
}

export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string;
}

/** manifest.md; Docker schema 2 has the same shape. */
export interface ImageManifest {
  readonly mediaType: string;
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
  readonly annotations: Readonly<Record<string, string>>;
}

/** image-index.md; Docker's manifest list has the same shape. */
export interface ImageIndex {
  readonly mediaType: string;
  readonly manifests: readonly Descriptor[];
}

/** config.md, `config` property. Absent lists and maps are empty here. */
export interface ContainerConfig {
  readonly User: string;
  readonly Env: readonly string[];
  readonly Entrypoint: readonly string[];
  readonly Cmd: readonly string[];
  readonly WorkingDir: string;
  readonly ExposedPorts: readonly string[];
  readonly Volumes: readonly string[];
  readonly Labels: Readonly<Record<string, string>>;
  readonly StopSignal: string;
  /** Docker's; the OCI specification passes it over. */
  readonly Healthcheck?: Healthcheck;
}

/** How Docker finds out whether an app is well. Times in nanoseconds; 0 or absent: Docker's default. */
export interface Healthcheck {
  /** `NONE`, `CMD` and the words, or `CMD-SHELL` and one line for the shell. */
  readonly Test: readonly string[];
  readonly Interval?: number;
  readonly Timeout?: number;
  readonly StartPeriod?: number;
  readonly StartInterval?: number;
  readonly Retries?: number;
}

/** config.md */
export interface ImageConfig {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string;
  readonly created?: string;
  readonly author?: string;
  readonly config: ContainerConfig;
  /** Digests of the uncompressed layer tars, lowest first. */
  readonly diffIds: readonly Digest[];
}

/** A parsed document together with the very bytes it came from: a digest never depends on re-serialising. */
export interface Raw<T> {
  readonly bytes: Uint8Array;
  readonly digest: Digest;
  readonly value: T;
}

/** How a layer's blob is packed, from its media type or, where that is silent, from its first bytes. */
export type Compression = 'none' | 'gzip' | 'zstd' | 'bzip2' | 'xz';

/**
 * An ACI kept as a layer: its blob is the ACI's file, the layer's tar is what lies below `rootfs/` in it, cut
 * down by whitelists (appc 0.8.11, "pathWhitelist"; empty lists let everything pass).
 */
export interface AciTransform {
  readonly kind: 'aci';
  /** The image's own whitelist. Folders pass it. */
  readonly own: readonly string[];
  /** Those of the images that it is a dependency of: they let only their own paths and what leads to them pass. */
  readonly above: readonly (readonly string[])[];
}

/** All that has to be done to a blob to get the layer's tar. */
export type Packing =
  | Compression
  | { readonly compression: Compression; readonly transform: AciTransform };

export function compressionOf(packing: Packing): Compression {
  return typeof packing === 'string' ? packing : packing.compression;
}

export function transformOf(packing: Packing): AciTransform | undefined {
  return typeof packing === 'string' ? undefined : packing.transform;
}
