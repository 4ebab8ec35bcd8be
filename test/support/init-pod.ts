/**
 * A pod that is nothing but stage2's init: `init` as PID 1 of a process namespace, in a tree with the built
 * programs and busybox, apps that are shell scripts, no image, no systemd-nspawn. The tree lies in a pod's
 * folder as a flavor lays it out, so what asks a pod from the host finds everything in its place.
 */
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { encodePlan, type Step } from '../../src/pod/launch-plan.ts';
import { artifact } from '../../src/sys/artifacts.ts';

export interface InitApp {
  readonly name: string;
  readonly script: string;
  /** Verbs of the init plan about it, after `launch`. */
  readonly about?: readonly Step[];
}

export interface InitEnd {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly bytes: Buffer;
}

export class InitPod {
  readonly dir = mkdtempSync(join(tmpdir(), 'tspod-init-'));
  readonly tree = join(this.dir, 'stage1/rootfs');
  /** Of init's. */
  readonly environment: NodeJS.ProcessEnv = {};
  #child: ChildProcess | undefined;

  constructor() {
    const folders = ['bin', 'dev', 'proc', 'tmp', 'rkt/status', 'rkt/logs', 'rkt/attach'];
    for (const folder of folders) mkdirSync(join(this.tree, folder), { recursive: true });
    for (const name of ['init', 'launch', 'stage2']) writeFileSync(join(this.tree, name), '');
    cpSync('/bin/busybox', join(this.tree, 'bin/busybox'));
    writeFileSync(join(this.dir, 'lock'), '');
  }

  get logs(): string {
    return join(this.tree, 'rkt/logs');
  }

  /** Writes the plans. `more` are verbs of the pod, before the apps. */
  plan(apps: readonly InitApp[], more: readonly Step[] = []): void {
    for (const app of apps) this.addPlans(app);
    const steps = apps.flatMap(app => this.aboutApp(app));
    this.#write('rkt/init-plan', [['program', 'init'], ['pod', 'a-pod'], ...more, ...steps]);
    this.#writeAt(join(this.dir, 'launch-plan'), [
      ['program', 'launch'],
      ['bind-root', 'stage1/rootfs'],
      ...(['init', 'launch', 'stage2'] as const).map((name): Step => {
        const source = artifact(name === 'init' ? 'stage2' : name);
        return ['bind', source, 'stage1/rootfs', `/${name}`, 'ro'];
      }),
      ['bind', '/dev', 'stage1/rootfs', '/dev'],
      ['bind', '/proc', 'stage1/rootfs', '/proc'],
      ['pivot', 'stage1/rootfs'],
      ['exec', '/init', 'init'],
    ]);
  }

  /** The plans by which an app is started, and one of its own for `add`. */
  addPlans(app: InitApp): void {
    const folder = `rkt/apps/${app.name}`;
    this.#write(`${folder}/launch-plan`, [
      ['program', 'launch'],
      ['start', `/${folder}/app-plan`],
    ]);
    this.#write(`${folder}/app-plan`, [
      ['root', '/'],
      ['user', '0'],
      ['env', 'PATH=/bin'],
      ['env-pass', 'TERM'],
      ['workdir', '/'],
      ['exec', '/bin/busybox', 'sh', '-c', app.script],
    ]);
    this.#write(`${folder}/init-plan`, this.aboutApp(app));
  }

  aboutApp({ name, about = [] }: InitApp): readonly Step[] {
    return [['app', name], ['launch', `/rkt/apps/${name}/launch-plan`], ...about];
  }

  /** Starts it; `stdio` as of spawn; `shell` is text around `"$@"`, which is the pod. */
  start(
    stdio: SpawnOptions['stdio'] = ['ignore', 'pipe', 'pipe'],
    shell = 'exec "$@"',
  ): ChildProcess {
    const around =
      'mount -t devpts -o ptmxmode=666 devpts /dev/pts && mount --bind /dev/pts/ptmx /dev/ptmx && exec "$0" "$@"';
    const flags = ['-m', '-p', '-f', '--kill-child', '--mount-proc', '--propagation', 'private'];
    const words = ['unshare', ...flags, 'sh', '-c', around, artifact('launch'), this.dir];
    const child = spawn('sh', ['-c', shell, 'sh', ...words], {
      stdio,
      env: { PATH: process.env['PATH'], ...this.environment },
    });
    this.#child = child;
    return child;
  }

  /** Starts it and waits for its end. */
  run(stdio?: SpawnOptions['stdio']): Promise<InitEnd> {
    return ended(this.start(stdio));
  }

  /** A log's lines, without their times: `stdout F text`. */
  log(app: string, number?: number): string[] {
    const path = join(this.logs, `${app}.log${number === undefined ? '' : `.${number}`}`);
    const lines = readFileSync(path, 'latin1').split('\n');
    return lines.slice(0, -1).map(line => line.slice(line.indexOf(' ') + 1));
  }

  logFiles(): string[] {
    return readdirSync(this.logs).sort();
  }

  status(name: string): string | undefined {
    const path = join(this.tree, 'rkt/status', name);
    return existsSync(path) ? readFileSync(path, 'latin1') : undefined;
  }

  /** Until `path` in the tree is there. */
  async has(path: string): Promise<void> {
    await until(() => existsSync(join(this.tree, path)));
  }

  async remove(): Promise<void> {
    const child = this.#child;
    if (child !== undefined && child.exitCode === null && child.signalCode === null) {
      const gone = new Promise(resolve => child.once('exit', resolve));
      child.kill('SIGKILL');
      await gone;
    }
    rmSync(this.dir, { recursive: true, force: true });
  }

  #write(path: string, steps: readonly Step[]): void {
    this.#writeAt(join(this.tree, path), steps);
  }

  #writeAt(path: string, steps: readonly Step[]): void {
    mkdirSync(join(path, '..'), { recursive: true });
    writeFileSync(path, encodePlan(steps));
  }
}

export function ended(child: ChildProcess): Promise<InitEnd> {
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  child.stdout?.on('data', (chunk: Buffer) => out.push(chunk));
  child.stderr?.on('data', (chunk: Buffer) => err.push(chunk));
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (status, signal) => {
      const bytes = Buffer.concat(out);
      const stderr = Buffer.concat(err).toString();
      resolve({ status, signal, bytes, stdout: bytes.toString(), stderr });
    });
  });
}

/** Waits for what comes about by itself; a test's own time-out ends it. */
export async function until(reached: () => boolean): Promise<void> {
  while (!reached()) await new Promise(resolve => setTimeout(resolve, 5));
}
