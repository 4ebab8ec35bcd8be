/**
 * What the tests of fetching share: images of given layers, layouts of them, a registry in this process that
 * misbehaves as told, and a context.
 */
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import type { Context } from '../../src/context.ts';
import { type Digest, parseDigest } from '../../src/image/digest.ts';
import { MEDIA } from '../../src/image/oci.ts';
import { hostPlatform } from '../../src/image/platform.ts';
import { openStore } from '../../src/store/store.ts';
import type { LayerForm, Store } from '../../src/store/types.ts';
import type { Timing } from '../../stage0/fetch/retry.ts';

/** Retries without waiting. */
export const FAST: Timing = {
  connect: 5000,
  headers: 5000,
  idle: 5000,
  attempts: 4,
  backoff: 1,
  longestWait: 20,
};

export function sha256(bytes: Uint8Array | string): Digest {
  return parseDigest(`sha256:${createHash('sha256').update(bytes).digest('hex')}`, 'test');
}

export function folder(): string {
  return mkdtempSync(join(tmpdir(), 'tspod-fetch-'));
}

export function removeFolder(path: string): void {
  rmSync(path, { recursive: true, force: true });
}

export function testContext(dir: string, changes: Partial<Context> = {}): Context {
  return {
    program: 'tspod',
    command: 'fetch',
    dir,
    systemConfig: join(dir, 'none'),
    localConfig: join(dir, 'none'),
    userConfig: '',
    insecure: new Set(['image', 'http']),
    trustKeysFromHttps: false,
    offline: false,
    debug: false,
    ...changes,
  };
}

export interface Blob {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly size: number;
}

export interface MadeImage {
  readonly blobs: Map<string, Uint8Array>;
  readonly manifest: Blob;
  readonly config: Blob;
  readonly layers: readonly Blob[];
}

/** An image of these (uncompressed) layers, gzipped. */
export function makeImage(
  tars: readonly (Uint8Array | string)[],
  changes: {
    readonly manifest?: object;
    readonly config?: object;
    readonly diffIds?: readonly string[];
    readonly docker?: boolean;
  } = {},
): MadeImage {
  const blobs = new Map<string, Uint8Array>();
  const add = (bytes: Uint8Array, mediaType: string): Blob => {
    const digest = sha256(bytes);
    blobs.set(digest, bytes);
    return { mediaType, digest, size: bytes.length };
  };
  const layers = tars.map(tar => add(gzipSync(tar), 'application/vnd.oci.image.layer.v1.tar+gzip'));
  const { os, architecture } = hostPlatform();
  const config = add(
    json({
      os,
      architecture,
      config: { Cmd: ['/true'] },
      rootfs: { type: 'layers', diff_ids: changes.diffIds ?? tars.map(sha256) },
      ...changes.config,
    }),
    MEDIA.ociConfig,
  );
  const manifest = add(
    json({
      schemaVersion: 2,
      mediaType: MEDIA.ociManifest,
      config,
      layers,
      ...changes.manifest,
    }),
    MEDIA.ociManifest,
  );
  return { blobs, manifest, config, layers };
}

export function json(value: unknown): Uint8Array {
  return Buffer.from(JSON.stringify(value));
}

/** Writes an OCI layout with these images under their names. */
export function writeLayout(path: string, images: Readonly<Record<string, MadeImage>>): void {
  mkdirSync(join(path, 'blobs/sha256'), { recursive: true });
  writeFileSync(join(path, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  const manifests = Object.entries(images).map(([name, image]) => {
    for (const [digest, bytes] of image.blobs) {
      writeFileSync(join(path, 'blobs', digest.replace(':', '/')), bytes);
    }
    return { ...image.manifest, annotations: { 'org.opencontainers.image.ref.name': name } };
  });
  writeFileSync(join(path, 'index.json'), json({ schemaVersion: 2, manifests }));
}

export interface Seen {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingMessage['headers'];
}

export interface TestServer {
  readonly host: string;
  readonly seen: Seen[];
  close(): Promise<void>;
}

type Handler = (request: IncomingMessage, response: ServerResponse) => void;

/** A server on an ephemeral port of loopback. */
export async function serve(handler: Handler): Promise<TestServer> {
  const seen: Seen[] = [];
  const server: Server = createServer((request, response) => {
    seen.push({ method: request.method ?? '', url: request.url ?? '', headers: request.headers });
    handler(request, response);
  });
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return {
    host: `127.0.0.1:${address.port}`,
    seen,
    close: () =>
      new Promise(resolve => {
        server.closeAllConnections();
        server.close(() => resolve());
      }),
  };
}

/** A registry that serves an image well, but for what `evil` answers first (true: it has answered). */
export function registryOf(
  image: MadeImage,
  evil: (request: IncomingMessage, response: ServerResponse) => boolean = () => false,
): Handler {
  return (request, response) => {
    if (evil(request, response)) return;
    const url = request.url ?? '';
    if (url === '/v2/') return void response.writeHead(200).end();
    if (/\/manifests\//.test(url)) {
      const reference = url.split('/').at(-1) ?? '';
      const bytes = image.blobs.get(reference) ?? image.blobs.get(image.manifest.digest);
      response.setHeader('Content-Type', image.manifest.mediaType);
      return void response.end(bytes);
    }
    const bytes = image.blobs.get(url.split('/').at(-1) ?? '');
    if (bytes === undefined) return void response.writeHead(404).end();
    const from = /^bytes=([0-9]+)-/.exec(request.headers.range ?? '')?.[1];
    if (from === undefined) return void response.end(bytes);
    const start = Number(from);
    response.writeHead(206, {
      'Content-Range': `bytes ${start}-${bytes.length - 1}/${bytes.length}`,
    });
    response.end(bytes.subarray(start));
  };
}

/** Unpacks nothing: keeps the diff-id and counts, so that the transport is what is tested. */
export const hashForm: LayerForm = {
  name: 'directory',
  unavailable: () => undefined,
  tree: path => ({ form: 'directory', path }),
  root: () => ({ mode: 0o755, uid: 0, gid: 0, opaque: false }),
  begin(path, compression) {
    const parts: Uint8Array[] = [];
    return {
      async write(chunk) {
        parts.push(Buffer.from(chunk));
      },
      async finish() {
        const { gunzipSync, zstdDecompressSync } = await import('node:zlib');
        const packed = Buffer.concat(parts);
        const tar =
          compression === 'gzip'
            ? gunzipSync(packed)
            : compression === 'zstd'
              ? zstdDecompressSync(packed)
              : packed;
        writeFileSync(join(path, 'content'), tar);
        return { diffId: sha256(tar), bytes: tar.length, entries: 1 };
      },
      async abort() {
        parts.length = 0;
      },
    };
  },
};

export function testStore(dir: string): Store {
  return openStore(dir, { forms: [hashForm] });
}
