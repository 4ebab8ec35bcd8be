/**
 * An image as `docker save` writes it (moby image/spec v1.2, "Combined Image JSON + Filesystem Changeset
 * Format"): manifest.json, the config, and the layers as plain tars.
 */
import { digestHex } from '../../src/image/digest.ts';
import { parseReference } from '../../src/image/reference.ts';
import type { ImageRecord, Store } from '../../src/store/types.ts';
import { Archive } from './archive.ts';
import { layerTar } from './layer-tar.ts';

export async function writeDockerArchive(
  store: Store,
  image: ImageRecord,
  fd: number,
): Promise<void> {
  const archive = new Archive(fd);
  const config = store.config(image);
  const configName = `${digestHex(config.digest)}.json`;
  const names = image.layers.map(({ diffId }) => `${digestHex(diffId)}.tar`);
  await archive.bytes(configName, config.bytes);
  const written = new Set<string>();
  for (const [index, name] of names.entries()) {
    if (written.has(name)) continue;
    written.add(name);
    const { size, read } = await layerTar(store, image, index);
    await archive.file(name, size, read());
  }
  const manifest = [{ Config: configName, RepoTags: repoTags(image), Layers: names }];
  await archive.bytes('manifest.json', JSON.stringify(manifest));
  await archive.end();
}

/** Names of registries only: a path of this machine is no name elsewhere. */
function repoTags(image: ImageRecord): readonly string[] {
  return image.names.flatMap(name => {
    const reference = parseReference(name);
    if (reference.kind !== 'registry' || reference.tag === undefined) return [];
    return [`${reference.registry}/${reference.repository}:${reference.tag}`];
  });
}
