/**
 * The image that flavors are tested with: the cache's busybox, with users and folders of the contract's own
 * in a layer above it, as an OCI layout; each wanted config is one image more over the same layers.
 */
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  type ImageConfig,
  tarFolder,
  type WrittenLayer,
  writeImage,
  writeLayer,
} from '../images/oci-writer.ts';

export class ContractImage {
  readonly #layout: string;
  readonly #layers: readonly WrittenLayer[];

  private constructor(layout: string, layers: readonly WrittenLayer[]) {
    this.#layout = layout;
    this.#layers = layers;
  }

  /** @param busybox the cache's layout; @param folder a new folder for the contract's own */
  static async make(busybox: string, folder: string): Promise<ContractImage> {
    const layout = join(folder, 'layout');
    cpSync(busybox, layout, { recursive: true });
    const own = join(folder, 'own');
    for (const name of ['etc', 'work']) mkdirSync(join(own, name), { recursive: true });
    writeFileSync(
      join(own, 'etc/passwd'),
      // The last line is a bait: a user whose name is a number (CVE-2016-3697).
      'root:x:0:0:root:/root:/bin/sh\nann:x:1001:1002:Ann:/home/ann:/bin/ash\n4711:x:0:0::/root:/bin/sh\n',
    );
    writeFileSync(
      join(own, 'etc/group'),
      'root:x:0:4711\nstaff:x:1002:\nmusic:x:1003:ann\n4712:x:0:\n',
    );
    tarFolder(own, join(folder, 'own.tar'));
    const above = await writeLayer(layout, join(folder, 'own.tar'), 'zstd');
    return new ContractImage(layout, [...layersOf(layout), above]);
  }

  /** `oci:FOLDER:latest` of an image whose entry point is busybox's shell. */
  with(config: ImageConfig): string {
    const tag = 'latest';
    const whole = { Entrypoint: ['/bin/sh', '-c'], Env: ['PATH=/bin'], ...config };
    writeImage(this.#layout, tag, this.#layers, whole);
    return `oci:${this.#layout}:${tag}`;
  }
}

interface Named {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
}

function layersOf(layout: string): readonly WrittenLayer[] {
  const index = readJson<{ manifests: readonly Named[] }>(join(layout, 'index.json'));
  const blob = (digest = '') => join(layout, 'blobs', digest.replace(':', '/'));
  const manifest = readJson<{ config: Named; layers: readonly Named[] }>(
    blob(index.manifests[0]?.digest),
  );
  const config = readJson<{ rootfs: { diff_ids: readonly string[] } }>(
    blob(manifest.config.digest),
  );
  return manifest.layers.map((layer, at) => ({
    ...layer,
    diffId: config.rootfs.diff_ids[at] ?? '',
  }));
}

function readJson<T>(path: string): T {
  return JSON.parse(readFileSync(path, 'utf8')) as T;
}
