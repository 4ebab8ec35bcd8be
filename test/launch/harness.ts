/** Pods for the launcher's tests: a folder with a lock, a root with a static busybox, and a plan. */
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { encodePlan, type Step } from '../../src/pod/launch-plan.ts';
import { artifact } from '../../src/sys/artifacts.ts';

export const BUSYBOX = ['/bin/busybox', '/usr/bin/busybox'].find(path => existsSync(path));

export interface TestPod {
  readonly dir: string;
  readonly root: string;
  remove(): void;
}

/** A pod whose root holds busybox at /bin and nothing else. */
export function makePod(): TestPod {
  const dir = mkdtempSync(join(tmpdir(), 'tspod-launch-'));
  const root = join(dir, 'root');
  mkdirSync(join(root, 'bin'), { recursive: true });
  writeFileSync(join(dir, 'lock'), '');
  if (BUSYBOX !== undefined) {
    cpSync(BUSYBOX, join(root, 'bin/busybox'));
    spawnSync(join(root, 'bin/busybox'), ['--install', '-s', join(root, 'bin')]);
    for (const applet of [
      'sh',
      'cat',
      'id',
      'ls',
      'env',
      'mount',
      'grep',
      'true',
      'sleep',
      'pwd',
      'kill',
    ]) {
      rmSync(join(root, 'bin', applet), { force: true });
      spawnSync('ln', ['-s', 'busybox', join(root, 'bin', applet)]);
    }
  }
  return { dir, root, remove: () => rmSync(dir, { recursive: true, force: true }) };
}

export interface Outcome {
  readonly status: number | null;
  readonly signal: string | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface LaunchOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly input?: string;
  /** Shell text that ends in `exec "$@"`, run around the launcher in a mount namespace of the test's own. */
  readonly around?: string;
}

/** The steps around an app plan that make the pod's own mount namespace; `middle` comes before `start`. */
export function plan(middle: readonly Step[]): readonly Step[] {
  return [
    ['program', 'tspod'],
    ['unshare', 'mount'],
    ['propagation', '/', 'rslave'],
    ...middle,
    ['start', 'app-plan'],
  ];
}

/** An app plan in `root` that executes `command`. */
export function appPlan(command: readonly string[], more: readonly Step[] = []): readonly Step[] {
  return [
    ['program', 'tspod'],
    ['root', 'root'],
    ['env', 'PATH=/bin'],
    ...more,
    ['exec', ...command],
  ];
}

export function launch(
  pod: TestPod,
  steps: readonly Step[],
  app: readonly Step[],
  options: LaunchOptions = {},
): Outcome {
  writeFileSync(join(pod.dir, 'launch-plan'), encodePlan(steps));
  writeFileSync(join(pod.dir, 'app-plan'), encodePlan(app));
  const around = options.around ?? 'exec "$@"';
  const result = spawnSync(
    'unshare',
    ['-m', '--propagation', 'private', 'sh', '-c', around, 'sh', artifact('launch'), pod.dir],
    {
      env: { PATH: process.env.PATH, ...options.env },
      input: options.input ?? '',
      encoding: 'utf8',
      timeout: 30_000,
    },
  );
  return {
    status: result.status,
    signal: result.signal,
    stdout: result.stdout,
    stderr: result.stderr,
  };
}
