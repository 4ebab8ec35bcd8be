/**
 * A stage1 image runs the pod: its own programs, found by the annotations of its manifest, are executed in the
 * pod's folder with the command lines of rkt's interface. The image lies in `stage1/rootfs` as plain files, so
 * that its programs are there before, while and after the pod runs; the apps' roots are put together in a mount
 * namespace that ends with the pod. All else is the stage1's: volumes, network, isolation, `pid` or `ppid`.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, realpathSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { systemError, TspodError } from '../../src/errors.ts';
import { hostsFile, resolvConf } from '../../src/pod/dns.ts';
import { readPod } from '../../src/pod/folder.ts';
import type { LaunchPlan, Step } from '../../src/pod/launch-plan.ts';
import type { Pod } from '../../src/pod/pod.ts';
import type { EntryPoint } from '../../src/pod/stage1-image.ts';
import type { Flavor, RunningPod } from '../flavor.ts';
import { rootSteps } from '../root-steps.ts';
import { check, stage1Of } from './check.ts';
import { runWords } from './run-words.ts';

export const TREE = 'stage1/rootfs';
/** The interface's version from which `gc` takes the configuration's folder. */
const GC_LOCAL_CONFIG = 5;

export const foreign: Flavor = {
  name: 'foreign',
  interfaceVersion: 6,
  recursiveByDefault: true,
  check,
  plan,
  enter() {
    throw new Error('a stage1 image has a program of its own for that');
  },
  stop,
  gc,
};

function plan(pod: Pod): LaunchPlan {
  check(pod);
  const { options } = pod;
  const steps: Step[] = [
    ['program', options.program],
    ...(options.debug ? ([['debug']] satisfies Step[]) : []),
    ...(options.finish === undefined
      ? []
      : ([['supervise', '-', 'pod', ...options.finish]] satisfies Step[])),
    ['unshare', 'mount'],
    ['propagation', '/', 'rslave'],
    ...pod.apps.flatMap(app => rootSteps(app)),
    ...pod.apps.map(
      ({ root }): Step => ['symlink', root, '/etc/mtab', '../proc/self/mounts', 'if-missing'],
    ),
    ...nameFiles(pod),
    ['exec', `${TREE}${stage1Of(pod).entryPoints.run}`, ...runWords(pod)],
  ];
  return { steps, apps: new Map() };
}

/** Where a stage1 looks for what `--dns` and `--hosts-entry` said. */
function nameFiles({ options: { dns, hosts } }: Pod): readonly Step[] {
  const files: Step[] = [];
  const add = (name: string, content: string) =>
    files.push(['file', TREE, `/etc/${name}`, '0644', content, 'replace']);
  if (dns.mode === 'servers') add('rkt-resolv.conf', resolvConf(dns));
  if (hosts.mode === 'entries') add('rkt-hosts', hostsFile(hosts.entries));
  return files.length === 0 ? [] : [['folder', TREE, '/etc', '0755'], ...files];
}

/**
 * The program that is to be executed, with its words, for `enter`.
 * @throws TspodError 'unsupported' when the stage1 has none
 */
export function enterWords(
  pod: Pod,
  running: RunningPod,
  app: string,
  command: readonly string[],
): readonly [path: string, ...words: string[]] {
  const path = program(pod, running.dir, 'enter');
  return [path, `--pid=${running.pid}`, `--appname=${app}`, '--', ...command];
}

/** @throws TspodError 'unsupported' when the stage1 has no program for it, 'state' when that fails */
function stop({ uuid, dir }: RunningPod, force: boolean): void {
  const pod = readPod(dir, uuid);
  execute(pod, dir, 'stop', [...(force ? ['--force'] : []), uuid]);
}

/** A stage1 that can't be asked has left nothing that it could take away; one that fails is asked again later. */
function gc({ uuid, dir }: { readonly uuid: string; readonly dir: string }): void {
  if (!existsSync(join(dir, 'runtime-config')) || !existsSync(join(dir, 'pod'))) return;
  let pod: Pod;
  try {
    pod = readPod(dir, uuid);
  } catch (error) {
    // Of a folder that is damaged nobody can say what to ask, nor whom.
    if (error instanceof TspodError && error.code === 'pod') return;
    throw error;
  }
  if (pod.options.stage1?.entryPoints.gc === undefined) return;
  const { interfaceVersion, localConfig } = pod.options.stage1;
  execute(pod, dir, 'gc', [
    ...(pod.options.debug ? ['--debug'] : []),
    ...(interfaceVersion >= GC_LOCAL_CONFIG ? ['--local-config', localConfig] : []),
    uuid,
  ]);
}

function execute(pod: Pod, dir: string, kind: 'stop' | 'gc', words: readonly string[]): void {
  const path = program(pod, dir, kind);
  const { name } = stage1Of(pod);
  // Standard output is the command's own.
  const { error, status, signal } = spawnSync(path, words, { cwd: dir, stdio: ['ignore', 2, 2] });
  if (error !== undefined) throw systemError(`pod ${pod.uuid}: can't execute ${path}`, error);
  if (status === 0) return;
  const how = signal === null ? `ended with ${status}` : `was killed by ${signal}`;
  throw new TspodError('state', `pod ${pod.uuid}: ${kind} of stage1 ${name} ${how}`);
}

/** Absolute. A link that leads out of the image is not followed. */
export function program(pod: Pod, dir: string, kind: EntryPoint): string {
  const { name, entryPoints } = stage1Of(pod);
  const entry = entryPoints[kind];
  if (entry === undefined) {
    throw new TspodError(
      'unsupported',
      `pod ${pod.uuid}: stage1 ${name} has no program for ${kind}`,
      {
        hint: 'its manifest names none',
      },
    );
  }
  return insideTree(dir, entry, name);
}

/** @throws TspodError 'pod' when it is missing or lies outside */
export function insideTree(dir: string, entry: string, name: string): string {
  const tree = realpathSync(resolve(dir, TREE));
  try {
    const path = realpathSync(join(tree, entry));
    if (path.startsWith(`${tree}/`)) return path;
  } catch (error) {
    throw systemError(`stage1 ${name}: can't find its program ${entry}`, error);
  }
  throw new TspodError('pod', `stage1 ${name}: its program ${entry} leads out of it`);
}
