/**
 * What happens in the machine before the pod's init: the launcher puts the apps' roots together there as it does on a
 * host, from the layers and volumes that the host serves.
 */
import { existsSync, readFileSync } from 'node:fs';
import { hostsFile, resolvConf } from '../../src/pod/dns.ts';
import type { Step } from '../../src/pod/launch-plan.ts';
import type { Pod, PodApp } from '../../src/pod/pod.ts';
import { isolationOf } from '../isolation.ts';
import { limitsOf } from '../limits.ts';
import { reachableResolvConf } from '../name-files.ts';
import { initSteps, type Surroundings } from '../nspawn/init-plan.ts';
import { ownFolders, placeVolume } from '../volume-steps.ts';
import type { Layout } from './layout.ts';
import { GUEST_LAUNCH_PLAN, inGuest, SHARE } from './places.ts';

const FALLBACK_HOSTS = '127.0.0.1 localhost localhost.localdomain\n::1 localhost\n';

/** Bytes; the most that init takes. */
const NEVER = String(2 ** 50);

/** The agent's plan (docs/vm-agent.md). */
export function agentSteps(pod: Pod, layout: Layout): readonly Step[] {
  const { options, uuid, interfaces = [] } = pod;
  return [
    ['program', options.program],
    ['hostname', options.hostname ?? `rkt-${uuid}`],
    ...layout.mounts.map(
      ({ serial, data, folder }): Step => ['layer', serial, data ?? '-', folder],
    ),
    ...(options.vm?.disk === undefined
      ? []
      : ([['scratch', 'scratch', 'overlay']] satisfies Step[])),
    ...(layout.shares.length === 0 ? [] : ([['share', SHARE, SHARE]] satisfies Step[])),
    ...interfaces.flatMap(({ name, mac, addresses, routes }): readonly Step[] => [
      ['interface', mac, name],
      ...addresses.map((address): Step => ['address', name, address]),
      ...routes.map(({ to, gateway }): Step => ['route', name, to, gateway ?? '-']),
    ]),
    ...pod.apps.map(({ name }): Step => ['log', name]),
    ['launch', GUEST_LAUNCH_PLAN],
  ];
}

export function guestLaunchSteps(pod: Pod, layout: Layout): readonly Step[] {
  return [
    ['program', pod.options.program],
    ...(pod.options.debug ? ([['debug']] satisfies Step[]) : []),
    ...pod.apps.flatMap(app => appTree(pod, app, layout)),
    ['done'],
  ];
}

function appTree(pod: Pod, app: PodApp, layout: Layout): readonly Step[] {
  const root = inGuest(app.root);
  const steps: Step[] = [['folder', '.', `/${root}`, '0755']];
  const copy = layout.copies.get(app.name);
  if (copy === undefined) {
    const { upper, work } = app.rootfs.kind === 'overlay' ? app.rootfs : { upper: '', work: '' };
    for (const path of [upper, work]) steps.push(['folder', '.', `/${path}`, '0755']);
    steps.push(['overlay', root, upper, work, ...(layout.layers.get(app.name) ?? [])]);
  } else steps.push(['hold', '0', copy, 'single'], ['attach', '0', '.', `/${root}`]);
  steps.push(...ownFolders(app, root), ...nameFiles(pod, root));
  steps.push(['symlink', root, '/etc/mtab', '../proc/self/mounts', 'if-missing']);
  for (const { volume, path } of app.mounts) {
    const slot = String(steps.length);
    const source = layout.volumes.get(volume.name);
    if (source !== undefined) steps.push(['hold', slot, source, 'single']);
    // What the mounts of the host do with each other is theirs.
    const { propagation: _, ...rest } = volume;
    if (rest.kind === 'image') steps.push(['attach', slot, root, path, 'ro', 'nodev']);
    else steps.push(...placeVolume(rest, path, slot, root));
  }
  const hostname = pod.options.hostname ?? `rkt-${pod.uuid}`;
  steps.push(['file', root, '/etc/hostname', '0644', `${hostname}\n`, 'if-missing']);
  return steps;
}

/** As name-files.ts, but that a file of the host comes as a copy. */
function nameFiles(pod: Pod, root: string): readonly Step[] {
  const { dns, hosts } = pod.options;
  const file = (path: string, content: string, how: 'replace' | 'if-missing'): Step => [
    ...(['file', root, path, '0644', content, how] as const),
  ];
  const steps: Step[] = [];
  if (dns.mode === 'servers') steps.push(file('/etc/resolv.conf', resolvConf(dns), 'replace'));
  else if (dns.mode === 'host' || (dns.mode === 'default' && existsSync('/etc/resolv.conf')))
    steps.push(file('/etc/resolv.conf', readFileSync(reachableResolvConf(), 'utf8'), 'replace'));
  if (hosts.mode === 'host')
    steps.push(file('/etc/hosts', readFileSync('/etc/hosts', 'utf8'), 'replace'));
  else if (hosts.mode === 'entries')
    steps.push(file('/etc/hosts', hostsFile(hosts.entries), 'replace'));
  else steps.push(file('/etc/hosts', FALLBACK_HOSTS, 'if-missing'));
  return steps;
}

/** The machine is the pod's alone: every limit can be kept. */
export function guestInitSteps(pod: Pod): readonly Step[] {
  const around: Surroundings = {
    unified: true,
    limits: new Map(pod.apps.map(app => [app.name, limitsOf(isolationOf(pod, app))])),
    loopback: false,
    journal: false,
  };
  // Its log files are pipes to the host, which rotates.
  return initSteps(pod, around).map(
    (step): Step =>
      step[0] === 'log' && step[1] === 'file' ? ['log', 'file', step[2] ?? '', NEVER, '0'] : step,
  );
}
