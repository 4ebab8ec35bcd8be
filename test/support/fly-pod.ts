/**
 * A prepared fly pod without store and registry: one layer, Debian's static busybox in a folder, put
 * together by the very assembly, flavor and folder code that `tspod run` uses, and started by the
 * launcher in a mount namespace of the test's own.
 */
import { spawnSync } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import type { Context } from '../../src/context.ts';
import { type Digest, parseDigest } from '../../src/image/digest.ts';
import type { ContainerConfig } from '../../src/image/oci.ts';
import { writePlan, writePod } from '../../src/pod/folder.ts';
import type { Pod } from '../../src/pod/pod.ts';
import { artifact } from '../../src/sys/artifacts.ts';
import type { AppFlags, PodArgs } from '../../stage0/args/types.ts';
import { assemblePod, type ResolvedImage } from '../../stage0/assemble.ts';
import { fly } from '../../stage1-flavors/fly/fly.ts';

export const NO_FLAGS: AppFlags = {
  mounts: [],
  readonlyRootfs: false,
  environment: [],
  annotations: [],
  userAnnotations: [],
  userLabels: [],
  capsRetain: [],
  capsRemove: [],
  rlimits: [],
  noNewPrivileges: false,
};

export const NO_ARGS: PodArgs = {
  images: [],
  stage1: {},
  volumes: [],
  mounts: [],
  ports: [],
  inheritEnv: false,
  setEnv: [],
  setEnvFile: [],
  noOverlay: false,
  privateUsers: false,
  pullPolicy: 'new',
  dryRun: false,
  rm: false,
  quiet: false,
  dns: [],
  dnsSearch: [],
  dnsOpt: [],
  hostsEntry: [],
  interactive: false,
  mdsRegister: false,
  vm: {},
};

export const CONTEXT: Context = {
  program: 'tspod',
  command: 'run',
  dir: '/nonexistent',
  systemConfig: '',
  localConfig: '',
  userConfig: '',
  insecure: new Set(),
  trustKeysFromHttps: false,
  offline: true,
  debug: false,
};

const NO_CONFIG: ContainerConfig = {
  User: '',
  Env: [],
  Entrypoint: ['/bin/busybox'],
  Cmd: [],
  WorkingDir: '',
  ExposedPorts: [],
  Volumes: [],
  Labels: {},
  StopSignal: '',
};

export interface Wanted {
  readonly config?: Partial<ContainerConfig>;
  readonly flags?: Partial<AppFlags>;
  readonly args?: Partial<PodArgs>;
  readonly context?: Partial<Context>;
  readonly appArgs?: readonly string[];
  readonly overlay?: boolean;
  readonly finish?: readonly string[];
}

function digest(text: string): Digest {
  return parseDigest(`sha256:${createHash('sha256').update(text).digest('hex')}`, 'test');
}

export function imageOf(
  wanted: Wanted,
  name = 'docker://127.0.0.1:5000/tools/busybox:latest',
): ResolvedImage {
  const diffId = digest('layer');
  const blob = { mediaType: 'application/vnd.oci.image.layer.v1.tar', digest: diffId, size: 1 };
  return {
    name,
    appc: undefined,
    args: {
      reference: name,
      flags: { ...NO_FLAGS, ...wanted.flags },
      appArgs: wanted.appArgs ?? [],
    },
    record: {
      id: digest(name),
      manifestDigest: digest('manifest'),
      names: [name],
      layers: [{ diffId, blob }],
      verdict: { admitted: true, by: '--insecure-options=image' },
      importedAt: 0,
      lastUsedAt: 0,
      size: 1,
    },
    config: {
      bytes: new Uint8Array(),
      digest: digest(name),
      value: {
        os: 'linux',
        architecture: process.arch === 'x64' ? 'amd64' : process.arch,
        config: { ...NO_CONFIG, ...wanted.config },
        diffIds: [diffId],
      },
    },
  };
}

export function assemble(
  wanted: Wanted = {},
  more: { uuid?: string; tree?: string; images?: readonly ResolvedImage[] } = {},
): Pod {
  const images = more.images ?? [imageOf(wanted)];
  return assemblePod({
    uuid: more.uuid ?? randomUUID(),
    context: { ...CONTEXT, ...wanted.context },
    args: { ...NO_ARGS, images: images.map(image => image.args), ...wanted.args },
    images,
    findImage: () => undefined,
    flavor: fly,
    overlay: wanted.overlay ?? true,
    finish: wanted.finish,
    layerTree: () => ({ form: 'directory', path: more.tree ?? 'layer' }),
  });
}

export interface Ended {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Data folder with one layer in it. Removed by `remove`. */
export class FlyHouse {
  readonly dir = mkdtempSync(join(tmpdir(), 'tspod-fly-'));
  readonly layer = join(this.dir, 'layer');

  constructor() {
    for (const folder of ['bin', 'etc', 'tmp', 'dev', 'proc', 'sys', 'work']) {
      mkdirSync(join(this.layer, folder), { recursive: true });
    }
    cpSync('/bin/busybox', join(this.layer, 'bin/busybox'));
    writeFileSync(
      join(this.layer, 'etc/passwd'),
      'root:x:0:0:root:/root:/bin/sh\nann:x:1001:1002:Ann:/home/ann:/bin/ash\n',
    );
    writeFileSync(join(this.layer, 'etc/group'), 'root:x:0:\nstaff:x:1002:\nmusic:x:1003:ann\n');
  }

  /** Writes the pod as `run` does, into pods/run. */
  prepare(wanted: Wanted): { readonly dir: string; readonly pod: Pod } {
    const uuid = randomUUID();
    const dir = join(this.dir, 'pods/run', uuid);
    mkdirSync(dir, { recursive: true });
    const pod = assemble(wanted, { uuid, tree: relative(dir, this.layer) });
    const plan = fly.plan(pod);
    writePod(dir, pod, 'fly');
    writeFileSync(join(dir, 'lock'), '');
    for (const app of pod.apps) {
      if (app.rootfs.kind === 'copy') cpSync(this.layer, join(dir, app.root), { recursive: true });
    }
    for (const volume of pod.manifest.volumes) {
      if (volume.kind === 'empty') {
        mkdirSync(join(dir, 'sharedVolumes', volume.name), {
          recursive: true,
          mode: Number.parseInt(volume.mode ?? '0755', 8),
        });
      }
    }
    writePlan(dir, plan);
    return { dir, pod };
  }

  /** Runs busybox with the arguments to its end. */
  run(
    wanted: Wanted,
    env: NodeJS.ProcessEnv = {},
    input?: Uint8Array,
  ): Ended & { readonly pod: Pod; readonly dir: string } {
    const { dir, pod } = this.prepare(wanted);
    const { status, signal, stdout, stderr } = spawnSync(
      'unshare',
      ['-m', '--propagation', 'private', artifact('launch'), dir],
      {
        encoding: 'utf8',
        env: { PATH: process.env.PATH, ...env },
        ...(input === undefined ? {} : { input }),
      },
    );
    return { status, signal, stdout, stderr, pod, dir };
  }

  /** The pods' cgroups too, which a test that failed has not collected. */
  remove(): void {
    const pods = join(this.dir, 'pods/run');
    for (const uuid of existsSync(pods) ? readdirSync(pods) : []) {
      const list = join(pods, uuid, 'subcgroup');
      if (!existsSync(list)) continue;
      for (const folder of readFileSync(list, 'utf8').trim().split('\n')) {
        if (folder.endsWith(uuid) && existsSync(folder)) rmdirSync(folder);
      }
    }
    rmSync(this.dir, { recursive: true, force: true });
  }
}
