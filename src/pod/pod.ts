/**
 * A pod between its manifest and its launch plan: the appc manifest, plus what appc has no word for
 * (how the root filesystems are put together, DNS, host name), already checked against each other.
 */
import type { App, PodManifest, Volume } from '../image/appc.ts';
import type { LayerTree, PodImageUse } from '../store/types.ts';
import type { Stage1Image } from './stage1-image.ts';

/** How an app's root filesystem comes about. */
export type RootFs =
  | {
      readonly kind: 'overlay';
      /** Lowest first; their paths are relative to the pod's folder: the data folder can move. */
      readonly layers: readonly LayerTree[];
      /** Relative to the pod's folder. */
      readonly upper: string;
      readonly work: string;
    }
  /** A copy of the layers, flattened into `PodApp.root` when the pod is prepared. */
  | { readonly kind: 'copy'; readonly layers: readonly LayerTree[] };

export interface PodApp {
  readonly name: string;
  readonly image: PodImageUse;
  /** The image's app section with everything from the command line merged in. */
  readonly app: App;
  /** Relative to the pod's folder: `stage1/rootfs/opt/stage2/<name>/rootfs`, as in rkt. */
  readonly root: string;
  readonly rootfs: RootFs;
  readonly readOnlyRootFs: boolean;
  /** In order; targets are paths inside the app's root, not yet resolved. */
  readonly mounts: readonly { readonly volume: Volume; readonly path: string }[];
}

/** What a pod's machine is made of. */
export interface MachineOptions {
  /** Id of the image that it boots (src/pod/vm-image.ts). */
  readonly image: string;
  /** The data folder's, absolute: where that image lies. */
  readonly imageFolder: string;
  readonly smallBlocks: boolean;
  readonly accel: 'kvm' | 'tcg';
  /** bytes; absent: by the apps' limits */
  readonly memory?: number;
  readonly cpus?: number;
  /** bytes of a disk for what the apps write; absent: their memory */
  readonly disk?: number;
}

/** An interface of the pod's network namespace that its machine takes over. */
export interface MachineInterface {
  readonly name: string;
  /** Of the pod's namespace; its frames are the machine's. */
  readonly tap: string;
  readonly mac: string;
  readonly mtu: number;
  /** CIDR */
  readonly addresses: readonly string[];
  readonly routes: readonly { readonly to: string; readonly gateway: string | undefined }[];
}

/** What `run` and `run-prepared` say about the pod as a whole and the manifest can't hold. */
export interface RuntimeOptions {
  /** Host name for flavors that have one of their own; fly has the host's. */
  readonly hostname?: string;
  /** `--dns=host` | `--dns=none` | name servers. Absent: leave the image's file, as rkt without CNI. */
  readonly dns:
    | { readonly mode: 'default' }
    | { readonly mode: 'host' }
    | { readonly mode: 'none' }
    | {
        readonly mode: 'servers';
        readonly servers: readonly string[];
        readonly search: readonly string[];
        readonly options: readonly string[];
        readonly domain: string;
      };
  /** `--hosts-entry`: lines `IP NAME`, or the host's own file. */
  readonly hosts:
    | { readonly mode: 'default' }
    | { readonly mode: 'host' }
    | {
        readonly mode: 'entries';
        readonly entries: readonly (readonly [ip: string, name: string])[];
      };
  /** As typed after `--net=`; undefined when the flag was not given. */
  readonly net?: string;
  readonly ipc?: 'auto' | 'private' | 'parent';
  readonly interactive: boolean;
  readonly privateUsers: boolean;
  readonly mdsRegister: boolean;
  /** `--no-overlay`: apps that are added later get copies, too. */
  readonly noOverlay?: boolean;
  /** The machine of a pod of flavor kvm. */
  readonly vm?: MachineOptions;
  /** The stage1 image that runs the pod; absent: one of the built-in flavors. */
  readonly stage1?: Stage1Image;
  /** From `--insecure-options`: isolation that the user switched off by name. */
  readonly insecure: {
    readonly capabilities: boolean;
    readonly paths: boolean;
    readonly seccomp: boolean;
  };
  /**
   * Set when somebody must outlive the app (`--result`, `--rm`): the launcher stays as the app's parent,
   * and executes this command when the app has ended. Undefined: the process becomes the app.
   */
  readonly finish?: readonly string[];
  /** The prefix of messages: `tspod`, or `run` when started as rkt. */
  readonly program: string;
  readonly debug: boolean;
}

export interface VolumeImage {
  readonly image: PodImageUse;
  /** As in RootFs. */
  readonly layers: readonly LayerTree[];
}

export interface Pod {
  readonly uuid: string;
  readonly manifest: PodManifest;
  readonly apps: readonly PodApp[];
  readonly options: RuntimeOptions;
  /** What volumes of kind `image` are made of, by their names. */
  readonly volumeImages?: ReadonlyMap<string, VolumeImage>;
  /** Of flavor kvm, once its networks are there. */
  readonly interfaces?: readonly MachineInterface[];
}
