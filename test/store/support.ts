/** What the store's tests share: a small layer form, images made of given bytes, a folder per test. */
import { createHash } from 'node:crypto';
import { appendFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Digest, parseDigest } from '../../src/image/digest.ts';
import { type ImageConfig, type ImageManifest, MEDIA, type Raw } from '../../src/image/oci.ts';
import { openStore } from '../../src/store/store.ts';
import type { ImageRecord, LayerForm, Lease, Store, Verdict } from '../../src/store/types.ts';

export const VERDICT: Verdict = { admitted: true, by: '--insecure-options=image' };

export function sha256(bytes: Uint8Array | string): Digest {
  return parseDigest(`sha256:${createHash('sha256').update(bytes).digest('hex')}`, 'test');
}

/** A folder that is removed when the test's scope ends. */
export function temporaryFolder(): { readonly path: string } & Disposable {
  const path = mkdtempSync(join(tmpdir(), 'tspod-store-'));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}

/** Keeps a layer's bytes as one file: the simplest thing that fulfils the interface. */
export const fileForm: LayerForm = {
  name: 'directory',
  unavailable: () => undefined,
  tree: path => ({ form: 'directory', path }),
  root: () => ({ mode: 0o755, uid: 0, gid: 0, opaque: false }),
  begin(folder) {
    const hash = createHash('sha256');
    const file = join(folder, 'content');
    let bytes = 0;
    writeFileSync(file, '');
    return {
      async write(chunk) {
        hash.update(chunk);
        bytes += chunk.length;
        appendFileSync(file, chunk);
      },
      async finish() {
        return {
          diffId: parseDigest(`sha256:${hash.digest('hex')}`, 'test'),
          bytes,
          entries: 1,
        };
      },
      async abort() {
        rmSync(file, { force: true });
      },
    };
  },
};

/** The folder of a layer that is kept in a form of plain files. */
export function plainTree(store: Pick<Store, 'layers'>, diffId: Digest): string {
  const tree = store.layers.tree(diffId);
  if (tree.form !== 'directory') throw new Error(`layer ${diffId} has no plain tree`);
  return tree.path;
}

export function openTestStore(dir: string): Store {
  return openStore(dir, { forms: [fileForm] });
}

export interface TestImage {
  readonly layers: readonly Uint8Array[];
  readonly manifest: Raw<ImageManifest>;
  readonly config: Raw<ImageConfig>;
  /** Everything that a fetch of it puts into its lease. */
  readonly digests: readonly Digest[];
}

/** An image with these layers; `label` makes its config differ from another with the same ones. */
export function testImage(label: string, layers: readonly (Uint8Array | string)[]): TestImage {
  const bytes = layers.map(layer => Buffer.from(layer));
  const config = raw<ImageConfig>(
    {
      architecture: 'amd64',
      os: 'linux',
      config: { Labels: { label } },
      rootfs: { type: 'layers', diff_ids: bytes.map(sha256) },
    },
    {
      os: 'linux',
      architecture: 'amd64',
      config: {
        User: '',
        Env: [],
        Entrypoint: [],
        Cmd: [],
        WorkingDir: '',
        ExposedPorts: [],
        Volumes: [],
        Labels: { label },
        StopSignal: '',
      },
      diffIds: bytes.map(sha256),
    },
  );
  const descriptors = bytes.map(layer => ({
    mediaType: 'application/vnd.oci.image.layer.v1.tar',
    digest: sha256(layer),
    size: layer.length,
  }));
  const configDescriptor = {
    mediaType: MEDIA.ociConfig,
    digest: config.digest,
    size: config.bytes.length,
  };
  const manifest = raw<ImageManifest>(
    {
      schemaVersion: 2,
      mediaType: MEDIA.ociManifest,
      config: configDescriptor,
      layers: descriptors,
    },
    {
      mediaType: MEDIA.ociManifest,
      config: configDescriptor,
      layers: descriptors,
      annotations: {},
    },
  );
  return {
    layers: bytes,
    manifest,
    config,
    digests: [manifest.digest, config.digest, ...bytes.map(sha256)],
  };
}

function raw<T>(document: unknown, value: T): Raw<T> {
  const bytes = Buffer.from(JSON.stringify(document));
  return { bytes, digest: sha256(bytes), value };
}

/** What a fetch does: lease, blobs, layers, record. The lease is the caller's when he gives one. */
export async function addTestImage(
  store: Store,
  image: TestImage,
  name?: string,
  lease?: Lease,
): Promise<ImageRecord> {
  const own = lease ?? store.lease();
  try {
    own.add(...image.digests);
    const ends = await Promise.allSettled(image.layers.map(layer => addTestLayer(store, layer)));
    for (const end of ends) if (end.status === 'rejected') throw end.reason;
    return store.addImage({
      ...(name === undefined ? {} : { name }),
      manifest: image.manifest,
      config: image.config,
      verdict: VERDICT,
    });
  } finally {
    if (lease === undefined) own.release();
  }
}

export async function addTestLayer(store: Store, layer: Uint8Array): Promise<void> {
  const digest = sha256(layer);
  const blob = await store.blobs.open({ mediaType: 'x', digest, size: layer.length });
  if (blob !== undefined) {
    for (let at = blob.offset; at < layer.length; at += CHUNK) {
      blob.write(layer.subarray(at, at + CHUNK));
    }
    blob.commit();
  }
  const sink = await store.layers.open(digest, 'none');
  if (sink === undefined) return;
  try {
    for (let at = 0; at < layer.length; at += CHUNK) {
      await sink.write(layer.subarray(at, at + CHUNK));
    }
    await sink.commit();
  } catch (error) {
    await sink.abort();
    throw error;
  }
}

const CHUNK = 1000;

/** Every law that holds for a store at rest, whatever happened to it. */
export function assertWhole(store: Store): void {
  for (const image of store.images()) {
    store.manifest(image);
    store.config(image);
    for (const { diffId, blob } of image.layers) {
      store.blobs.read(blob.digest, Number.MAX_SAFE_INTEGER);
      if (!store.layers.has(diffId)) throw new Error(`image ${image.id} lacks layer ${diffId}`);
    }
  }
}
