/** One app of a pod: its image's config with the flags after the image merged in, as rkt merges them. */

import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs';
import { systemError, TspodError } from '../src/errors.ts';
import type { App, Isolator, Mount, NameValue, RuntimeApp } from '../src/image/appc.ts';
import { type AppcImageManifest, checkAppcPlatform } from '../src/image/appc-manifest.ts';
import {
  appFromImageConfig,
  type ConvertedImage,
  isCleanAbsolute,
  MAX_ID,
  originAnnotations,
} from '../src/image/convert.ts';
import { toAppcHash } from '../src/image/digest.ts';
import type { ImageConfig, Raw } from '../src/image/oci.ts';
import {
  ENV_FILE_MAX_BYTES,
  mergeEnvironment,
  parseEnvFile,
  parseNameValue,
} from '../src/pod/environment.ts';
import {
  capabilitiesIsolator,
  cpuIsolator,
  cpuSharesIsolator,
  FROM_IMAGE_ANNOTATION,
  memoryIsolator,
  noNewPrivilegesIsolator,
  oomScoreAdjIsolator,
  overrideIsolators,
  pidsIsolator,
  readIsolation,
  rlimitsIsolator,
  seccompIsolator,
} from '../src/pod/isolators.ts';
import { whyBadAccount } from '../src/pod/manifest.ts';
import { appNameFromImage, isAcName } from '../src/pod/names.ts';
import { PROBES_ANNOTATION } from '../src/pod/probes.ts';
import { parseRlimit } from '../src/pod/rlimits.ts';
import { parseSeccompFlag } from '../src/pod/seccomp.ts';
import {
  INPUT_MODES,
  OUTPUT_MODES,
  STREAMS,
  type StreamName,
  streamAnnotation,
} from '../src/pod/streams.ts';
import { FIRST_ANNOTATION, oneOf, RESTART_ANNOTATION, RESTARTS } from '../src/pod/supervision.ts';
import { parseMount } from '../src/pod/volumes.ts';
import type { ImageRecord } from '../src/store/types.ts';
import { callerEnvironment } from '../src/sys/caller-env.ts';
import { isTerminal } from '../src/sys/terminal.ts';
import type { AppFlags, ImageArgs, PodArgs } from './args/types.ts';

export interface StoredImage {
  readonly record: ImageRecord;
  /** The name it was asked for by. */
  readonly name: string;
  readonly config: Raw<ImageConfig>;
  /** Of what came as an ACI; then it counts, not the config. */
  readonly appc: AppcImageManifest | undefined;
}

/**
 * Marks an app whose group is not named anywhere: its user's primary group and the groups that the
 * image's files list for him apply, as OCI says. appc has no word for it.
 */
export const GROUPS_ANNOTATION = 'tspod/groups';
export const GROUPS_OF_USER = 'of-user';

/** What `--set-env`, `--set-env-file` and `--inherit-env` give to every app. */
export interface SharedEnvironment {
  readonly files: readonly NameValue[];
  readonly set: readonly NameValue[];
  readonly inherited: NodeJS.ProcessEnv | undefined;
  readonly term: string | undefined;
}

/** @param later the app is started later, from another terminal */
export function sharedEnvironment(args: PodArgs, later: boolean): SharedEnvironment {
  return {
    files: args.setEnvFile.flatMap(file => parseEnvFile(readEnvFile(file), file)),
    set: args.setEnv.map(text => parseNameValue(text, 'set-env')),
    inherited: args.inheritEnv ? callerEnvironment(process.env) : undefined,
    term: !later && isTerminal(0) ? process.env.TERM : undefined,
  };
}

function readEnvFile(file: string): string {
  let fd: number | undefined;
  try {
    fd = openSync(file, 'r');
    const { size } = fstatSync(fd);
    if (size > ENV_FILE_MAX_BYTES) {
      throw new TspodError(
        'limit',
        `--set-env-file: ${file} is over the limit of ${ENV_FILE_MAX_BYTES} bytes`,
      );
    }
    return readFileSync(fd, 'utf8');
  } catch (error) {
    throw systemError(`--set-env-file: can't read ${file}`, error);
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

/** @throws TspodError that names the flag */
export function appFromFlags(
  image: StoredImage,
  { flags, appArgs }: ImageArgs,
  environment: SharedEnvironment,
  mountsOfAll: readonly Mount[],
): RuntimeApp {
  checkPlatform(image);
  const name = flags.name ?? appNameFromImage(image.appc?.name ?? image.name);
  if (!isAcName(name)) {
    throw new TspodError(
      'pod',
      `--name=${name.slice(0, 140)}: it is not a name of lower-case letters, digits and single dashes`,
    );
  }
  const converted = convertedImage(image);
  const base = converted.app;
  const asked = isolatorsOf(flags);
  const isolators = overrideIsolators(base.isolators ?? [], asked);
  readIsolation(isolators, `app "${name}"`);
  const app: App = {
    ...base,
    exec: execOf(
      flags.exec === undefined ? imageExec(image, base.exec, flags) : [flags.exec],
      appArgs,
      image.name,
    ),
    user: account(flags.user, 'user') ?? base.user,
    group: account(flags.group, 'group') ?? base.group,
    ...(flags.supplementaryGids === undefined
      ? {}
      : { supplementaryGIDs: gids(flags.supplementaryGids) }),
    ...(flags.workingDir === undefined ? {} : { workingDirectory: workingDir(flags.workingDir) }),
    environment: mergeEnvironment({
      image: base.environment ?? [],
      setEnvFiles: environment.files,
      setEnv: environment.set,
      environment: flags.environment.map(text => parseNameValue(text, 'environment')),
      inherited: environment.inherited,
      term: environment.term,
    }),
    isolators,
    ...texts('userAnnotations', flags.userAnnotations, 'user-annotation'),
    ...texts('userLabels', flags.userLabels, 'user-label'),
  };
  const groupNamed =
    flags.group !== undefined ||
    image.appc !== undefined ||
    !(converted.groupsOfUser || image.config.value.config.User === '');
  const annotations = [
    ...converted.annotations,
    ...flags.annotations.map(text => annotation(text)),
    ...(flags.restart === undefined
      ? []
      : [{ name: RESTART_ANNOTATION, value: oneOf(flags.restart, RESTARTS, '--restart') }]),
    ...(flags.probes === undefined ? [] : [{ name: PROBES_ANNOTATION, value: flags.probes }]),
    ...(flags.first ? [{ name: FIRST_ANNOTATION, value: 'true' }] : []),
    ...fromImage(isolators.filter(isolator => !asked.includes(isolator))),
    ...STREAMS.flatMap(stream => streamAnnotations(stream, flags[stream])),
    ...(groupNamed || isRoot(app.user) ? [] : [{ name: GROUPS_ANNOTATION, value: GROUPS_OF_USER }]),
  ];
  return {
    name,
    image: imageOf(image),
    app,
    ...(flags.readonlyRootfs ? { readOnlyRootFS: true } : {}),
    mounts: [...flags.mounts.map(parseMount), ...mountsOfAll],
    annotations,
  };
}

/** An ACI has no arguments that could be told from its command. */
function imageExec(
  { appc, config }: StoredImage,
  exec: readonly string[],
  { withoutArguments = false }: AppFlags,
): readonly string[] {
  if (!withoutArguments || appc !== undefined) return exec;
  return config.value.config.Entrypoint;
}

function streamAnnotations(stream: StreamName, mode: string | undefined): readonly NameValue[] {
  if (mode === undefined) return [];
  const modes = stream === 'stdin' ? INPUT_MODES : OUTPUT_MODES;
  return [{ name: streamAnnotation(stream), value: oneOf(mode, modes, `--${stream}`) }];
}

/** An ACI's app is what its manifest says, word for word; without one there is only what flags say. */
function convertedImage({ appc, config, name, record }: StoredImage): ConvertedImage {
  if (appc === undefined) {
    const converted = appFromImageConfig(config.value, name);
    const origin = originAnnotations(name, record.id);
    return { ...converted, annotations: [...converted.annotations, ...origin] };
  }
  return {
    app: appc.app ?? { exec: [], user: '0', group: '0' },
    groupsOfUser: false,
    annotations: appc.annotations.filter(({ name }) => !isOurs(name)),
  };
}

/** Annotations that a flavor takes for orders: an image has none to give (CVE-2026-53488). */
function isOurs(annotation: string): boolean {
  return ['tspod/', 'oci/', 'coreos.com/rkt/'].some(prefix => annotation.startsWith(prefix));
}

/** In the pod manifest: an ACI by its own id and labels, as rkt. */
function imageOf({ record, appc, name }: StoredImage): RuntimeApp['image'] {
  if (appc === undefined || record.appc === undefined) return { name, id: toAppcHash(record.id) };
  return {
    name: appc.name,
    id: toAppcHash(record.appc.id),
    ...(appc.labels.length === 0 ? {} : { labels: appc.labels }),
  };
}

/** @throws TspodError 'pod' */
export function appFromManifest(
  runtimeApp: RuntimeApp,
  image: StoredImage,
  environment: SharedEnvironment,
): RuntimeApp {
  checkPlatform(image);
  const converted = convertedImage(image);
  const base = runtimeApp.app ?? converted.app;
  const app: App = {
    ...base,
    exec: execOf(base.exec, [], image.name),
    environment: mergeEnvironment({
      image: base.environment ?? [],
      setEnvFiles: [],
      setEnv: [],
      environment: [],
      inherited: undefined,
      term: environment.term,
    }),
  };
  const ofUser = runtimeApp.app === undefined && converted.groupsOfUser;
  return {
    ...runtimeApp,
    image: { ...imageOf(image), ...runtimeApp.image },
    app,
    annotations: [
      ...(runtimeApp.annotations ?? []),
      ...(ofUser ? [{ name: GROUPS_ANNOTATION, value: GROUPS_OF_USER }] : []),
      ...(runtimeApp.app === undefined ? fromImage(base.isolators ?? []) : []),
    ],
  };
}

/** Whoever enforces isolators may have to know which ones nobody asked for. */
function fromImage(isolators: readonly Isolator[]): readonly NameValue[] {
  if (isolators.length === 0) return [];
  return [{ name: FROM_IMAGE_ANNOTATION, value: isolators.map(({ name }) => name).join(',') }];
}

function isRoot(user: string): boolean {
  return user === '0' || user === 'root';
}

const ARCHITECTURES: Readonly<Record<string, readonly string[]>> = {
  x64: ['amd64', '386'],
  arm64: ['arm64', 'arm'],
};

/** rkt's words for an image that is not for this machine. */
function checkPlatform({ name, config, appc }: StoredImage): void {
  if (appc !== undefined) {
    checkAppcPlatform(appc, name);
    return;
  }
  const { os, architecture } = config.value;
  const bad = (what: string, found: string, wanted: readonly string[]) =>
    new TspodError(
      'pod',
      `image ${name}: bad ${what} ${JSON.stringify(found.slice(0, 60))} (must be one of: ${wanted.join(', ')})`,
    );
  if (os !== 'linux') throw bad('os', os, ['linux']);
  const wanted = ARCHITECTURES[process.arch] ?? [process.arch];
  if (!wanted.includes(architecture)) throw bad('arch', architecture, wanted);
}

function execOf(
  exec: readonly string[],
  args: readonly string[],
  image: string,
): readonly string[] {
  const whole = [...exec, ...args];
  if (exec.length === 0 || whole[0] === '') {
    throw new TspodError(
      'pod',
      `image ${JSON.stringify(image)} has an empty "exec" (try --exec=BINARY)`,
    );
  }
  if (whole.some(word => word.includes('\0')))
    throw new TspodError('pod', `image ${image}: its exec has a NUL byte`);
  return whole;
}

function account(text: string | undefined, flag: string): string | undefined {
  const why = text === undefined ? undefined : whyBadAccount(text);
  if (why !== undefined) throw new TspodError('pod', `--${flag}: ${why}`);
  return text;
}

function gids(text: string): readonly number[] {
  return text.split(',').map(word => {
    if (/^[0-9]{1,10}$/.test(word) && Number(word) <= MAX_ID) return Number(word);
    throw new TspodError(
      'pod',
      `--supplementary-gids=${text.slice(0, 100)}: "${word.slice(0, 40)}" is not an id from 0 to ${MAX_ID}`,
    );
  });
}

function workingDir(path: string): string {
  if (isCleanAbsolute(path)) return path;
  throw new TspodError(
    'pod',
    `--working-dir=${path.slice(0, 200)}: it is not an absolute path without ".."`,
  );
}

function isolatorsOf(flags: AppFlags): readonly Isolator[] {
  if (flags.capsRetain.length > 0 && flags.capsRemove.length > 0) {
    throw new TspodError('usage', '--caps-retain and --caps-remove are mutually exclusive');
  }
  const names = (list: readonly string[]) => list.flatMap(text => text.split(','));
  return [
    ...(flags.memory === undefined ? [] : [memoryIsolator(flags.memory)]),
    ...(flags.cpu === undefined ? [] : [cpuIsolator(flags.cpu)]),
    ...(flags.cpuShares === undefined ? [] : [cpuSharesIsolator(flags.cpuShares)]),
    ...(flags.pidsLimit === undefined ? [] : [pidsIsolator(flags.pidsLimit)]),
    ...(flags.capsRetain.length === 0
      ? []
      : [capabilitiesIsolator('retain', names(flags.capsRetain))]),
    ...(flags.capsRemove.length === 0
      ? []
      : [capabilitiesIsolator('remove', names(flags.capsRemove))]),
    ...(flags.seccomp === undefined ? [] : [seccompIsolator(parseSeccompFlag(flags.seccomp))]),
    ...(flags.oomScoreAdj === undefined ? [] : [oomScoreAdjIsolator(flags.oomScoreAdj)]),
    ...(flags.noNewPrivileges ? [noNewPrivilegesIsolator(true)] : []),
    ...(flags.rlimits.length === 0 ? [] : [rlimitsIsolator(flags.rlimits.map(parseRlimit))]),
  ];
}

/** appc's "AC Identifier": what a name of an annotation is made of. */
export function annotation(text: string): NameValue {
  const pair = parseNameValue(text, 'annotation');
  if (!/^[a-z0-9]+(?:[-._~/][a-z0-9]+)*$/.test(pair.name)) {
    throw new TspodError(
      'pod',
      `--annotation=${text.slice(0, 100)}: "${pair.name}" is not an annotation's name`,
    );
  }
  return pair;
}

/** `K=V` pairs as one map, left out when there is none. */
export function texts<K extends 'userAnnotations' | 'userLabels'>(
  key: K,
  list: readonly string[],
  flag: string,
): Partial<Record<K, Readonly<Record<string, string>>>> {
  const part: Partial<Record<K, Readonly<Record<string, string>>>> = {};
  if (list.length === 0) return part;
  part[key] = Object.fromEntries(
    list.map(text => {
      const { name, value } = parseNameValue(text, flag);
      return [name, value];
    }),
  );
  return part;
}
