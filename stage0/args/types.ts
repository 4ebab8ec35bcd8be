/**
 * What the tokeniser makes of the words after `run`, `prepare` and `run-prepared`: which flag belongs to
 * which image, with flags' own types checked. The grammars of values (volumes, isolators, DNS) are read by
 * the assembly of the pod, stage0/assemble.ts, which knows what they are for.
 */

/** Flags that bind to the image before them. Absent scalars were not given; lists are in order. */
export interface AppFlags {
  readonly name?: string;
  /** Replaces the image's whole exec vector. */
  readonly exec?: string;
  /** `volume=NAME,target=PATH`, as typed. */
  readonly mounts: readonly string[];
  readonly user?: string;
  readonly group?: string;
  /** `1024,2048`, as typed. */
  readonly supplementaryGids?: string;
  readonly workingDir?: string;
  readonly readonlyRootfs: boolean;
  /** `K=V`, as typed; likewise the next three. */
  readonly environment: readonly string[];
  readonly annotations: readonly string[];
  readonly userAnnotations: readonly string[];
  readonly userLabels: readonly string[];
  readonly memory?: string;
  readonly cpu?: string;
  readonly cpuShares?: string;
  readonly pidsLimit?: string;
  readonly capsRetain: readonly string[];
  readonly capsRemove: readonly string[];
  readonly seccomp?: string;
  readonly oomScoreAdj?: string;
  /** Beyond rkt: `NAME=SOFT[:HARD]`. */
  readonly rlimits: readonly string[];
  /** Beyond rkt. */
  readonly noNewPrivileges: boolean;
  readonly signature?: string;
  /** Beyond rkt. */
  readonly restart?: string;
  /** Runs to its end before what follows is started. Of Kubernetes' pods, as the next. */
  readonly first?: boolean;
  /** Value of the annotation, see src/pod/probes.ts. */
  readonly probes?: string;
  /** Of the image's command only what its arguments follow: its entrypoint. */
  readonly withoutArguments?: boolean;
  /** What the standard streams are connected to; rkt hides these. */
  readonly stdin?: string;
  readonly stdout?: string;
  readonly stderr?: string;
}

export interface ImageArgs {
  readonly reference: string;
  readonly flags: AppFlags;
  /** Between `--` and `---`. */
  readonly appArgs: readonly string[];
}

export type PullPolicy = 'new' | 'update' | 'never';

/** Which stage1; at most one is given. */
export interface Stage1Args {
  readonly name?: string;
  readonly path?: string;
  readonly url?: string;
  readonly hash?: string;
  readonly fromDir?: string;
}

/** Flags of the pod's surroundings, which `run` and `run-prepared` share. */
export interface NetworkArgs {
  /** Undefined: not given. `--net` without a value is `default`. */
  readonly net?: string;
  readonly dns: readonly string[];
  readonly dnsSearch: readonly string[];
  readonly dnsOpt: readonly string[];
  readonly dnsDomain?: string;
  /** `IP=HOST[,IP=HOST]` or `host`, as typed. */
  readonly hostsEntry: readonly string[];
  readonly hostname?: string;
  readonly ipc?: string;
  readonly interactive: boolean;
  readonly mdsRegister: boolean;
  readonly vm: MachineArgs;
}

/** Of flavor kvm, as typed. */
export interface MachineArgs {
  readonly memory?: string;
  readonly cpus?: string;
  readonly diskSize?: string;
  readonly accel?: string;
}

export interface VolumeFile {
  /** Below the volume, without `..`. */
  readonly path: string;
  readonly mode: number;
  readonly data: Uint8Array;
}

/** Of `app sandbox`: `K=V`, as typed. */
export interface SandboxArgs {
  /** `NAME:PROTOCOL:PODPORT:HOSTIP:HOSTPORT`, as typed. */
  readonly ports: readonly string[];
  readonly annotations: readonly string[];
  readonly userAnnotations: readonly string[];
  readonly userLabels: readonly string[];
}

export interface PodArgs extends NetworkArgs {
  /** An empty pod, whose apps are added while it runs. */
  readonly sandbox?: SandboxArgs;
  readonly images: readonly ImageArgs[];
  readonly stage1: Stage1Args;
  /** As typed; likewise mounts (before the first image: for all apps) and ports. */
  readonly volumes: readonly string[];
  readonly mounts: readonly string[];
  readonly ports: readonly string[];
  readonly inheritEnv: boolean;
  readonly setEnv: readonly string[];
  readonly setEnvFile: readonly string[];
  readonly noOverlay: boolean;
  readonly privateUsers: boolean;
  readonly pullPolicy: PullPolicy;
  readonly podManifest?: string;
  /** Beyond rkt: a file with a Kubernetes Pod, `-` for standard input. */
  readonly pod?: string;
  /** What is to lie in volumes of kind `empty`, by volume. */
  readonly volumeFiles?: ReadonlyMap<string, readonly VolumeFile[]>;
  /** Beyond rkt; likewise the next. */
  readonly exitPolicy?: string;
  readonly stopTimeout?: string;
  readonly uuidFileSave?: string;
  /** Beyond rkt. */
  readonly podName?: string;
  readonly dryRun: boolean;
  readonly rm: boolean;
  readonly result?: string;
  /** `prepare` only. */
  readonly quiet: boolean;
}

export interface RunPreparedArgs extends NetworkArgs {
  /** UUID, prefix or name. */
  readonly pod: string;
  /** Beyond rkt. */
  readonly rm: boolean;
  readonly result?: string;
  readonly dryRun: boolean;
}
