/**
 * A Kubernetes Pod (API reference, core/v1) as the arguments that say the same to tspod. Whatever of it tspod can't
 * honour is refused by its field's name; docs/kubernetes.md lists what is.
 */
import { readFileSync } from 'node:fs';
import '../hot.ts';
import { systemError, TspodError } from '../../src/errors.ts';
import { isAcName } from '../../src/pod/names.ts';
import type { PodArgs, VolumeFile } from '../args/types.ts';
import { type KubeContainer, readContainer, readOnlyName } from './containers.ts';
import type { PodFields } from './environment.ts';
import { type DataObject, readObject, refuseTwice } from './objects.ts';
import { type KubeVolume, readVolume } from './volumes.ts';
import { readYaml, type YamlReader } from './yaml-reader.ts';

/** Kubernetes' own default. */
const GRACE_SECONDS = 30;
const STDIN = '-';

/**
 * @param file or `-` for standard input
 * @returns `args` with everything of the pod in it; what the command line says about the pod as a whole comes first
 * @throws TspodError 'pod' that names the field and its line
 */
export function readPodFile(file: string, args: PodArgs): PodArgs {
  let bytes: Buffer;
  try {
    bytes = readFileSync(file === STDIN ? 0 : file);
  } catch (error) {
    throw systemError(`--pod: can't read ${file === STDIN ? 'standard input' : file}`, error);
  }
  return podFromYaml(bytes, file === STDIN ? 'standard input' : file, args);
}

export function podFromYaml(bytes: Uint8Array, what: string, args: PodArgs): PodArgs {
  const documents = readYaml(bytes, what);
  const pods: YamlReader[] = [];
  const objects: DataObject[] = [];
  for (const document of documents) {
    document.get('apiVersion').oneOf(['v1'], 'v1');
    const kind = document.get('kind').oneOf(['Pod', 'ConfigMap', 'Secret'], 'Pod');
    if (kind === 'Pod') pods.push(document);
    else objects.push(readObject(document, kind));
  }
  refuseTwice(objects, what);
  const [pod, another] = pods;
  if (pod === undefined) throw new TspodError('pod', `${what}: there is no Pod in it`);
  if (another !== undefined)
    throw another.get('kind').error('there is a second Pod', 'run them one by one');
  const made = podArgs(pod, objects, args);
  for (const document of documents) document.refuseUnread();
  return made;
}

function podArgs(pod: YamlReader, objects: readonly DataObject[], args: PodArgs): PodArgs {
  const fields = metadata(pod.get('metadata'));
  const spec = pod.get('spec');
  const restartPolicy = spec.get('restartPolicy').oneOf(['Always', 'OnFailure', 'Never'], 'Always');
  const restart = ({ Always: 'always', OnFailure: 'on-failure', Never: 'never' } as const)[
    restartPolicy
  ];
  const volumes = new Map(
    spec
      .get('volumes')
      .list()
      .map(reader => {
        const volume = readVolume(reader, objects, args.dryRun);
        return [volume.name, volume] as const;
      }),
  );
  const context = { objects, fields, volumes, security: spec.get('securityContext'), restart };
  const first = spec
    .get('initContainers')
    .list()
    .map(one => readContainer(one, context, true));
  const others = spec
    .get('containers')
    .list()
    .map(one => readContainer(one, context, false));
  if (others.length === 0) throw spec.get('containers').error('there is none');
  const containers = [...first, ...others];
  passOver(spec);
  const grace = spec.get('terminationGracePeriodSeconds').integerOr(GRACE_SECONDS, 0, 86_400);
  return {
    ...args,
    ...network(spec, args),
    images: containers.map(({ image }) => image),
    volumes: volumeFlags(volumes, containers),
    volumeFiles: new Map(
      [...volumes.values()].flatMap(({ kind, name, files }): [string, readonly VolumeFile[]][] =>
        kind === 'files' ? [[name, files]] : [],
      ),
    ),
    ports: containers.flatMap(({ ports }) => ports),
    pullPolicy: pullPolicy(spec, containers, args),
    exitPolicy: args.exitPolicy ?? 'all',
    stopTimeout: args.stopTimeout ?? String(grace),
    podName: args.podName ?? fields.name,
  };
}

function metadata(reader: YamlReader): PodFields {
  const name = reader.get('name');
  if (!isAcName(name.nonEmpty()))
    throw name.error('it is not a name of lower-case letters, digits and single dashes');
  for (const key of ['creationTimestamp', 'uid', 'resourceVersion']) reader.get(key).passed();
  return {
    name: name.text(),
    namespace: reader.get('namespace').textOr('default'),
    labels: reader.get('labels').textMap(),
    annotations: reader.get('annotations').textMap(),
  };
}

/** What is a cluster's affair, or already so. Anything else in these fields is refused. */
function passOver(spec: YamlReader): void {
  spec.get('enableServiceLinks').boolOr(true);
  spec.get('serviceAccountName').oneOf(['', 'default'], '');
  const token = spec.get('automountServiceAccountToken');
  if (token.boolOr(false)) throw token.error('there is no cluster that could give one');
  for (const key of ['hostPID', 'hostIPC', 'shareProcessNamespace']) {
    const field = spec.get(key);
    // The processes of a pod under nspawn are in one namespace, each app sees the others'.
    if (field.boolOr(false) && key !== 'shareProcessNamespace')
      throw field.error('a pod has its own');
  }
}

function network(spec: YamlReader, args: PodArgs): Partial<PodArgs> {
  const hostname = spec.get('hostname').textOr('');
  const isHost = spec.get('hostNetwork').boolOr(false);
  const policy = spec
    .get('dnsPolicy')
    .oneOf(['ClusterFirst', 'ClusterFirstWithHostNet', 'Default', 'None'], 'ClusterFirst');
  const config = spec.get('dnsConfig');
  const servers = config.get('nameservers').texts();
  const options = config
    .get('options')
    .list()
    .map(option => {
      const name = option.get('name').nonEmpty();
      const value = option.get('value').textOr('');
      return value === '' ? name : `${name}:${value}`;
    });
  if (policy === 'None' && servers.length === 0)
    throw spec.get('dnsPolicy').error('None needs name servers', 'give dnsConfig.nameservers');
  const aliases = spec
    .get('hostAliases')
    .list()
    .flatMap(alias => {
      const ip = alias.get('ip').nonEmpty();
      return alias
        .get('hostnames')
        .texts()
        .map(name => `${ip}=${name}`);
    });
  return {
    ...(hostname === '' || args.hostname !== undefined ? {} : { hostname }),
    ...(isHost && args.net === undefined ? { net: 'host' } : {}),
    dns: args.dns.length > 0 ? args.dns : servers,
    dnsSearch: args.dnsSearch.length > 0 ? args.dnsSearch : config.get('searches').texts(),
    dnsOpt: args.dnsOpt.length > 0 ? args.dnsOpt : options,
    hostsEntry: [...aliases, ...args.hostsEntry],
  };
}

function pullPolicy(spec: YamlReader, containers: readonly KubeContainer[], args: PodArgs) {
  const policies = [...new Set(containers.map(one => one.pullPolicy))];
  const [policy = args.pullPolicy, ...others] = policies;
  if (others.length === 0) return policy;
  throw spec
    .get('containers')
    .error(
      'their images are to be pulled by different rules',
      'give all of them one imagePullPolicy',
    );
}

function volumeFlags(
  volumes: ReadonlyMap<string, KubeVolume>,
  containers: readonly KubeContainer[],
): readonly string[] {
  const mounted = containers.flatMap(one => one.mounted);
  return [...volumes.values()].flatMap(volume => {
    const uses = mounted.filter(one => one.volume === volume);
    if (volume.kind === 'memory' && uses.length > 1)
      throw volume.reader.error('memory is shared by no two containers here', 'leave medium out');
    return [
      `${volume.name},${volume.words}`,
      ...(uses.some(({ readOnly }) => readOnly)
        ? [`${readOnlyName(volume.name)},${volume.words},readOnly=true`]
        : []),
    ];
  });
}
