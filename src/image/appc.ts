/**
 * The appc types that a pod is made of (appc specification 0.8.11: `schema/types/app.go`,
 * "Image Manifest", "Pod Manifest"), in the JSON spelling that is written to a pod's folder.
 */

export interface NameValue {
  readonly name: string;
  readonly value: string;
}

export interface MountPoint {
  readonly name: string;
  readonly path: string;
  readonly readOnly?: boolean;
}

export interface Port {
  readonly name: string;
  readonly protocol: string;
  readonly port: number;
  readonly count?: number;
  readonly socketActivated?: boolean;
}

/** `value` is JSON whose shape depends on `name`; src/pod/isolators.ts reads it. */
export interface Isolator {
  readonly name: string;
  readonly value: unknown;
}

export interface EventHandler {
  readonly name: 'pre-start' | 'post-stop';
  readonly exec: readonly string[];
}

/** What to execute and how. `user` and `group` are a name, a number, or an absolute path (its owner). */
export interface App {
  readonly exec: readonly string[];
  readonly user: string;
  readonly group: string;
  readonly supplementaryGIDs?: readonly number[];
  readonly workingDirectory?: string;
  readonly environment?: readonly NameValue[];
  readonly mountPoints?: readonly MountPoint[];
  readonly ports?: readonly Port[];
  readonly isolators?: readonly Isolator[];
  readonly eventHandlers?: readonly EventHandler[];
  readonly userAnnotations?: Readonly<Record<string, string>>;
  readonly userLabels?: Readonly<Record<string, string>>;
}

/** A pod's volume. `tmpfs`, `image`, `device` and `propagation` go beyond appc; a reader that knows only appc refuses them. */
export interface Volume {
  readonly name: string;
  readonly kind: 'host' | 'empty' | 'tmpfs' | 'image' | 'device';
  /** host and device: absolute path; image: what `fetch` takes */
  readonly source?: string;
  readonly readOnly?: boolean;
  /** host only: whether mounts below the source come along; the flavor has the default */
  readonly recursive?: boolean;
  /** host only; default: the peer group of the source */
  readonly propagation?: 'private' | 'slave' | 'shared';
  /** empty and tmpfs: octal text, e.g. "0755" */
  readonly mode?: string;
  readonly uid?: number;
  readonly gid?: number;
  /** tmpfs only, bytes */
  readonly size?: number;
}

export interface Mount {
  readonly volume: string;
  readonly path: string;
}

export interface RuntimeApp {
  readonly name: string;
  readonly image: {
    readonly name?: string;
    /** appc hash spelling, `sha256-…` for an OCI image */
    readonly id: string;
    readonly labels?: readonly NameValue[];
  };
  readonly app?: App;
  readonly readOnlyRootFS?: boolean;
  readonly mounts?: readonly Mount[];
  readonly annotations?: readonly NameValue[];
}

export interface ExposedPort {
  readonly name: string;
  readonly hostPort: number;
  readonly hostIP?: string;
  /** Of a sandbox, whose apps come later: what an app's port would say (rkt's extension of appc). */
  readonly podPort?: Port;
}

export interface PodManifest {
  readonly acVersion: string;
  readonly acKind: 'PodManifest';
  readonly apps: readonly RuntimeApp[];
  readonly volumes: readonly Volume[];
  readonly isolators: readonly Isolator[];
  readonly annotations: readonly NameValue[];
  readonly ports: readonly ExposedPort[];
  readonly userAnnotations?: Readonly<Record<string, string>>;
  readonly userLabels?: Readonly<Record<string, string>>;
}

export const APPC_VERSION = '0.8.11';
