/**
 * From the command line to a prepared pod: resolve the images, assemble and check the pod, write its
 * folder, put the root filesystems together, store the launch plan. `run`, `prepare` and
 * `run --dry-run` share it.
 *
 * Order and crash safety: everything that can be refused is refused before the pod's folder exists. From
 * then on the folder is locked by this process; killed at any instant it leaves an unlocked folder in
 * `embryo` or `prepare`, which gc removes. The images are leased until the folder says what it uses.
 */
import { chmodSync, chownSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { type Context, warn } from '../src/context.ts';
import { reasonOf, systemError } from '../src/errors.ts';
import type { PodManifest, Volume } from '../src/image/appc.ts';
import { type Digest, fromAppcHash } from '../src/image/digest.ts';
import { writePlan, writePod } from '../src/pod/folder.ts';
import type { LaunchPlan } from '../src/pod/launch-plan.ts';
import { createPod, type PodHandle } from '../src/pod/lifecycle.ts';
import type { Pod, PodApp } from '../src/pod/pod.ts';
import { checkPodName, claimPodName } from '../src/pod/pod-name.ts';
import { parseVolume } from '../src/pod/volumes.ts';
import { holdImage } from '../src/store/ensure-layers.ts';
import { openStore } from '../src/store/store.ts';
import type { ImageRecord, LayerTree, Lease, PodImageUse, Store } from '../src/store/types.ts';
import { faultPoint } from '../src/sys/fault.ts';
import { overlayUnavailable } from '../src/sys/overlay.ts';
import { requireRoot } from '../src/sys/privilege.ts';
import type { Flavor } from '../stage1-flavors/flavor.ts';
import type { PodArgs, VolumeFile } from './args/types.ts';
import { assemblePod, type ResolvedImage, readPodManifest, type StoredImage } from './assemble.ts';
import { fetchImage } from './fetch/fetch.ts';
import { machineOptions } from './machine.ts';
import { defaultNet, hasNetworks } from './networks.ts';
import { removeLockedPod } from './remove-pod.ts';
import type { Finish } from './result.ts';
import { selectStage1 } from './stage1.ts';
import type { OpenStage1 } from './stage1-image.ts';
import { directoryForm } from './unpack/directory.ts';
import { flattenLayers } from './unpack/flatten.ts';
import { layerForms } from './unpack/forms.ts';
import { admitStored } from './verify/policy.ts';

/** A pod that could be made: nothing of it is on disk yet. */
export interface PlannedPod {
  readonly pod: Pod;
  readonly flavor: Flavor;
  readonly plan: LaunchPlan;
  /** `--pod-name`, or what a Kubernetes Pod says. */
  readonly podName?: string;
  /** See PodArgs. */
  readonly volumeFiles?: PodArgs['volumeFiles'];
  /** Of a pod that a stage1 image runs. */
  readonly stage1?: OpenStage1;
}

/**
 * Calls `use` with the planned pod while its images are leased.
 * @param finish see RuntimeOptions.finish
 * @throws TspodError for everything that can be refused without writing a pod
 */
export async function withPlannedPod<T>(
  context: Context,
  args: PodArgs,
  finish: Finish | undefined,
  use: (planned: PlannedPod, store: Store) => Promise<T>,
): Promise<T> {
  requireRoot(context.command);
  if (args.pod !== undefined) {
    const { readPodFile } = await import('./kube/pod-yaml.ts');
    const { pod, ...rest } = args;
    return withPlannedPod(context, readPodFile(pod, rest), finish, use);
  }
  if (args.podName !== undefined) checkPodName(args.podName);
  const several = args.sandbox !== undefined || args.volumeFiles !== undefined;
  const chosen = await selectStage1(context, args.stage1, several ? 'nspawn' : undefined);
  if (chosen.image === undefined)
    return withFlavor(context, args, { flavor: chosen.flavor }, finish, use);
  const { foreign, openStage1 } = await import('./stage1-image.ts');
  const stage1 = await openStage1(context, chosen.image);
  try {
    return await withFlavor(context, args, { flavor: foreign, stage1 }, finish, use);
  } finally {
    stage1.close();
  }
}

async function withFlavor<T>(
  context: Context,
  args: PodArgs,
  { flavor, stage1 }: Pick<PlannedPod, 'flavor' | 'stage1'>,
  finish: Finish | undefined,
  use: (planned: PlannedPod, store: Store) => Promise<T>,
): Promise<T> {
  const overlay = canOverlay(context, args);
  // A copy is made of plain files.
  const forms = overlay ? layerForms(context.dir) : [directoryForm];
  const store = openStore(context.dir, { forms });
  try {
    const lease = store.lease();
    const images = await resolveImages(context, store, lease, args);
    const podManifest =
      args.podManifest === undefined ? undefined : readPodManifest(args.podManifest);
    const named = await manifestImages(context, store, lease, podManifest);
    const volumeImages = await imagesOfVolumes(
      context,
      store,
      lease,
      [...args.volumes.map(parseVolume), ...(podManifest?.volumes ?? [])],
      args,
    );
    const uuid = newUuid();
    // A pod that is only prepared learns it when it starts.
    const net = finish === undefined ? args.net : (args.net ?? defaultNet(flavor));
    const assembled = assemblePod({
      uuid,
      context,
      args: { ...args, ...(net === undefined ? {} : { net }) },
      images,
      podManifest,
      findImage: id => named.get(id),
      volumeImages,
      flavor,
      overlay,
      finish: hasNetworks(flavor) ? finish?.(uuid, net) : finish?.(uuid, undefined),
      stage1: stage1?.stage1,
      vm: await machineOptions(context, flavor, args.vm),
      layerTree: diffId =>
        relativeTo(join(context.dir, 'pods/run', uuid), store.layers.tree(diffId)),
    });
    const pod = withVisibleLayers(assembled, store);
    flavor.check(pod);
    for (const text of flavor.warnings?.(pod) ?? []) warn(context, `warning: ${text}`);
    const plan = flavor.plan(pod);
    if (!args.dryRun)
      for (const { record } of [...images, ...named.values(), ...volumeImages.values()])
        store.touch(record);
    const { podName, volumeFiles } = args;
    return await use(
      {
        pod,
        flavor,
        plan,
        ...(stage1 === undefined ? {} : { stage1 }),
        ...(podName === undefined ? {} : { podName }),
        ...(volumeFiles === undefined ? {} : { volumeFiles }),
      },
      store,
    );
  } finally {
    store.close();
  }
}

/**
 * Without the layers that an opaque root of a higher one hides (`.wh..wh..opq` at the top of a layer):
 * overlayfs heeds the attribute on every folder but a layer's root.
 */
export function withVisibleLayers(pod: Pod, store: Store): Pod {
  const visible = (image: PodImageUse, layers: readonly LayerTree[]) => {
    const lowest = image.layers.findLastIndex(diffId => store.layers.root(diffId).opaque);
    return lowest <= 0 ? layers : layers.slice(lowest);
  };
  return {
    ...pod,
    apps: pod.apps.map(app => ({
      ...app,
      rootfs: { ...app.rootfs, layers: visible(app.image, app.rootfs.layers) },
    })),
    ...(pod.volumeImages === undefined
      ? {}
      : {
          volumeImages: new Map(
            [...pod.volumeImages].map(([name, { image, layers }]) => [
              name,
              { image, layers: visible(image, layers) },
            ]),
          ),
        }),
  };
}

export function relativeTo(dir: string, tree: LayerTree): LayerTree {
  if (tree.form === 'directory') return { ...tree, path: relative(dir, tree.path) };
  return { ...tree, meta: relative(dir, tree.meta), tar: relative(dir, tree.tar) };
}

/** The kernel's: node:crypto would cost as much as all the rest of a run (OpenSSL sets itself up). */
function newUuid(): string {
  return readFileSync('/proc/sys/kernel/random/uuid', 'latin1').trim();
}

export function canOverlay(context: Context, args: Pick<PodArgs, 'noOverlay'>): boolean {
  if (args.noOverlay) return false;
  const why = overlayUnavailable(context.dir);
  if (why !== undefined) {
    warn(context, `disabling overlay support: ${why}; the pod gets a copy of its image`);
  }
  return why === undefined;
}

async function resolveImages(
  context: Context,
  store: Store,
  lease: Lease,
  args: PodArgs,
): Promise<readonly ResolvedImage[]> {
  const images: ResolvedImage[] = [];
  for (const image of args.images) {
    const { image: record, name } = await fetchImage(context, store, image.reference, {
      pullPolicy: args.pullPolicy,
      lease,
      signature: image.flags.signature,
    });
    images.push({ args: image, ...stored(store, record, name) });
  }
  return images;
}

/** Fetched, verified and leased as an app's image is. */
async function imagesOfVolumes(
  context: Context,
  store: Store,
  lease: Lease,
  volumes: readonly Volume[],
  { pullPolicy }: Pick<PodArgs, 'pullPolicy'>,
): Promise<ReadonlyMap<string, StoredImage>> {
  const images = new Map<string, StoredImage>();
  for (const { name, kind, source } of volumes) {
    if (kind !== 'image' || source === undefined) continue;
    const { image, name: called } = await fetchImage(context, store, source, {
      pullPolicy,
      lease,
      signature: undefined,
    });
    images.set(name, stored(store, image, called));
  }
  return images;
}

export function stored(store: Store, record: ImageRecord, name: string): StoredImage {
  return { record, name, config: store.config(record), appc: store.appcManifest(record)?.value };
}

/** The images of a pod manifest by id: those that the store has. */
async function manifestImages(
  context: Context,
  store: Store,
  lease: Lease,
  manifest: PodManifest | undefined,
): Promise<ReadonlyMap<Digest, StoredImage>> {
  const images = new Map<Digest, StoredImage>();
  for (const { image } of manifest?.apps ?? []) {
    const id = fromAppcHash(image.id);
    if (id === undefined) continue;
    const record = await holdImage(store, lease, () => store.byIdPrefix(id));
    if (record === undefined) continue;
    await admitStored(context, record, record.names[0] ?? record.id, record.names);
    images.set(id, stored(store, record, record.names[0] ?? record.id));
  }
  return images;
}

/** Makes the pod's folder and everything in it. The answer is locked and in `prepare`. */
export async function writePreparedPod(
  context: Context,
  store: Store,
  { pod, flavor, plan, stage1, podName, volumeFiles }: PlannedPod,
  options: { readonly uuidFile: string | undefined },
): Promise<PodHandle> {
  const handle = createPod(context.dir, pod.uuid);
  try {
    if (podName !== undefined) claimPodName(context.dir, handle, podName);
    if (options.uuidFile !== undefined) saveUuid(options.uuidFile, pod.uuid);
    handle.moveTo('prepare');
    const { dir } = handle;
    await stage1?.render(dir);
    writePod(dir, pod, flavor.name);
    stage1?.describeApps(dir, store, pod.apps);
    faultPoint('prepare-written');
    for (const app of pod.apps) await makeRootFs(dir, store, app);
    for (const volume of pod.manifest.volumes) {
      makeEmptyVolume(dir, volume);
      const files = volumeFiles?.get(volume.name);
      if (files !== undefined) writeVolumeFiles(dir, volume, files);
    }
    if (pod.options.vm !== undefined)
      await (await import('./vm-image/disks.ts')).makeLayerDisks(
        pod,
        join(context.dir, 'pods/run', pod.uuid),
      );
    const disk = pod.options.vm?.disk;
    if (disk !== undefined) (await import('./vm-image/scratch.ts')).makeScratch(dir, disk);
    faultPoint('prepare-rootfs');
    writePlan(dir, plan);
    faultPoint('prepare-plan');
    return handle;
  } catch (error) {
    try {
      removeLockedPod(handle);
    } catch (second) {
      warn(context, reasonOf(second));
    }
    throw error;
  }
}

/** rkt writes it the moment the pod exists: the plain UUID, no newline. */
function saveUuid(file: string, uuid: string): void {
  try {
    writeFileSync(file, uuid);
  } catch (error) {
    throw systemError(`can't save the UUID to ${file}`, error);
  }
}

export async function makeRootFs(dir: string, store: Store, app: PodApp): Promise<void> {
  if (app.rootfs.kind === 'overlay') {
    copyRootAttributes(store, app.image.layers, join(dir, app.rootfs.upper));
    return;
  }
  const trees = app.rootfs.layers.map(layer => {
    // The store was opened with that form only: anything else would be a root with layers missing.
    if (layer.form !== 'directory') throw new Error(`a layer to copy is kept as ${layer.form}`);
    return resolve(dir, layer.path);
  });
  await flattenLayers(trees, join(dir, app.root));
}

/**
 * The upper folder's own mode and owner become those of `/`. They are the topmost layer's that has an
 * entry for its root; a layer without one was unpacked with 0755 root:root.
 */
function copyRootAttributes(store: Store, layers: readonly Digest[], upper: string): void {
  for (const layer of [...layers].reverse()) {
    const { mode, uid, gid } = store.layers.root(layer);
    if (mode === 0o755 && uid === 0 && gid === 0) continue;
    chownSync(upper, uid, gid);
    chmodSync(upper, mode);
    return;
  }
  chmodSync(upper, 0o755);
}

/** Into a volume that is empty and this process's own. */
function writeVolumeFiles(dir: string, volume: Volume, files: readonly VolumeFile[]): void {
  for (const { path, mode, data } of files) {
    const place = join(dir, 'sharedVolumes', volume.name, path);
    mkdirSync(dirname(place), { recursive: true, mode: 0o755 });
    writeFileSync(place, data, { flag: 'wx' });
    chmodSync(place, mode);
  }
}

export function makeEmptyVolume(dir: string, volume: Volume): void {
  if (volume.kind !== 'empty') return;
  const path = join(dir, 'sharedVolumes', volume.name);
  mkdirSync(path, { recursive: true, mode: 0o755 });
  chownSync(path, volume.uid ?? 0, volume.gid ?? 0);
  chmodSync(path, Number.parseInt(volume.mode ?? '0755', 8));
}
