/**
 * From flags and images to a checked Pod: the one place where rkt's rules about which flag wins over
 * which field of an image live. Nothing is written here, and nothing of an image is opened: users, groups
 * and paths are text until the launcher and stage2 resolve them inside the app's root.
 */
import { readFileSync } from 'node:fs';
import { type Context, warn } from '../src/context.ts';
import { systemError, TspodError } from '../src/errors.ts';
import {
  APPC_VERSION,
  type ExposedPort,
  type Mount,
  type NameValue,
  type PodManifest,
  type RuntimeApp,
  type Volume,
} from '../src/image/appc.ts';
import type { AppcImageManifest } from '../src/image/appc-manifest.ts';
import { type Digest, fromAppcHash } from '../src/image/digest.ts';
import { parseDns, parseHosts } from '../src/pod/dns.ts';
import { appRoot } from '../src/pod/folder.ts';
import { POD_MANIFEST_MAX_BYTES, parsePodManifest } from '../src/pod/manifest.ts';
import { MUTABLE_ANNOTATION } from '../src/pod/mutable.ts';
import { isAcName } from '../src/pod/names.ts';
import type { Pod, PodApp, RootFs, RuntimeOptions } from '../src/pod/pod.ts';
import {
  EXIT_POLICIES,
  EXIT_POLICY_ANNOTATION,
  oneOf,
  parseSeconds,
  STOP_TIMEOUT_ANNOTATION,
} from '../src/pod/supervision.ts';
import { parseMount, parseVolume, placeVolumes, resolveSource } from '../src/pod/volumes.ts';
import type { ImageRecord, LayerTree } from '../src/store/types.ts';
import type { Flavor } from '../stage1-flavors/flavor.ts';
import type { ImageArgs, NetworkArgs, PodArgs, SandboxArgs } from './args/types.ts';
import {
  annotation,
  appFromFlags,
  appFromManifest,
  type StoredImage,
  sharedEnvironment,
  texts,
} from './assemble-app.ts';

export type { StoredImage } from './assemble-app.ts';

/** An image of the command line, fetched. */
export interface ResolvedImage extends StoredImage {
  readonly args: ImageArgs;
}

export interface AssembleInput {
  readonly uuid: string;
  readonly context: Context;
  readonly args: PodArgs;
  /** In the order of `args.images`. */
  readonly images: readonly ResolvedImage[];
  /** What `--pod-manifest` names, read by `readPodManifest`. */
  readonly podManifest?: PodManifest | undefined;
  /** For `podManifest`, whose images must be in the store. */
  readonly findImage: (id: Digest) => StoredImage | undefined;
  readonly flavor: Pick<Flavor, 'name'>;
  /** Whether root filesystems are overlays; else copies. */
  readonly overlay: boolean;
  /** See RuntimeOptions.finish. */
  readonly finish: readonly string[] | undefined;
  readonly stage1?: RuntimeOptions['stage1'];
  readonly vm?: RuntimeOptions['vm'];
  /** With paths relative to the pod's folder. */
  readonly layerTree: (diffId: Digest) => LayerTree;
  /** The images of volumes of kind `image`, by the volumes' names. */
  readonly volumeImages?: ReadonlyMap<string, StoredImage>;
}

/** @throws TspodError 'usage', 'pod', 'not-found' that names the flag or field */
export function assemblePod(input: AssembleInput): Pod {
  const { args, context, uuid } = input;
  const options = runtimeOptions(context, args, {
    finish: input.finish,
    privateUsers: args.privateUsers,
    noOverlay: args.noOverlay,
    stage1: input.stage1,
    vm: input.vm,
  });
  if (options.interactive && args.images.length > 1) {
    throw new TspodError('usage', 'interactive option only supports one image');
  }
  if (args.privateUsers && input.overlay) {
    throw new TspodError(
      'usage',
      'cannot use both overlay and user namespace: not implemented yet. (Try --no-overlay)',
    );
  }
  const parts =
    input.podManifest === undefined
      ? partsFromFlags(input)
      : partsFromManifest(input, input.podManifest);
  return { uuid, options, ...joinParts(input, parts), ...volumeImages(input) };
}

function volumeImages({ volumeImages: images, layerTree }: AssembleInput) {
  if (images === undefined || images.size === 0) return {};
  return {
    volumeImages: new Map(
      [...images].map(([name, image]) => [
        name,
        {
          image: imageUse(image),
          layers: image.record.layers.map(({ diffId }) => layerTree(diffId)),
        },
      ]),
    ),
  };
}

/** The surroundings of a pod, which `run-prepared` says anew. @throws TspodError 'usage' */
export function runtimeOptions(
  context: Context,
  args: NetworkArgs,
  more: {
    readonly finish: readonly string[] | undefined;
    readonly privateUsers: boolean;
    readonly noOverlay: boolean;
    readonly stage1: RuntimeOptions['stage1'];
    readonly vm: RuntimeOptions['vm'];
  },
): RuntimeOptions {
  const { hostname, ipc, net } = args;
  if (
    hostname !== undefined &&
    hostname !== '' &&
    !/^(?=.{1,64}$)[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$/.test(
      hostname,
    )
  ) {
    throw new TspodError('usage', `--hostname=${hostname.slice(0, 100)}: it is not a host name`);
  }
  if (ipc !== undefined && ipc !== '' && ipc !== 'auto' && ipc !== 'private' && ipc !== 'parent') {
    throw new TspodError('usage', `--ipc=${ipc.slice(0, 100)}: it must be auto, private or parent`);
  }
  return {
    ...(hostname === undefined || hostname === '' ? {} : { hostname }),
    dns: parseDns({
      servers: args.dns,
      search: args.dnsSearch,
      options: args.dnsOpt,
      domain: args.dnsDomain ?? '',
    }),
    hosts: parseHosts(args.hostsEntry),
    ...(net === undefined ? {} : { net }),
    ...(ipc === undefined || ipc === '' ? {} : { ipc }),
    interactive: args.interactive,
    privateUsers: more.privateUsers,
    mdsRegister: args.mdsRegister,
    ...(more.noOverlay ? { noOverlay: true } : {}),
    ...(more.stage1 === undefined ? {} : { stage1: more.stage1 }),
    ...(more.vm === undefined ? {} : { vm: more.vm }),
    insecure: {
      capabilities: context.insecure.has('capabilities'),
      paths: context.insecure.has('paths'),
      seccomp: context.insecure.has('seccomp'),
    },
    ...(more.finish === undefined ? {} : { finish: more.finish }),
    program: context.program === 'rkt' ? context.command : 'tspod',
    debug: context.debug,
  };
}

/** What of it the last part of the assembly needs. */
export type JoinInput = Pick<AssembleInput, 'context' | 'overlay' | 'layerTree'>;

/** Apps with the image of each, before volumes are placed. */
export interface Parts {
  readonly manifest: PodManifest;
  readonly images: ReadonlyMap<string, StoredImage>;
}

function partsFromFlags({ args, context, images }: AssembleInput): Parts {
  if (images.length === 0 && args.sandbox === undefined) {
    throw new TspodError('usage', 'must provide at least one image or specify the pod manifest');
  }
  const environment = sharedEnvironment(args, context.command === 'prepare');
  const apps: RuntimeApp[] = [];
  const byApp = new Map<string, StoredImage>();
  const everywhere = args.mounts.map(parseMount);
  for (const image of images) {
    const app = appFromFlags(image, image.args, environment, everywhere);
    if (byApp.has(app.name)) {
      throw new TspodError('pod', `multiple apps with name ${app.name}`, {
        hint: 'give each a name of its own with --name',
      });
    }
    byApp.set(app.name, image);
    apps.push(app);
  }
  const exposed = [
    ...args.ports.map(text => exposedPort(text, apps)),
    ...(args.sandbox?.ports ?? []).map(sandboxPort),
  ];
  return {
    manifest: {
      acVersion: APPC_VERSION,
      acKind: 'PodManifest',
      apps: withPorts(
        apps,
        exposed.map(({ name }) => name),
      ),
      volumes: volumesOf(args.volumes),
      isolators: [],
      annotations: [
        ...supervisionAnnotations(args),
        ...(args.sandbox === undefined ? [] : sandboxAnnotations(args.sandbox)),
      ],
      ports: exposed,
      ...texts('userAnnotations', args.sandbox?.userAnnotations ?? [], 'user-annotation'),
      ...texts('userLabels', args.sandbox?.userLabels ?? [], 'user-label'),
    },
    images: byApp,
  };
}

function supervisionAnnotations({ exitPolicy, stopTimeout }: PodArgs): readonly NameValue[] {
  const found: NameValue[] = [];
  if (exitPolicy !== undefined) {
    const value = oneOf(exitPolicy, EXIT_POLICIES, '--exit-policy');
    found.push({ name: EXIT_POLICY_ANNOTATION, value });
  }
  if (stopTimeout !== undefined) {
    const value = String(parseSeconds(stopTimeout, '--stop-timeout'));
    found.push({ name: STOP_TIMEOUT_ANNOTATION, value });
  }
  return found;
}

function sandboxAnnotations(sandbox: SandboxArgs): readonly NameValue[] {
  return [{ name: MUTABLE_ANNOTATION, value: 'true' }, ...sandbox.annotations.map(annotation)];
}

function volumesOf(flags: readonly string[]): readonly Volume[] {
  const byName = new Map<string, Volume>();
  for (const flag of flags) {
    const volume = parseVolume(flag);
    if (byName.has(volume.name)) {
      throw new TspodError('pod', `--volume: there is more than one volume "${volume.name}"`);
    }
    byName.set(volume.name, volume);
  }
  return [...byName.values()];
}

/** `80`, `53-udp`: a port that no image has to name. */
const NUMBERED_PORT = /^([0-9]{1,5})(?:-(tcp|udp|sctp))?$/;

/**
 * `NAME:[HOSTIP:]HOSTPORT`, where NAME may be a number (of a TCP port, or with its protocol), whether an image names
 * that port or not; an IPv6 address stands in brackets.
 */
function exposedPort(text: string, apps: readonly RuntimeApp[]): ExposedPort {
  const match = /^([^:]+):(?:(\[[0-9a-fA-F:.]+\]|[0-9.]+):)?([0-9]{1,5})$/.exec(text);
  const [, given = '', ip, digits = ''] = match ?? [];
  const ports = apps.flatMap(({ app }) => app?.ports ?? []);
  const numbered = ports.find(({ port, protocol }) => String(port) === given && protocol === 'tcp');
  const [, number, protocol = 'tcp'] = NUMBERED_PORT.exec(given) ?? [];
  const unnamed =
    number !== undefined && inRange(Number(number)) ? `${Number(number)}-${protocol}` : given;
  const name = ports.some(port => port.name === given) ? given : (numbered?.name ?? unnamed);
  const hostPort = Number(digits);
  if (match === null || !isAcName(name) || !inRange(hostPort)) {
    throw new TspodError(
      'usage',
      `--port=${text.slice(0, 100)}: it must be NAME:[HOSTIP:]HOSTPORT`,
    );
  }
  if (name === given && !NUMBERED_PORT.test(name) && !ports.some(port => port.name === name)) {
    throw new TspodError('pod', `--port=${text}: no app has a port "${name}"`);
  }
  return { name, hostPort, ...(ip === undefined ? {} : { hostIP: ip.replace(/^\[|\]$/g, '') }) };
}

/** rkt's form for apps that are yet to come; HOSTIP 0.0.0.0 or empty is every address, in brackets an IPv6 one. */
function sandboxPort(text: string): ExposedPort {
  const match =
    /^([^:]+):(tcp|udp|sctp):([0-9]{1,5}):(\[[0-9a-fA-F:.]+\]|[0-9.]*):([0-9]{1,5})$/.exec(text);
  const [, name = '', protocol = '', pod = '', ip = '', host = ''] = match ?? [];
  if (match === null || !isAcName(name) || !inRange(Number(pod)) || !inRange(Number(host))) {
    throw new TspodError(
      'usage',
      `--port=${text.slice(0, 100)}: it must be NAME:PROTOCOL:PODPORT:HOSTIP:HOSTPORT`,
    );
  }
  return {
    name,
    hostPort: Number(host),
    ...(ip === '' ? {} : { hostIP: ip.replace(/^\[|\]$/g, '') }),
    podPort: { name, protocol, port: Number(pod) },
  };
}

function inRange(port: number): boolean {
  return port >= 1 && port <= 65_535;
}

/** With those of `names` that no app has: the apps of a pod share its addresses, so the first may have them. */
function withPorts(apps: readonly RuntimeApp[], names: readonly string[]): readonly RuntimeApp[] {
  const known = new Set(apps.flatMap(({ app }) => app?.ports ?? []).map(({ name }) => name));
  const added = [...new Set(names)].flatMap(name => {
    const [, number, protocol = 'tcp'] = NUMBERED_PORT.exec(name) ?? [];
    return number === undefined || known.has(name)
      ? []
      : [{ name, protocol, port: Number(number) }];
  });
  const [first, ...others] = apps;
  if (first?.app === undefined || added.length === 0) return apps;
  return [
    { ...first, app: { ...first.app, ports: [...(first.app.ports ?? []), ...added] } },
    ...others,
  ];
}

function partsFromManifest(
  { args, context, findImage }: AssembleInput,
  manifest: PodManifest,
): Parts {
  if (
    [args.images, args.volumes, args.mounts, args.ports, args.setEnv, args.setEnvFile].some(
      list => list.length > 0,
    ) ||
    args.inheritEnv
  ) {
    throw new TspodError('usage', 'conflicting flags set with --pod-manifest (see --help)');
  }
  const environment = sharedEnvironment(args, context.command === 'prepare');
  const images = new Map<string, StoredImage>();
  const apps = manifest.apps.map(runtimeApp => {
    const id = fromAppcHash(runtimeApp.image.id);
    const image = id === undefined ? undefined : findImage(id);
    if (image === undefined) {
      throw new TspodError(
        'not-found',
        `pod manifest: image ${runtimeApp.image.id.slice(0, 150)} of app "${runtimeApp.name}" is not in the store`,
        {
          hint: 'fetch it first',
        },
      );
    }
    images.set(runtimeApp.name, image);
    return appFromManifest(runtimeApp, image, environment);
  });
  return { manifest: { ...manifest, apps }, images };
}

/** @throws TspodError 'limit', or 'pod' naming the field */
export function readPodManifest(file: string): PodManifest {
  try {
    const bytes = readFileSync(file);
    if (bytes.length <= POD_MANIFEST_MAX_BYTES) return parsePodManifest(bytes);
  } catch (error) {
    throw systemError(`--pod-manifest: can't read ${file}`, error);
  }
  throw new TspodError(
    'limit',
    `--pod-manifest: ${file} is over the limit of ${POD_MANIFEST_MAX_BYTES} bytes`,
  );
}

/**
 * Puts volumes into apps. An image's mount point without a volume: what the app writes there belongs to
 * the pod's own layer and starts with the image's content, which is what Docker's anonymous volumes
 * promise, so no volume is needed (stage1-flavors/volume-steps.ts). That of an ACI, whose image expects something
 * from outside there, becomes an empty volume, with rkt's warning; unless docker2aci made it of a Docker image.
 */
export function joinParts(input: JoinInput, parts: Parts): Pick<Pod, 'manifest' | 'apps'> {
  const volumes = parts.manifest.volumes.map(resolveSource);
  const runtimeApps: RuntimeApp[] = [];
  const placements: { app: RuntimeApp; image: StoredImage }[] = [];
  for (const runtimeApp of parts.manifest.apps) {
    const image = parts.images.get(runtimeApp.name);
    if (image === undefined || runtimeApp.app === undefined) continue;
    const mounts: Mount[] = [...(runtimeApp.mounts ?? [])];
    const { missing } = placeVolumes(volumes, mounts, runtimeApp.app.mountPoints ?? []);
    const needed = image.appc !== undefined && !isConverted(image.appc);
    for (const point of needed ? missing : []) {
      warn(
        input.context,
        `no volume specified for mount point "${point.name}", implicitly creating an "empty" volume. This volume will be removed when the pod is garbage-collected.`,
      );
      const name = freeName(`${runtimeApp.name}-${point.name}`, volumes);
      volumes.push({ name, kind: 'empty', mode: '0755', uid: 0, gid: 0 });
      mounts.push({ volume: name, path: point.path });
    }
    const app = { ...runtimeApp, mounts };
    runtimeApps.push(app);
    placements.push({ app, image });
  }
  const apps = placements.map(({ app, image }): PodApp => {
    if (app.app === undefined)
      throw new TspodError('pod', `app "${app.name}": it has no app section`);
    return {
      name: app.name,
      image: imageUse(image),
      app: app.app,
      root: appRoot(app.name),
      rootfs: rootFs(app.name, image.record, input),
      readOnlyRootFs: app.readOnlyRootFS ?? false,
      mounts: placeVolumes(volumes, app.mounts ?? [], app.app.mountPoints ?? []).placed,
    };
  });
  return { manifest: { ...parts.manifest, apps: runtimeApps, volumes }, apps };
}

/** By rkt's sign of docker2aci. */
function isConverted({ annotations }: AppcImageManifest): boolean {
  return annotations.some(({ name }) => name === 'appc.io/docker/repository');
}

function freeName(stem: string, volumes: readonly Volume[]): string {
  const short = stem.slice(0, 120).replace(/-+$/, '');
  let name = short;
  for (let n = 2; volumes.some(volume => volume.name === name); n++) name = `${short}-${n}`;
  return name;
}

function imageUse({
  record,
  name,
}: {
  readonly record: ImageRecord;
  readonly name: string;
}): PodApp['image'] {
  return {
    id: record.id,
    manifestDigest: record.manifestDigest,
    name,
    layers: record.layers.map(({ diffId }) => diffId),
    verdict: record.verdict,
  };
}

function rootFs(app: string, record: ImageRecord, { overlay, layerTree }: JoinInput): RootFs {
  const layers = record.layers.map(({ diffId }) => layerTree(diffId));
  // An image of no layers (FROM scratch, nothing added) has nothing to lay over.
  if (!overlay || layers.length === 0) return { kind: 'copy', layers };
  return { kind: 'overlay', layers, upper: `overlay/${app}/upper`, work: `overlay/${app}/work` };
}
