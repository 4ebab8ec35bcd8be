/** From the tokens of `run`, `prepare` and `run-prepared` to their typed arguments. */
import { TspodError } from '../../src/errors.ts';
import type { FlagValues } from './flags.ts';
import type { ImageTokens } from './tokenizer.ts';
import type {
  AppFlags,
  ImageArgs,
  NetworkArgs,
  PodArgs,
  PullPolicy,
  RunPreparedArgs,
  Stage1Args,
} from './types.ts';

/** A key with a value, or no key at all. */
type Given<K extends string> = { readonly [P in K]?: string };

function given<K extends string>(key: K, value: string | undefined): Given<K> {
  return value === undefined ? {} : ({ [key]: value } as { [P in K]: string });
}

/** @throws TspodError 'usage' for what contradicts itself; rkt's words */
export function podArgs(flags: FlagValues, images: readonly ImageTokens[]): PodArgs {
  const podManifest = flags.text('pod-manifest');
  const pod = flags.text('pod');
  if (podManifest === undefined && pod === undefined && images.length === 0) {
    throw new TspodError('usage', 'must provide at least one image or specify the pod manifest');
  }
  if (podManifest !== undefined || pod !== undefined) refuseBesideManifest(flags, images);
  if (podManifest !== undefined && pod !== undefined)
    throw new TspodError('usage', '--pod and --pod-manifest: give one of them');
  if (flags.bool('interactive') && images.length > 1) {
    throw new TspodError('usage', 'interactive option only supports one image');
  }
  return {
    ...networkArgs(flags),
    images: images.map(image => ({
      reference: image.reference,
      flags: appFlags(image.flags),
      appArgs: image.appArgs,
    })),
    stage1: stage1Args(flags),
    volumes: flags.list('volume'),
    mounts: flags.list('mount'),
    ports: flags.list('port'),
    inheritEnv: flags.bool('inherit-env'),
    setEnv: flags.list('set-env'),
    setEnvFile: flags.list('set-env-file'),
    noOverlay: flags.bool('no-overlay'),
    privateUsers: flags.bool('private-users'),
    pullPolicy: pullPolicy(flags),
    ...given('podManifest', podManifest),
    ...given('pod', pod),
    ...given('exitPolicy', flags.text('exit-policy')),
    ...given('stopTimeout', flags.text('stop-timeout')),
    ...given('uuidFileSave', flags.text('uuid-file-save')),
    ...given('podName', flags.text('pod-name')),
    dryRun: flags.bool('dry-run'),
    rm: flags.bool('rm'),
    ...given('result', flags.text('result')),
    quiet: flags.bool('quiet'),
  };
}

export function runPreparedArgs(flags: FlagValues, pod: string): RunPreparedArgs {
  return {
    ...networkArgs(flags),
    pod,
    rm: flags.bool('rm'),
    ...given('result', flags.text('result')),
    dryRun: flags.bool('dry-run'),
  };
}

/** @throws TspodError 'usage' */
export function pullPolicy(flags: FlagValues): PullPolicy {
  // rkt's deprecated aliases.
  if (flags.bool('store-only')) return 'never';
  if (flags.bool('no-store')) return 'update';
  const text = flags.text('pull-policy');
  if (text === 'new' || text === 'update' || text === 'never') return text;
  throw new TspodError('usage', `--pull-policy: ${JSON.stringify(text)} is unknown`, {
    hint: 'give new, update or never',
  });
}

/** `app sandbox`: a pod without images. */
export function sandboxArgs(flags: FlagValues): PodArgs {
  return {
    ...networkArgs(flags),
    sandbox: {
      ports: flags.list('port'),
      annotations: flags.list('annotation'),
      userAnnotations: flags.list('user-annotation'),
      userLabels: flags.list('user-label'),
    },
    images: [],
    stage1: stage1Args(flags),
    volumes: [],
    mounts: [],
    ports: [],
    inheritEnv: false,
    setEnv: [],
    setEnvFile: [],
    noOverlay: flags.bool('no-overlay'),
    privateUsers: false,
    pullPolicy: 'never',
    ...given('uuidFileSave', flags.text('uuid-file-save')),
    ...given('podName', flags.text('pod-name')),
    dryRun: flags.bool('dry-run'),
    rm: flags.bool('rm'),
    ...given('result', flags.text('result')),
    quiet: false,
  };
}

/** `app add POD IMAGE [IMAGE FLAGS] [-- ARGS]`, read as two images. @throws TspodError 'usage' */
export function addedImage(images: readonly ImageTokens[]): { pod: string; image: ImageArgs } {
  const [pod, image, ...more] = images;
  if (pod === undefined || image === undefined || more.length > 0) {
    throw new TspodError('usage', 'add: must provide exactly one pod and one image');
  }
  if (!pod.flags.isEmpty || pod.appArgs.length > 0) {
    throw new TspodError('usage', 'add: flags and arguments of an app follow its image');
  }
  return {
    pod: pod.reference,
    image: { reference: image.reference, flags: appFlags(image.flags), appArgs: image.appArgs },
  };
}

function refuseBesideManifest(flags: FlagValues, images: readonly ImageTokens[]): void {
  const conflicting = [
    'volume',
    'mount',
    'port',
    'pull-policy',
    'store-only',
    'no-store',
    'inherit-env',
    'set-env',
    'set-env-file',
  ];
  if (images.length > 0 || conflicting.some(name => flags.has(name))) {
    throw new TspodError('usage', 'conflicting flags set with --pod-manifest (see --help)');
  }
}

function networkArgs(flags: FlagValues): NetworkArgs {
  return {
    ...given('net', flags.text('net')),
    dns: flags.list('dns'),
    dnsSearch: flags.list('dns-search'),
    dnsOpt: flags.list('dns-opt'),
    ...given('dnsDomain', flags.text('dns-domain')),
    hostsEntry: flags.list('hosts-entry'),
    ...given('hostname', flags.text('hostname')),
    ...given('ipc', flags.text('ipc')),
    interactive: flags.bool('interactive'),
    mdsRegister: flags.bool('mds-register'),
    vm: {
      ...given('memory', flags.text('vm-memory')),
      ...given('cpus', flags.text('vm-cpus')),
      ...given('diskSize', flags.text('disk-size')),
      ...given('accel', flags.text('qemu-accel')),
    },
  };
}

/** @throws TspodError 'usage' for more than one of them; rkt's words */
function stage1Args(flags: FlagValues): Stage1Args {
  const names = ['name', 'path', 'url', 'hash', 'from-dir'].map(name => `stage1-${name}`);
  const [first, second] = names.filter(name => flags.has(name));
  if (first !== undefined && second !== undefined) {
    throw new TspodError('usage', `flags --${first} and --${second} are mutually exclusive`);
  }
  if (first !== undefined && flags.list(first).length > 1)
    throw new TspodError('usage', `--${first} already used`);
  return {
    ...given('name', flags.text('stage1-name')),
    ...given('path', flags.text('stage1-path')),
    ...given('url', flags.text('stage1-url')),
    ...given('hash', flags.text('stage1-hash')),
    ...given('fromDir', flags.text('stage1-from-dir')),
  };
}

function appFlags(flags: FlagValues): AppFlags {
  if (flags.has('caps-retain') && flags.has('caps-remove')) {
    throw new TspodError('usage', 'flags --caps-retain and --caps-remove are mutually exclusive');
  }
  return {
    ...given('name', flags.text('name')),
    ...given('exec', flags.text('exec')),
    mounts: flags.list('mount'),
    ...given('user', flags.text('user')),
    ...given('group', flags.text('group')),
    ...given('supplementaryGids', flags.text('supplementary-gids')),
    ...given('workingDir', flags.text('working-dir')),
    readonlyRootfs: flags.bool('readonly-rootfs'),
    environment: flags.list('environment'),
    annotations: flags.list('annotation'),
    userAnnotations: flags.list('user-annotation'),
    userLabels: flags.list('user-label'),
    ...given('memory', flags.text('memory')),
    ...given('cpu', flags.text('cpu')),
    ...given('cpuShares', flags.text('cpu-shares')),
    ...given('pidsLimit', flags.text('pids-limit')),
    capsRetain: flags.list('caps-retain'),
    capsRemove: flags.list('caps-remove'),
    ...given('seccomp', flags.text('seccomp')),
    ...given('oomScoreAdj', flags.text('oom-score-adj')),
    rlimits: flags.list('rlimit'),
    noNewPrivileges: flags.bool('no-new-privileges'),
    ...given('signature', flags.text('signature')),
    ...given('restart', flags.text('restart')),
    ...given('stdin', flags.text('stdin')),
    ...given('stdout', flags.text('stdout')),
    ...given('stderr', flags.text('stderr')),
  };
}
