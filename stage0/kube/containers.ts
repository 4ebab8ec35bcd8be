/** One container of a Kubernetes pod, as the image and flags that say the same to tspod. */
import { CAPABILITY_NAMES, capabilityNames } from '../../src/pod/capabilities.ts';
import { DEFAULT_CAPABILITIES } from '../../stage1-flavors/nspawn/isolation.ts';
import type { AppFlags, ImageArgs } from '../args/types.ts';
import { expand, type PodFields, readEnvironment } from './environment.ts';
import type { DataObject } from './objects.ts';
import { readProbes } from './probes.ts';
import type { KubeVolume } from './volumes.ts';
import type { YamlReader } from './yaml-reader.ts';

const MAX_ID = 0xff_ff_ff_fe;
const MAX_PORT = 65_535;
/** Of a whole CPU, in cgroup v1's weights. */
const SHARES_PER_CPU = 1024;
const LEAST_SHARES = 2;

export interface PodContext {
  readonly objects: readonly DataObject[];
  readonly fields: PodFields;
  readonly volumes: ReadonlyMap<string, KubeVolume>;
  /** The pod's own securityContext. */
  readonly security: YamlReader;
  readonly restart: 'always' | 'on-failure' | 'never';
}

export interface KubeContainer {
  readonly name: string;
  readonly image: ImageArgs;
  /** As `--port`. */
  readonly ports: readonly string[];
  readonly pullPolicy: 'new' | 'update' | 'never';
  /** Volumes that it mounts, with another `--volume` where it wants them read-only. */
  readonly mounted: readonly { readonly volume: KubeVolume; readonly readOnly: boolean }[];
}

export function readContainer(
  reader: YamlReader,
  pod: PodContext,
  isFirst: boolean,
): KubeContainer {
  const name = reader.get('name').nonEmpty();
  const image = reader.get('image').nonEmpty();
  const variables = readEnvironment(reader, pod.objects, pod.fields);
  const words = (key: string) =>
    reader
      .get(key)
      .texts()
      .map(text => expand(text, variables));
  const command = words('command');
  const args = words('args');
  const [exec, ...rest] = command;
  const mounts = readMounts(reader, pod.volumes);
  // Where they go, and with what end, is the host's affair.
  reader.get('terminationMessagePath').textOr('');
  reader.get('terminationMessagePolicy').textOr('');
  for (const key of ['stdin', 'tty', 'stdinOnce']) {
    if (reader.get(key).boolOr(false)) throw reader.get(key).error('it is not in this version');
  }
  const probes = readProbes(reader);
  if (isFirst && probes.length > 0) throw reader.error('what runs first is not probed');
  const flags: AppFlags = {
    name,
    ...(exec === undefined ? {} : { exec }),
    // Without a command the image's own is kept, and its arguments go where others are given.
    ...(exec === undefined && args.length > 0 ? { withoutArguments: true } : {}),
    mounts: mounts.map(({ flag }) => flag),
    ...workingDir(reader),
    environment: [...variables].map(([key, value]) => `${key}=${value}`),
    annotations: [],
    userAnnotations: [...pod.fields.annotations].map(([key, value]) => `${key}=${value}`),
    userLabels: [...pod.fields.labels].map(([key, value]) => `${key}=${value}`),
    rlimits: [],
    ...(isFirst ? { first: true } : {}),
    ...(probes.length === 0 ? {} : { probes: JSON.stringify(probes) }),
    restart: isFirst && pod.restart === 'always' ? 'on-failure' : pod.restart,
    ...resources(reader.get('resources')),
    ...security(reader.get('securityContext'), pod.security),
  };
  return {
    name,
    image: { reference: referenceOf(image), flags, appArgs: [...rest, ...args] },
    ports: ports(reader.get('ports')),
    pullPolicy: pullPolicy(reader.get('imagePullPolicy'), image),
    mounted: mounts,
  };
}

/** Kubernetes means a registry's name; what says where it is otherwise is left as it is. */
function referenceOf(image: string): string {
  return /^[a-z0-9+-]+:\/\/|^(?:oci|oci-archive|docker-archive):|^sha(?:256|512)[:-]/.test(image)
    ? image
    : `docker://${image}`;
}

function pullPolicy(reader: YamlReader, image: string): KubeContainer['pullPolicy'] {
  const isLatest = image.endsWith(':latest') || !/[:@][^/]*$/.test(image);
  switch (reader.oneOf(['Always', 'IfNotPresent', 'Never'], isLatest ? 'Always' : 'IfNotPresent')) {
    case 'Always':
      return 'update';
    case 'IfNotPresent':
      return 'new';
    case 'Never':
      return 'never';
  }
}

function workingDir(reader: YamlReader): Pick<AppFlags, 'workingDir'> {
  const text = reader.get('workingDir').textOr('');
  return text === '' ? {} : { workingDir: text };
}

function readMounts(reader: YamlReader, volumes: ReadonlyMap<string, KubeVolume>) {
  return reader
    .get('volumeMounts')
    .list()
    .map(mount => {
      const named = mount.get('name');
      const volume = volumes.get(named.nonEmpty());
      if (volume === undefined) throw named.error('the pod has no such volume');
      const path = mount.get('mountPath');
      const target = path.nonEmpty();
      if (target.includes(',')) throw path.error('it has a comma');
      mount.get('mountPropagation').oneOf(['None'], 'None');
      const readOnly = mount.get('readOnly').boolOr(false) && volume.kind !== 'files';
      if (readOnly && volume.kind !== 'host') {
        throw mount.get('readOnly').error('what the pod shares is writable for all or for none');
      }
      return {
        volume,
        readOnly,
        flag: `volume=${readOnly ? readOnlyName(volume.name) : volume.name},target=${target}`,
      };
    });
}

/** A volume is read-only in appc, not a mount of it. */
export function readOnlyName(volume: string): string {
  return `${volume}-read-only`;
}

function ports(reader: YamlReader): readonly string[] {
  return reader.list().flatMap(port => {
    const number = port.get('containerPort').integerOr(undefined, 1, MAX_PORT);
    if (number === undefined) throw port.get('containerPort').error('it is missing');
    port.get('name').textOr('');
    const protocol = port.get('protocol').oneOf(['TCP', 'UDP', 'SCTP'], 'TCP').toLowerCase();
    const hostPort = port.get('hostPort').integerOr(undefined, 1, MAX_PORT);
    const ip = port.get('hostIP').textOr('');
    if (hostPort === undefined) return [];
    const where = ip === '' ? '' : `${ip.includes(':') ? `[${ip}]` : ip}:`;
    return [`${number}-${protocol}:${where}${hostPort}`];
  });
}

function resources(reader: YamlReader): Pick<AppFlags, 'memory' | 'cpu' | 'cpuShares'> {
  const limits = reader.get('limits');
  const memory = limits.get('memory').quantityOr(undefined);
  const cpu = limits.get('cpu').quantityOr(undefined);
  const requests = reader.get('requests');
  // What is asked for is there or not: nobody else shares the host by tspod's leave.
  requests.get('memory').quantityOr(undefined);
  const asked = requests.get('cpu');
  return {
    ...(memory === undefined ? {} : { memory }),
    ...(cpu === undefined ? {} : { cpu }),
    ...(asked.isAbsent ? {} : { cpuShares: String(shares(asked)) }),
  };
}

function shares(reader: YamlReader): number {
  const [, number, milli] = /^([0-9]{1,6}(?:\.[0-9]{1,3})?)(m?)$/.exec(reader.quantityOr('')) ?? [];
  if (number === undefined) throw reader.error('it is not a number of CPUs, as 2, 0.5 or 500m');
  const cpus = Number(number) / (milli === 'm' ? 1000 : 1);
  return Math.max(LEAST_SHARES, Math.round(cpus * SHARES_PER_CPU));
}

type Rights = Pick<
  AppFlags,
  | 'user'
  | 'group'
  | 'supplementaryGids'
  | 'readonlyRootfs'
  | 'noNewPrivileges'
  | 'capsRetain'
  | 'capsRemove'
  | 'seccomp'
>;

function security(own: YamlReader, ofPod: YamlReader): Rights {
  const either = (key: string) => (own.get(key).isAbsent ? ofPod.get(key) : own.get(key));
  const user = either('runAsUser').integerOr(undefined, 0, MAX_ID);
  const group = either('runAsGroup').integerOr(undefined, 0, MAX_ID);
  const nonRoot = either('runAsNonRoot');
  if (nonRoot.boolOr(false)) {
    if (user === undefined)
      throw nonRoot.error('it can only be kept with runAsUser', 'give runAsUser');
    if (user === 0) throw nonRoot.error('runAsUser is 0');
  }
  if (own.get('privileged').boolOr(false))
    throw own.get('privileged').error('no pod has all rights');
  own.get('procMount').oneOf(['Default'], 'Default');
  const fsGroup = ofPod.get('fsGroup').integerOr(undefined, 0, MAX_ID);
  ofPod.get('fsGroupChangePolicy').textOr('');
  const gids = [
    ...ofPod
      .get('supplementalGroups')
      .list()
      .map(one => one.integerOr(0, 0, MAX_ID)),
    ...(fsGroup === undefined ? [] : [fsGroup]),
  ];
  return {
    ...(user === undefined ? {} : { user: String(user) }),
    ...(group === undefined ? {} : { group: String(group) }),
    ...(gids.length === 0 ? {} : { supplementaryGids: gids.join(',') }),
    readonlyRootfs: own.get('readOnlyRootFilesystem').boolOr(false),
    noNewPrivileges: !own.get('allowPrivilegeEscalation').boolOr(true),
    ...capabilities(own.get('capabilities')),
    ...seccomp(either('seccompProfile')),
  };
}

function capabilities(reader: YamlReader): Pick<Rights, 'capsRetain' | 'capsRemove'> {
  const names = (key: string) => {
    const field = reader.get(key);
    const texts = field.texts();
    if (texts.some(text => text.toUpperCase() === 'ALL')) return CAPABILITY_NAMES;
    return texts.length === 0 ? [] : capabilityNames(texts, field.name);
  };
  const add = names('add');
  const drop = names('drop');
  if (add.length === 0 && drop.length === 0) return { capsRetain: [], capsRemove: [] };
  // As the runtimes: what is dropped of the default set, then what is added.
  const kept = DEFAULT_CAPABILITIES.filter(name => !drop.includes(name));
  const retain = [...new Set([...kept, ...add])];
  if (retain.length > 0) return { capsRetain: retain, capsRemove: [] };
  return { capsRetain: [], capsRemove: CAPABILITY_NAMES };
}

function seccomp(reader: YamlReader): Pick<Rights, 'seccomp'> {
  if (reader.isAbsent) return {};
  switch (reader.get('type').oneOf(['RuntimeDefault', 'Unconfined'], 'RuntimeDefault')) {
    case 'RuntimeDefault':
      return {};
    case 'Unconfined':
      return { seccomp: 'mode=retain,@appc.io/all' };
  }
}
