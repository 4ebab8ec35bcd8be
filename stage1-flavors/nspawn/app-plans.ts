/**
 * How one app is started inside the pod: the launcher's plan that makes its own mount namespace, and
 * stage2's that makes it who it is.
 */
import type { Isolation } from '../../src/pod/isolators.ts';
import type { Step } from '../../src/pod/launch-plan.ts';
import type { Pod, PodApp } from '../../src/pod/pod.ts';
import { identitySteps } from '../identity.ts';
import { workingDirectory } from '../volume-steps.ts';
import { plansInside, rootInside } from './stage1-tree.ts';

/** What every app finds in /dev; the nodes are the pod's, made by systemd-nspawn. */
const DEVICES = ['null', 'zero', 'full', 'random', 'urandom', 'tty'];
/** Folders of /dev that the apps of a pod share. */
const SHARED_DEVICES = ['pts', 'shm', 'mqueue'];
const DEVICE_LINKS: readonly (readonly [name: string, target: string])[] = [
  ['ptmx', 'pts/ptmx'],
  ['fd', '/proc/self/fd'],
  ['stdin', '/proc/self/fd/0'],
  ['stdout', '/proc/self/fd/1'],
  ['stderr', '/proc/self/fd/2'],
];

/** rkt-1.30, stage1/init/common: protected kernel tunables and what tells about the host. */
const READ_ONLY = [
  '/proc/bus',
  '/proc/sys/kernel/core_pattern',
  '/proc/sys/kernel/modprobe',
  '/proc/sys/vm/panic_on_oom',
  '/proc/sysrq-trigger',
  '/sys/block',
  '/sys/bus',
  '/sys/class',
  '/sys/dev',
  '/sys/devices',
  '/sys/kernel',
];
const MASKED = [
  '/proc/config.gz',
  '/proc/kallsyms',
  '/proc/sched_debug',
  '/proc/kcore',
  '/proc/kmem',
  '/proc/mem',
  '/proc/keys',
  '/proc/timer_list',
  '/proc/latency_stats',
  '/proc/scsi',
  '/proc/acpi',
  '/sys/firmware',
  '/sys/fs',
  '/sys/hypervisor',
  '/sys/module',
  '/sys/power',
];

/** Where systemd-nspawn puts the device of a volume. */
export function deviceInside(volume: string): string {
  return `/dev/volume-${volume}`;
}

const TREES = ['proc', 'sys'];

/** @param appPlan the name of stage2's plan */
export function appLaunchSteps(pod: Pod, app: PodApp, appPlan = 'app-plan'): readonly Step[] {
  const root = rootInside(app.name);
  const taken = new Set(app.mounts.map(({ path }) => path));
  return [
    ['program', pod.options.program],
    ...(pod.options.debug ? ([['debug']] satisfies Step[]) : []),
    ['unshare', 'mount', 'cgroup'],
    ['propagation', '/', 'rslave'],
    // A link here in an image would lead the mounts elsewhere (CVE-2019-19921 and its kin).
    ...['dev', ...TREES].map((name): Step => ['require-folder', root, name, '0755']),
    ...TREES.map((name): Step => ['bind', `/${name}`, root, `/${name}`, 'slave']),
    ['tmpfs', root, '/dev', 'mode=755,size=65536k'],
    ...DEVICES.map((name): Step => ['bind', `/dev/${name}`, root, `/dev/${name}`]),
    ...SHARED_DEVICES.map((name): Step => ['bind', `/dev/${name}`, root, `/dev/${name}`]),
    ...DEVICE_LINKS.map(
      ([name, target]): Step => ['symlink', root, `/dev/${name}`, target, 'if-missing'],
    ),
    ...app.mounts.flatMap(({ volume, path }): readonly Step[] =>
      volume.kind === 'device' ? [['bind', deviceInside(volume.name), root, path]] : [],
    ),
    ...(taken.has('/tmp') ? [] : ([['tmpfs', root, '/tmp', 'mode=1777']] satisfies Step[])),
    ...(pod.options.insecure.paths
      ? []
      : [
          ...READ_ONLY.map((path): Step => ['readonly', root, path]),
          ...MASKED.map((path): Step => ['mask', root, path]),
        ]),
    ...workingDirectory(app, root),
    ...(app.readOnlyRootFs ? ([['readonly-root', root]] satisfies Step[]) : []),
    ['pivot', root],
    ['start', `${plansInside(app.name)}/${appPlan}`],
  ];
}

export function appSteps(pod: Pod, app: PodApp, isolation: Isolation): readonly Step[] {
  return [
    ...identitySteps(pod, app, '/', isolation),
    ...(app.app.environment ?? []).map(({ name, value }): Step => ['env', `${name}=${value}`]),
    ['env-from-user'],
    ['env-pass', 'TERM', 'LISTEN_FDS', 'LISTEN_PID', 'LISTEN_FDNAMES'],
    ['own-terminal'],
    ['workdir', app.app.workingDirectory || '/'],
    ['exec', ...app.app.exec],
  ];
}

/** An app of the same root, environment and rights that asks how the app is. */
export function askerOf(app: PodApp, exec: readonly string[]): PodApp {
  return { ...app, app: { ...app.app, exec } };
}

/**
 * An app of the same root, environment and rights that is root and executes a handler (appc 0.8.11, "eventHandlers";
 * rkt runs them as root too).
 */
export function handlerOf(app: PodApp, exec: readonly string[]): PodApp {
  return { ...app, app: { ...app.app, user: '0', group: '0', supplementaryGIDs: [], exec } };
}
