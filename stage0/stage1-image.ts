/**
 * A stage1 image for a pod: found, fetched and verified as any image, then laid out in the pod's folder as plain
 * files. In a chunk of its own: a pod of a built-in flavor needs none of it.
 */
import './hot.ts';
import { lstatSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Context } from '../src/context.ts';
import { errnoOf, TspodError } from '../src/errors.ts';
import { APPC_VERSION } from '../src/image/appc.ts';
import { appFromImageConfig } from '../src/image/convert.ts';
import type { PodApp } from '../src/pod/pod.ts';
import { readStage1Annotations, type Stage1Image } from '../src/pod/stage1-image.ts';
import { openStore } from '../src/store/store.ts';
import type { Store } from '../src/store/types.ts';

export { foreign } from '../stage1-flavors/foreign/foreign.ts';

import { insideTree, TREE } from '../stage1-flavors/foreign/foreign.ts';
import { fetchImage } from './fetch/fetch.ts';
import type { Stage1Reference } from './stage1.ts';
import { directoryForm } from './unpack/directory.ts';
import { flattenLayers } from './unpack/flatten.ts';

export interface OpenStage1 {
  readonly stage1: Stage1Image;
  /** Lays it out in a pod's folder; nothing of `stage1/rootfs` is there yet. */
  render(dir: string): Promise<void>;
  /** Tells the stage1 about the pod's apps, in rkt's files; their folders are there. */
  describeApps(dir: string, store: Store, apps: readonly PodApp[]): void;
  /** The image may be removed from the store again. */
  close(): void;
}

/** @throws TspodError 'unsupported' for an image that is no stage1; what fetching throws */
export async function openStage1(
  context: Context,
  { reference, pullPolicy, trusted }: Stage1Reference,
): Promise<OpenStage1> {
  const fetching = trusted
    ? { ...context, insecure: new Set([...context.insecure, 'image' as const]) }
    : context;
  const store = openStore(context.dir, { forms: [directoryForm] });
  try {
    const lease = store.lease();
    const { image, name } = await fetchImage(fetching, store, reference, { pullPolicy, lease });
    const manifest = store.appcManifest(image);
    const shown = manifest?.value.name ?? name;
    const stage1: Stage1Image = {
      name: shown,
      id: image.id,
      localConfig: context.localConfig,
      ...readStage1Annotations(shown, manifest?.value.annotations ?? []),
    };
    const lowest = image.layers.findLastIndex(({ diffId }) => store.layers.root(diffId).opaque);
    const layers = image.layers.slice(Math.max(lowest, 0)).flatMap(({ diffId }) => {
      const tree = store.layers.tree(diffId);
      return tree.form === 'directory' ? [tree.path] : [];
    });
    store.touch(image);
    return {
      stage1,
      render: async dir => {
        mkdirSync(join(dir, TREE), { recursive: true, mode: 0o755 });
        await flattenLayers(layers, join(dir, TREE));
        // In there folders are made and files written: they must be no links to elsewhere.
        for (const path of ['opt', 'opt/stage2', 'rkt', 'rkt/status'])
          requireFolder(join(dir, TREE, path), shown);
        for (const entry of Object.values(stage1.entryPoints)) insideTree(dir, entry, shown);
        if (manifest !== undefined) writeFileSync(join(dir, 'stage1/manifest'), manifest.bytes);
      },
      describeApps,
      close: () => store.close(),
    };
  } catch (error) {
    store.close();
    throw error;
  }
}

function requireFolder(path: string, stage1: string): void {
  try {
    if (lstatSync(path).isDirectory()) return;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return;
    throw error;
  }
  throw new TspodError('pod', `stage1 ${stage1}: its /${path.split(`${TREE}/`)[1]} is no folder`);
}

/** The image manifest of each app, where a stage1 looks for it. */
export function describeApps(dir: string, store: Store, apps: readonly PodApp[]): void {
  for (const app of apps) {
    const manifest = imageManifest(store, app);
    writeFileSync(join(dir, 'appsinfo', app.name, 'manifest'), manifest, { mode: 0o640 });
    writeFileSync(join(dir, TREE, 'opt/stage2', app.name, 'manifest'), manifest, { mode: 0o640 });
  }
}

/** An ACI's own; of another image, what its conversion to an ACI would have. */
function imageManifest(store: Store, { image, name }: PodApp): Uint8Array {
  const record = store.byIdPrefix(image.id);
  if (record === undefined)
    throw new TspodError('store', `image ${image.id}: it is no longer in the store`);
  const own = store.appcManifest(record);
  if (own !== undefined) return own.bytes;
  const config = store.config(record).value;
  const labels = [
    { name: 'os', value: config.os },
    { name: 'arch', value: config.architecture === 'arm64' ? 'aarch64' : config.architecture },
  ];
  const { app, annotations } = appFromImageConfig(config, image.name);
  const rest = { name: identifier(image.name) ?? name, labels, app, annotations };
  return Buffer.from(JSON.stringify({ acKind: 'ImageManifest', acVersion: APPC_VERSION, ...rest }));
}

/** An "AC Identifier" of what the image was asked for by. */
function identifier(name: string): string | undefined {
  const text = name.replace(/^[a-z-]+:(?:\/\/)?/, '').replace(/[:@].*$/, '');
  const clean = text.toLowerCase().replace(/[^a-z0-9]*[^a-z0-9./-][^a-z0-9]*/g, '-');
  return clean.replace(/^[^a-z0-9]+|[^a-z0-9]+$/g, '') || undefined;
}
