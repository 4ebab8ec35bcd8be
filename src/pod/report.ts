/**
 * What `list` and `status` say about a pod: its apps, times and exit statuses, from its folder. A pod
 * whose folder is half written, or damaged, is told as far as it can be.
 */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { RuntimeApp } from '../image/appc.ts';
import { type Digest, fromAppcHash } from '../image/digest.ts';
import { CGROUPS_FILE, STATUS_FOLDER } from './folder.ts';
import { type PodView, podProcess } from './lifecycle.ts';
import { parsePodManifest } from './manifest.ts';
import { type PodNetwork, readNetworks } from './networks.ts';

export interface AppReport {
  readonly name: string;
  readonly imageId: Digest | undefined;
  /** As it was asked for; undefined when the manifest does not say. */
  readonly imageName: string | undefined;
  readonly state: 'created' | 'running' | 'exited' | 'unknown';
  readonly exitCode: number | undefined;
  /** The kernel killed a process of it for want of memory, since it was last started. */
  readonly oomKilled: boolean;
  /** ms since the epoch; an app has times of its own where its pod has an init. */
  readonly createdAt: number | undefined;
  readonly startedAt: number | undefined;
  readonly finishedAt: number | undefined;
  readonly mounts: readonly {
    readonly name: string;
    readonly containerPath: string;
    readonly hostPath: string;
    readonly readOnly: boolean;
  }[];
  readonly userAnnotations: Readonly<Record<string, string>>;
  readonly userLabels: Readonly<Record<string, string>>;
}

export interface PodReport extends PodView {
  readonly apps: readonly AppReport[];
  /** ms since the epoch */
  readonly createdAt: number | undefined;
  readonly startedAt: number | undefined;
  /** Only while it runs. */
  readonly pid: number | undefined;
  readonly networks: readonly PodNetwork[];
  readonly userAnnotations: Readonly<Record<string, string>>;
  readonly userLabels: Readonly<Record<string, string>>;
}

/** @throws TspodError 'pod' when the pod has a manifest and it can't be read */
export function reportPod(pod: PodView): PodReport {
  const manifest = readOrUndefined(join(pod.dir, 'pod'));
  const parsed = manifest === undefined ? undefined : parsePodManifest(manifest);
  const hostPaths = new Map(parsed?.volumes.map(volume => [volume.name, volume]));
  const exitCodes = readExitCodes(pod.dir);
  return {
    ...pod,
    apps: (parsed?.apps ?? []).map((app): AppReport => {
      const times = appTimes(pod.dir, app.name);
      // Only an init can tell, while the pod runs, that an app has ended.
      const told = pod.state !== 'running' || times.createdAt !== undefined;
      const exitCode = told ? exitCodes.get(app.name) : undefined;
      return {
        name: app.name,
        imageId: fromAppcHash(app.image.id),
        imageName: imageName(app.image),
        state: appState(pod, exitCode, times),
        exitCode,
        oomKilled: ranOutOfMemory(pod.dir, app.name),
        ...times,
        mounts: (app.mounts ?? []).map(mount => {
          const volume = hostPaths.get(mount.volume);
          return {
            name: mount.volume,
            containerPath: mount.path,
            hostPath: volume?.source ?? '',
            readOnly: volume?.readOnly ?? false,
          };
        }),
        userAnnotations: app.app?.userAnnotations ?? {},
        userLabels: app.app?.userLabels ?? {},
      };
    }),
    createdAt: timeOf(join(pod.dir, 'pod-created')),
    startedAt: timeOf(join(pod.dir, 'pid')) ?? timeOf(join(pod.dir, 'ppid')),
    pid: pod.state === 'running' ? podProcess(pod.dir)?.pid : undefined,
    networks: readNetworks(pod.dir),
    userAnnotations: parsed?.userAnnotations ?? {},
    userLabels: parsed?.userLabels ?? {},
  };
}

type AppTimes = Pick<AppReport, 'createdAt' | 'startedAt' | 'finishedAt'>;

/** The files that an init writes: docs/stage2-init.md. */
function appTimes(dir: string, app: string): AppTimes {
  const time = (suffix: string) => timeOf(join(dir, STATUS_FOLDER, `${app}${suffix}`));
  return { createdAt: time('-created'), startedAt: time('-started'), finishedAt: time('') };
}

/** rkt's states of an app. */
function appState(pod: PodView, exitCode: number | undefined, times: AppTimes): AppReport['state'] {
  if (pod.state === 'running') {
    if (times.createdAt === undefined) return 'running';
    if (exitCode !== undefined) return 'exited';
    return times.startedAt === undefined ? 'created' : 'running';
  }
  if (pod.state === 'exited' || pod.state === 'exited garbage' || pod.state === 'exited deleting') {
    return 'exited';
  }
  if (pod.state === 'prepared' || pod.state === 'preparing') return 'created';
  return exitCode === undefined ? 'unknown' : 'exited';
}

/** By app, for those that have ended and whose end somebody wrote down. */
export function readExitCodes(dir: string): ReadonlyMap<string, number> {
  const codes = new Map<string, number>();
  const folder = join(dir, STATUS_FOLDER);
  for (const name of namesIn(folder)) {
    const text = readOrUndefined(join(folder, name))?.toString('latin1') ?? '';
    if (/^\d{1,3}\n?$/.test(text)) codes.set(name, Number.parseInt(text, 10));
  }
  return codes;
}

/** An init tells; without one the pod's cgroup is its only app's (cgroup v2 and v1 call the file differently). */
export function ranOutOfMemory(dir: string, app: string): boolean {
  const told = join(dir, STATUS_FOLDER, app);
  if (existsSync(`${told}-oom`)) return true;
  if (existsSync(`${told}-created`)) return false;
  const folders = readOrUndefined(join(dir, CGROUPS_FILE))?.toString().split('\n') ?? [];
  return folders
    .filter(folder => folder.startsWith('/'))
    .flatMap(folder => ['memory.events', 'memory.oom_control'].map(name => join(folder, name)))
    .some(file => /^oom_kill [1-9]/m.test(readOrUndefined(file)?.toString() ?? ''));
}

function namesIn(folder: string): readonly string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function readOrUndefined(path: string): Buffer | undefined {
  try {
    return readFileSync(path);
  } catch {
    return undefined;
  }
}

function timeOf(path: string): number | undefined {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs;
}

/** rkt shows the version with the name. */
function imageName({ name, labels }: RuntimeApp['image']): string | undefined {
  const version = labels?.find(label => label.name === 'version')?.value;
  return name === undefined || version === undefined ? name : `${name}:${version}`;
}
