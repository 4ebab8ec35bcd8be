/**
 * What lies in a pod's folder, written when it is prepared and read back by run-prepared, enter and
 * the rest. The layout is rkt's where rkt has the thing (rkt-1.30, Documentation/devel/pod-lifecycle):
 *
 *   pod                               the appc pod manifest
 *   appsinfo/<app>/image.json         what the app uses of the store; `image gc` keeps it
 *   appsinfo/<app>/app-plan           stage2's plan
 *   launch-plan                       the launcher's plan
 *   pod.lck                           locked by whoever adds or removes an app of a pod that runs
 *   runtime-config                    what the manifest has no word for, with a format version
 *   overlay/<app>/{upper,work}        the app's private layer
 *   layers/                           where the launcher mounts layers that are no plain folders
 *   sharedVolumes/<volume>            volumes of kind `empty`
 *   stage1/rootfs/opt/stage2/<app>/rootfs   the app's root, a mount point on the host's side
 *   stage1/rootfs/rkt/status/<app>    exit status, when somebody outlives the app
 *   flavor                            symbolic link whose target is the flavor's name
 *
 * Nothing here is reachable from inside the app, so the files are trusted as far as their form goes:
 * a form that does not fit is an error, not a guess.
 */
import {
  mkdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { errnoOf, systemError, TspodError } from '../errors.ts';
import { isDigest } from '../image/digest.ts';
import type { LayerTree, PodImageUse } from '../store/types.ts';
import { isVerdict } from '../store/verdict.ts';
import { encodePlan, type LaunchPlan, type Step } from './launch-plan.ts';
import { parsePodManifest } from './manifest.ts';
import type { Pod, PodApp, RootFs, RuntimeOptions } from './pod.ts';
import { isStage1Image } from './stage1-image.ts';
import { placeVolumes } from './volumes.ts';

/** 2: layers say their form. */
const CONFIG_VERSION = 2;

export function appRoot(app: string): string {
  return `stage1/rootfs/opt/stage2/${app}/rootfs`;
}

/** The cgroups that the pod's launcher makes, one path per line. */
export const CGROUPS_FILE = 'subcgroup';
export const STATUS_FOLDER = 'stage1/rootfs/rkt/status';

/** Everything of a pod but the plans and the copied root filesystems. `dir` exists and is locked. */
export function writePod(dir: string, pod: Pod, flavor: string): void {
  try {
    mkdirSync(join(dir, STATUS_FOLDER), { recursive: true, mode: 0o755 });
    for (const app of pod.apps) writeAppFolders(dir, app);
    for (const [name, { image }] of pod.volumeImages ?? [])
      writeImageUse(dir, volumeEntry(name), image);
    writeManifest(dir, pod);
    writeRuntimeConfig(dir, pod);
    symlinkSync(flavor, join(dir, 'flavor'));
  } catch (error) {
    throw systemError(`pod ${pod.uuid}: can't write its folder`, error);
  }
}

/** Beside the apps' folders in appsinfo; no app has such a name. */
function volumeEntry(volume: string): string {
  return `.volume-${volume}`;
}

/** The folders of one app, and what it uses of the store. */
export function writeAppFolders(dir: string, app: PodApp): void {
  writeImageUse(dir, app.name, app.image);
  mkdirSync(join(dir, app.root), { recursive: true, mode: 0o755 });
  if (app.rootfs.kind !== 'overlay') return;
  // The root's own mode and owner come from the upper folder once overlayfs is mounted.
  mkdirSync(join(dir, app.rootfs.upper), { recursive: true, mode: 0o755 });
  mkdirSync(join(dir, app.rootfs.work), { recursive: true, mode: 0o755 });
  mkdirSync(join(dir, 'layers'), { recursive: true, mode: 0o700 });
}

export function writeManifest(dir: string, pod: Pick<Pod, 'manifest'>): void {
  replaceFile(join(dir, 'pod'), JSON.stringify(pod.manifest));
}

export function writeImageUse(dir: string, app: string, use: PodImageUse): void {
  mkdirSync(join(dir, 'appsinfo', app), { recursive: true, mode: 0o750 });
  // `image gc` of another process may read it at any moment.
  replaceFile(join(dir, 'appsinfo', app, 'image.json'), JSON.stringify(use));
}

export function writeRuntimeConfig(dir: string, pod: Pod): void {
  const config = {
    version: CONFIG_VERSION,
    options: pod.options,
    rootfs: Object.fromEntries(pod.apps.map(app => [app.name, app.rootfs])),
    ...(pod.volumeImages === undefined
      ? {}
      : {
          volumeImages: Object.fromEntries(
            [...pod.volumeImages].map(([name, { layers }]) => [name, layers]),
          ),
        }),
  };
  replaceFile(join(dir, 'runtime-config'), JSON.stringify(config));
}

export function writePlan(dir: string, plan: LaunchPlan): void {
  for (const folder of plan.folders ?? []) {
    mkdirSync(join(dir, folder), { recursive: true, mode: 0o755 });
  }
  writeInsidePlans(dir, plan.inside ?? new Map());
  for (const [app, steps] of plan.apps) {
    replaceFile(join(dir, 'appsinfo', app, 'app-plan'), encodePlan(steps));
  }
  replaceFile(join(dir, 'launch-plan'), encodePlan(plan.steps));
}

/** @param plans by path in the pod's folder */
export function writeInsidePlans(dir: string, plans: ReadonlyMap<string, readonly Step[]>): void {
  for (const [path, steps] of plans) {
    mkdirSync(dirname(join(dir, path)), { recursive: true, mode: 0o755 });
    replaceFile(join(dir, path), encodePlan(steps));
  }
}

/** Whole or not at all: run-prepared writes these again in a pod that stays prepared when it is killed. */
export function replaceFile(path: string, content: string | Uint8Array): void {
  const aside = `${path}.new`;
  writeFileSync(aside, content, { mode: 0o640 });
  renameSync(aside, path);
}

/** The flavor's name, from the link that the pod was prepared with. */
export function readFlavorName(dir: string): string {
  try {
    return readlinkSync(join(dir, 'flavor'));
  } catch (error) {
    throw systemError(`pod folder ${dir}: can't read its flavor`, error);
  }
}

/**
 * A pod as it was prepared.
 * @throws TspodError 'pod' when a file is missing or does not have the form that this version writes.
 */
export function readPod(dir: string, uuid: string): Pod {
  const manifest = parsePodManifest(read(dir, 'pod', uuid));
  const config = parseRuntimeConfig(read(dir, 'runtime-config', uuid), uuid);
  const apps = manifest.apps.map((runtimeApp): PodApp => {
    const rootfs = config.rootfs.get(runtimeApp.name);
    if (rootfs === undefined || runtimeApp.app === undefined) {
      throw new TspodError(
        'pod',
        `pod ${uuid}: its runtime-config and manifest disagree about app "${runtimeApp.name}"`,
      );
    }
    return {
      name: runtimeApp.name,
      image: readImageUse(dir, runtimeApp.name, uuid),
      app: runtimeApp.app,
      root: appRoot(runtimeApp.name),
      rootfs,
      readOnlyRootFs: runtimeApp.readOnlyRootFS ?? false,
      mounts: placeVolumes(
        manifest.volumes,
        runtimeApp.mounts ?? [],
        runtimeApp.app.mountPoints ?? [],
      ).placed,
    };
  });
  const volumeImages = new Map(
    [...config.volumeImages].map(([name, layers]) => [
      name,
      { image: readImageUse(dir, volumeEntry(name), uuid), layers },
    ]),
  );
  return {
    uuid,
    manifest,
    apps,
    options: config.options,
    ...(volumeImages.size === 0 ? {} : { volumeImages }),
  };
}

/** @throws TspodError 'pod' when the file is missing or malformed. */
export function readImageUse(dir: string, app: string, uuid: string): PodImageUse {
  return parseImageUse(read(dir, `appsinfo/${app}/image.json`, uuid), uuid);
}

export function parseImageUse(bytes: Uint8Array, uuid: string): PodImageUse {
  const value = parseJson(bytes);
  if (
    isRecord(value) &&
    isDigest(value.id) &&
    isDigest(value.manifestDigest) &&
    typeof value.name === 'string' &&
    Array.isArray(value.layers) &&
    value.layers.every(isDigest) &&
    isVerdict(value.verdict)
  ) {
    return {
      id: value.id,
      manifestDigest: value.manifestDigest,
      name: value.name,
      layers: value.layers,
      verdict: value.verdict,
    };
  }
  throw new TspodError('pod', `pod ${uuid}: its image.json is damaged`);
}

function read(dir: string, name: string, uuid: string): Uint8Array {
  try {
    return readFileSync(join(dir, name));
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') {
      throw new TspodError('pod', `pod ${uuid}: its folder has no ${name}`, {
        hint: 'it was never prepared whole; remove it with rm',
      });
    }
    throw systemError(`pod ${uuid}: can't read ${name}`, error);
  }
}

function parseRuntimeConfig(
  bytes: Uint8Array,
  uuid: string,
): {
  readonly options: RuntimeOptions;
  readonly rootfs: ReadonlyMap<string, RootFs>;
  readonly volumeImages: ReadonlyMap<string, readonly LayerTree[]>;
} {
  const value = parseJson(bytes);
  if (!isRecord(value) || value.version !== CONFIG_VERSION) {
    throw new TspodError('pod', `pod ${uuid}: its runtime-config is of another version of tspod`, {
      hint: 'prepare the pod again with this version',
    });
  }
  const rootfs = new Map<string, RootFs>();
  const damaged = () => new TspodError('pod', `pod ${uuid}: its runtime-config is damaged`);
  if (!isRecord(value.rootfs)) throw damaged();
  for (const [app, entry] of Object.entries(value.rootfs)) {
    if (!isRootFs(entry)) throw damaged();
    rootfs.set(app, entry);
  }
  const volumeImages = new Map<string, readonly LayerTree[]>();
  if (value.volumeImages !== undefined && !isRecord(value.volumeImages)) throw damaged();
  for (const [name, layers] of Object.entries(value.volumeImages ?? {})) {
    if (!Array.isArray(layers) || !layers.every(isLayerTree)) throw damaged();
    volumeImages.set(name, layers);
  }
  if (!isRuntimeOptions(value.options)) throw damaged();
  return { options: value.options, rootfs, volumeImages };
}

function isRootFs(value: unknown): value is RootFs {
  if (!isRecord(value)) return false;
  if (!Array.isArray(value.layers) || !value.layers.every(isLayerTree)) return false;
  if (value.kind === 'copy') return true;
  return (
    value.kind === 'overlay' && typeof value.upper === 'string' && typeof value.work === 'string'
  );
}

function isLayerTree(value: unknown): value is LayerTree {
  if (!isRecord(value)) return false;
  if (value.form === 'directory') return typeof value.path === 'string';
  return (
    value.form === 'erofs' &&
    typeof value.meta === 'string' &&
    typeof value.tar === 'string' &&
    (value.by === 'file' || value.by === 'loop')
  );
}

function isRuntimeOptions(value: unknown): value is RuntimeOptions {
  return (
    isRecord(value) &&
    isDns(value.dns) &&
    isHosts(value.hosts) &&
    optionalString(value.hostname) &&
    optionalString(value.net) &&
    (value.ipc === undefined ||
      value.ipc === 'auto' ||
      value.ipc === 'private' ||
      value.ipc === 'parent') &&
    typeof value.interactive === 'boolean' &&
    typeof value.privateUsers === 'boolean' &&
    typeof value.mdsRegister === 'boolean' &&
    (value.noOverlay === undefined || typeof value.noOverlay === 'boolean') &&
    (value.stage1 === undefined || isStage1Image(value.stage1)) &&
    (value.vm === undefined || isMachine(value.vm)) &&
    typeof value.program === 'string' &&
    typeof value.debug === 'boolean' &&
    (value.finish === undefined || isStrings(value.finish)) &&
    isRecord(value.insecure) &&
    typeof value.insecure.capabilities === 'boolean' &&
    typeof value.insecure.paths === 'boolean' &&
    typeof value.insecure.seccomp === 'boolean'
  );
}

function isMachine(value: unknown): boolean {
  return (
    isRecord(value) &&
    typeof value.image === 'string' &&
    typeof value.imageFolder === 'string' &&
    typeof value.smallBlocks === 'boolean' &&
    (value.accel === 'kvm' || value.accel === 'tcg') &&
    [value.memory, value.cpus, value.disk].every(
      number => number === undefined || (Number.isSafeInteger(number) && Number(number) > 0),
    )
  );
}

function isDns(value: unknown): boolean {
  if (!isRecord(value)) return false;
  if (value.mode === 'default' || value.mode === 'host' || value.mode === 'none') return true;
  return (
    value.mode === 'servers' &&
    isStrings(value.servers) &&
    isStrings(value.search) &&
    isStrings(value.options) &&
    typeof value.domain === 'string'
  );
}

function isHosts(value: unknown): boolean {
  if (!isRecord(value)) return false;
  if (value.mode === 'default' || value.mode === 'host') return true;
  return (
    value.mode === 'entries' &&
    Array.isArray(value.entries) &&
    value.entries.every(entry => isStrings(entry) && entry.length === 2)
  );
}

function optionalString(value: unknown): boolean {
  return value === undefined || typeof value === 'string';
}

function isStrings(value: unknown): value is string[] {
  return Array.isArray(value) && value.every(item => typeof item === 'string');
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(bytes).toString());
  } catch {
    return undefined;
  }
}
