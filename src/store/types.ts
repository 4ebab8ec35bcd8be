/**
 * The store's interfaces. The life of an image in it:
 *
 *   1. A fetch opens a lease. What the lease names, `image gc` leaves alone; the kernel drops it (a
 *      flock) when the process dies.
 *   2. Each blob streams into a BlobWriter, is hashed on its way, fsynced and renamed to its place;
 *      each layer streams into a LayerSink of a LayerForm at the same time. Nothing unverified
 *      reaches a final path.
 *   3. `addImage` writes the record and its references in one transaction. From then on the record,
 *      not the lease, keeps blobs and layers.
 *   4. A pod keeps what it uses by its own folder (`appsinfo/<app>/image.json`), so `image rm` of an
 *      image that a pod uses takes away the name and leaves the layers until the pod is gone.
 *
 * On disk, below the data folder:
 *   cas/v1/blobs/<algorithm>/<hex>            as it came
 *   cas/v1/layers/<form>/<algorithm>/<hex>/   by diff-id (digest of the uncompressed tar)
 *   cas/v1/tmp/                               being written; each entry locked by its writer
 *   cas/v1/leases/                            one locked file per lease
 *   cas/v1/images/                            one record per image: last use, and what rebuilds store.db
 *   cas/v1/store.db                           SQLite: images, references, layers
 *   cas/v1/lock                               the store lock, see docs/store.md
 */
import type { AppcImageManifest } from '../image/appc-manifest.ts';
import type { Digest, DigestAlgorithm } from '../image/digest.ts';
import type { Descriptor, ImageConfig, ImageManifest, Packing, Raw } from '../image/oci.ts';

/** What said that an image may run; kept with the image and with every pod made from it. */
export interface Verdict {
  readonly admitted: boolean;
  /** The rule, key store or option that decided, e.g. `--insecure-options=image`. */
  readonly by: string;
  /** The prefix of the trust rule that decided, `*` for the one of all names. */
  readonly rule?: string;
  /** Whose signatures were verified; those that the image has under its other names stay. */
  readonly signers?: readonly VerdictSigner[];
}

/** Somebody who vouched for the image under one name. */
export interface VerdictSigner {
  /** The name without scheme, tag and digest, as rules know it. */
  readonly name: string;
  readonly kind: 'openpgp' | 'cosign' | 'sigstore';
  /** Lower-case OpenPGP fingerprint, `sha256:…` of a cosign key's DER, or a certificate's identity. */
  readonly signer: string;
  /** An OpenPGP key's user id, or the identity's issuer. */
  readonly detail?: string;
  /** What was signed: the manifest, an index that leads to it, or an archive. */
  readonly digest: Digest;
}

export interface ImageRecord {
  /** Digest of the config, which is what OCI tools show as the image id. */
  readonly id: Digest;
  readonly manifestDigest: Digest;
  /** Full references that lead to it, e.g. `docker://127.0.0.1:5000/busybox:latest`, newest first. */
  readonly names: readonly string[];
  /** Lowest first; `size` is that of the blob as it came. */
  readonly layers: readonly { readonly diffId: Digest; readonly blob: Descriptor }[];
  readonly verdict: Verdict;
  /** ms since the epoch */
  readonly importedAt: number;
  readonly lastUsedAt: number;
  /** bytes: blobs plus unpacked layers, as rkt counts */
  readonly size: number;
  /** Of an image that came as an ACI; its last layer is its own. */
  readonly appc?: AppcOrigin;
}

/** What a server said when it gave out the file that a name leads to (RFC 9111). */
export interface Download {
  readonly etag: string | undefined;
  /** ms since the epoch; until then the server need not be asked */
  readonly freshUntil: number;
}

export interface AppcOrigin {
  /** SHA-512 of the uncompressed archive: the image id, as rkt has it. */
  readonly id: Digest;
  /** The blob of its ImageManifest, as it came. */
  readonly manifest: Digest;
}

export interface BlobWriter {
  write(chunk: Uint8Array): void;
  /** Bytes there already from an interrupted download of the same digest; 0 for a new one. */
  readonly offset: number;
  /** Checks size and digest, fsyncs, renames. Throws 'digest' or 'limit'; then nothing is left. */
  commit(): void;
  /** Keeps the partial file for a later resume, and lets go of its lock. */
  suspend(): void;
  /** Removes the partial file. */
  abort(): void;
}

export interface BlobStore {
  has(digest: Digest): boolean;
  /** Absolute path of a blob that `has`; the caller holds a lease or an image on it. */
  path(digest: Digest): string;
  /** Small blobs only; checks the digest again. Throws 'store' when it does not fit. */
  read(digest: Digest, maxBytes: number): Uint8Array;
  /**
   * Takes the writer's lock for this digest, waiting (`onWait` is called once when it must) for another
   * process that writes the same. Resolves to undefined when that one has completed it. `signal` ends the
   * wait, with an AbortError.
   */
  open(
    descriptor: Descriptor,
    onWait?: () => void,
    signal?: AbortSignal,
  ): Promise<BlobWriter | undefined>;
  /** Hashes it again. Throws 'store' when it is damaged, and is then out of the way, or missing. */
  verify(digest: Digest): void;
  /** A small blob in one go. */
  put(bytes: Uint8Array, digest: Digest): void;
}

/**
 * One layer on its way into the store. The bytes are those of the blob; the form decompresses, rewrites
 * an ACI (stage0/unpack/aci-rewrite.ts), hashes the tar and unpacks in a confined child process.
 */
export interface LayerSink {
  /** Resolves when the child can take more. Rejects with the child's failure. */
  write(chunk: Uint8Array): Promise<void>;
  /** End of the blob. Resolves to what was unpacked, in a temporary place. */
  finish(): Promise<{ readonly diffId: Digest; readonly bytes: number; readonly entries: number }>;
  /** Ends the child and removes what it wrote. */
  abort(): Promise<void>;
}

/** What the launcher needs to show a layer as a folder. Absolute paths. */
export type LayerTree =
  | { readonly form: 'directory'; readonly path: string }
  | {
      readonly form: 'erofs';
      /** The metadata image. */
      readonly meta: string;
      /** The uncompressed tar that it points into. */
      readonly tar: string;
      /** `file` where the kernel mounts files (Linux 6.12), else by loop devices. */
      readonly by: 'file' | 'loop';
    };

/** The attributes of a layer's root: an overlay has those of its upper folder, so they are copied there. */
export interface LayerRoot {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** It hides the layers below; overlayfs heeds the attribute on every folder but a layer's root. */
  readonly opaque: boolean;
}

/** One way of keeping a layer so that a pod can mount it. Every form passes test/store/layer-contract. */
export interface LayerForm {
  readonly name: 'directory' | 'erofs';
  /** Why this form can't be used on this machine; undefined when it can. */
  unavailable(): string | undefined;
  /**
   * Starts an unpack into `folder` (exists, empty, on the store's file system). The caller renames
   * `folder` into place after `finish` gave the expected diff-id, which is made with `algorithm`.
   */
  begin(folder: string, packing: Packing, algorithm: DigestAlgorithm): LayerSink;
  /** What the launcher mounts for a layer at `folder`. */
  tree(folder: string): LayerTree;
  root(folder: string): LayerRoot;
  /** A layer is likely to come: whatever takes time to start may start now. `tmp` is where it will be written. */
  expect?(tmp: string): void;
  /** Names in the layer's folder of files that hold all of it: gc seals them by fs-verity. */
  readonly files?: readonly string[];
  /** Ends what `begin` may have left running for the next layer. */
  rest?(): Promise<void>;
}

export interface LayerStore {
  has(diffId: Digest): boolean;
  /** The form that it is kept in; undefined when it is not there. */
  form(diffId: Digest): LayerForm['name'] | undefined;
  /** Whether the kernel checks each of its files at every read (fs-verity). */
  sealed(diffId: Digest): boolean;
  /** What to use as an overlay's lower layer. */
  tree(diffId: Digest): LayerTree;
  root(diffId: Digest): LayerRoot;
  /**
   * Makes the layer again of its blob and compares. One that differs is replaced, unless `inUse`.
   * Throws 'digest' when the blob does not give the diff-id, and 'store' when another process holds it.
   */
  verify(
    diffId: Digest,
    packing: Packing,
    blob: AsyncIterable<Uint8Array>,
    inUse: boolean,
  ): Promise<{
    readonly state: 'whole' | 'rebuilt' | 'in-use' | 'absent';
    readonly difference?: string;
  }>;
  /** A layer is likely to come. `rest` has to follow. */
  expect(): void;
  /** No more layers come for now: helper processes end. To be called before this process executes another. */
  rest(): Promise<void>;
  /**
   * Takes the writer's lock for this layer; undefined when it is there (or another process has just
   * completed it). `commit` checks the diff-id, makes it durable and renames it into place.
   */
  open(
    diffId: Digest,
    packing: Packing,
    onWait?: () => void,
    signal?: AbortSignal,
  ): Promise<
    | {
        write(chunk: Uint8Array): Promise<void>;
        commit(): Promise<void>;
        abort(): Promise<void>;
      }
    | undefined
  >;
}

export interface Lease {
  /** From now on gc leaves these alone. */
  add(...digests: readonly Digest[]): void;
  /**
   * Removes a blob that turned out to be of no use, which else would lie there until gc. It stays where an
   * image or another lease names it.
   */
  discard(digest: Digest): void;
  release(): void;
}

/** What a pod's folder says it uses, so that gc keeps it. */
export interface PodImageUse {
  readonly id: Digest;
  readonly manifestDigest: Digest;
  readonly name: string;
  readonly layers: readonly Digest[];
  readonly verdict: Verdict;
}

export interface GcResult {
  readonly images: readonly Digest[];
  readonly layers: readonly Digest[];
  readonly blobs: readonly Digest[];
  readonly bytes: number;
  /** What was taken out of the store but could not be deleted, one sentence each; the next gc tries again. */
  readonly failures: readonly string[];
}

export interface Store {
  /** The data folder (`--dir`). */
  readonly dir: string;
  readonly blobs: BlobStore;
  readonly layers: LayerStore;

  lease(): Lease;

  /** One transaction; the name, if any, now leads to this image. Idempotent. */
  addImage(image: {
    readonly name?: string;
    readonly manifest: Raw<ImageManifest>;
    readonly config: Raw<ImageConfig>;
    readonly verdict: Verdict;
    /** The ImageManifest's blob is in the store, and leased. */
    readonly appc?: AppcOrigin;
  }): ImageRecord;
  images(): readonly ImageRecord[];
  /** What is known of the download that `name` came from. */
  download(name: string): Download | undefined;
  setDownload(name: string, download: Download): void;
  /** Exact full name as `ImageRecord.names` has it. */
  byName(name: string): ImageRecord | undefined;
  /**
   * `sha256:`, `sha256-` or bare hex, at least 2 hex digits, of the config, the manifest, or (sha512) of an
   * ACI. Throws 'ambiguous'.
   */
  byIdPrefix(prefix: string): ImageRecord | undefined;
  manifest(image: ImageRecord): Raw<ImageManifest>;
  config(image: ImageRecord): Raw<ImageConfig>;
  /** The ImageManifest of what came as an ACI, whose own bytes are at hand. */
  appcManifest(image: ImageRecord): Raw<AppcImageManifest> | undefined;
  /** Marks as used now. Costs no fsync: it is on the way of every run. */
  touch(image: ImageRecord): void;
  removeImage(id: Digest): void;
  /**
   * Makes every layer committed since the boot survive a power failure: one syncfs, where there is such
   * a layer. gc does it; so does whoever prepares a pod that is to be started after a reboot.
   */
  settle(): void;
  /**
   * Removes images unused for `graceMs`, then layers and blobs that no image, pod or live lease
   * names, and what dead writers left in tmp. `inUse` lists what pods use; it is called while nobody else
   * can lease or add, and must not use the store itself.
   */
  gc(options: {
    readonly graceMs: number;
    /** Then the least recently used go, whatever their age, until blobs and layers fit into so many bytes. */
    readonly maxBytes?: number;
    readonly inUse: () => Iterable<PodImageUse>;
    /** Then seals the layers that are kept, where fs-verity is to be had: it reads each of them once. */
    readonly seal?: boolean;
    /** Removes nothing: what would go. */
    readonly dryRun?: boolean;
  }): GcResult;
  close(): void;
}
