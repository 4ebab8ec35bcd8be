/**
 * Fills Node's compile cache beside the bundle (NODE_COMPILE_CACHE, which the starter sets): the bundle as V8
 * compiled it, with the functions that a first run called. As root it plans a pod of an image without
 * layers; else it only loads the bundle. Nothing depends on the cache: Node checks that it fits and does
 * without where it does not.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export function warmUp(root: string): void {
  const cache = join(root, 'dist/compile-cache');
  rmSync(cache, { recursive: true, force: true });
  mkdirSync(cache);
  const work = mkdtempSync(join(tmpdir(), 'tspod-build-'));
  try {
    const args =
      process.geteuid?.() === 0
        ? ['run', '--dry-run', `oci:${emptyImage(work)}`, '--exec=/true']
        : ['version'];
    const { status, stderr } = spawnSync(
      join(root, 'dist/tspod'),
      ['--insecure-options=image', `--dir=${join(work, 'data')}`, ...args],
      { stdio: ['ignore', 'ignore', 'pipe'], encoding: 'utf8' },
    );
    if (status !== 0) throw new Error(`build: the tool does not run: ${stderr.trim()}`);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** An OCI layout (image-spec image-layout.md) of an image without layers. @returns its folder */
function emptyImage(work: string): string {
  const layout = join(work, 'layout');
  mkdirSync(join(layout, 'blobs/sha256'), { recursive: true });
  const put = (mediaType: string, value: unknown) => {
    const bytes = JSON.stringify(value);
    const hex = createHash('sha256').update(bytes).digest('hex');
    writeFileSync(join(layout, 'blobs/sha256', hex), bytes);
    return { mediaType, digest: `sha256:${hex}`, size: bytes.length };
  };
  const config = put('application/vnd.oci.image.config.v1+json', {
    os: 'linux',
    architecture: process.arch === 'x64' ? 'amd64' : process.arch,
    config: {},
    rootfs: { type: 'layers', diff_ids: [] },
  });
  const mediaType = 'application/vnd.oci.image.manifest.v1+json';
  const manifest = put(mediaType, { schemaVersion: 2, mediaType, config, layers: [] });
  writeFileSync(join(layout, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  writeFileSync(
    join(layout, 'index.json'),
    JSON.stringify({ schemaVersion: 2, manifests: [manifest] }),
  );
  return layout;
}
