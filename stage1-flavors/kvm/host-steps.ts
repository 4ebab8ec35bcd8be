/** What happens on the host: the launcher's plan, and that of the machine's keeper (docs/vm-agent.md). */
import { statSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import type { Step } from '../../src/pod/launch-plan.ts';
import { netnsPath, wantsNetworks } from '../../src/pod/net-request.ts';
import type { Pod, PodApp } from '../../src/pod/pod.ts';
import { STREAMS, streamModes } from '../../src/pod/streams.ts';
import { appSupervision, podSupervision } from '../../src/pod/supervision.ts';
import { artifact } from '../../src/sys/artifacts.ts';
import { annotationsOf } from '../isolation.ts';
import { usesCaller } from '../nspawn/command.ts';
import { LOG_BYTES, LOGS_KEPT } from '../nspawn/init-plan.ts';
import type { Layout } from './layout.ts';
import { GUEST_PLAN, HOST_PLAN, inGuest, SCRATCH, SHARE } from './places.ts';
import { bootWords, fileServerWords, findFileServer, findQemu, SANDBOX } from './qemu.ts';
import { machineCpus, machineMemory } from './resources.ts';

const DEFAULT_STOP_SECONDS = 10;
/** Of users that nobody is: each machine has another. */
const FIRST_USER = 0x6000_0000;

export function launchSteps(pod: Pod, layout: Layout): readonly Step[] {
  const { options } = pod;
  return [
    ['program', options.program],
    ...(options.debug ? ([['debug']] satisfies Step[]) : []),
    ['init', 'stage1/rootfs/rkt'],
    ['supervise', '-', 'pod', ...(options.finish ?? [])],
    ...layout.shares.flatMap(({ hold }) => hold),
    ['unshare', 'mount'],
    ['propagation', '/', 'rslave'],
    // A mount of its own, so that what is put on it stays in this namespace.
    ...(layout.shares.length === 0
      ? []
      : ([
          ['bind-root', SHARE],
          ['folder', SHARE, '/layers', '0755'],
        ] satisfies Step[])),
    ...layout.shares.flatMap(({ place }) => place),
    ['pid-file', 'pid'],
    ...(usesCaller(pod)
      ? ([['environment', `TERM=${process.env['TERM'] ?? 'linux'}`]] satisfies Step[])
      : []),
    ['exec', artifact('vm'), 'host', HOST_PLAN],
  ];
}

/** @param inside the paths of the plans that the machine needs, in the pod's folder */
export function keeperSteps(pod: Pod, layout: Layout, inside: readonly string[]): readonly Step[] {
  const { options, uuid, interfaces = [] } = pod;
  const { vm } = options;
  if (vm === undefined) throw new Error('a pod of kvm without a machine');
  const image = join(vm.imageFolder, vm.image);
  const user = String(FIRST_USER + Number.parseInt(uuid.slice(0, 7), 16));
  return [
    ['program', options.program],
    ...[...inside].map((path): Step => ['file', path, path === GUEST_PLAN ? path : inGuest(path)]),
    ...(usesCaller(pod) ? ([['interactive']] satisfies Step[]) : []),
    ['listen', 'stage1/rootfs/rkt/control', 'rkt/control'],
    ...pod.apps.flatMap(app => attachSteps(pod, app)),
    ...pod.apps.map(({ name }): Step => ['log', name, LOG_BYTES, LOGS_KEPT]),
    ['stop-timeout', String(stopSeconds(pod))],
    ['user', user, String(kvmGroup() ?? user)],
    ...(wantsNetworks(options.net)
      ? ([['network-namespace', netnsPath(uuid)]] satisfies Step[])
      : []),
    ...interfaces.map(({ tap }): Step => ['tap', tap]),
    ['open', 'kernel', 'ro', join(image, 'kernel')],
    ['open', 'initramfs', 'ro', join(image, 'initramfs')],
    ...layout.disks.map(({ serial, file }): Step => ['open', serial, 'ro', file]),
    ...(vm.disk === undefined ? [] : ([['open', 'scratch', 'rw', SCRATCH]] satisfies Step[])),
    ...(layout.shares.length === 0
      ? []
      : ([['share', ...fileServerWords(findFileServer(), SHARE)]] satisfies Step[])),
    ['qemu', findQemu(), ...qemuWords(pod, layout)],
  ];
}

function qemuWords(pod: Pod, layout: Layout): readonly string[] {
  const { vm } = pod.options;
  const disks = [
    ...layout.disks.map(({ serial }) => ({ serial, writes: false })),
    ...(vm?.disk === undefined ? [] : [{ serial: 'scratch', writes: true }]),
  ];
  return [
    ...bootWords({
      accel: vm?.accel ?? 'tcg',
      cpus: machineCpus(pod, availableParallelism()),
      memory: machineMemory(pod),
      sharedMemory: layout.shares.length > 0,
    }),
    ...SANDBOX,
    '-kernel',
    '/proc/self/fd/@kernel@',
    '-initrd',
    '/proc/self/fd/@initramfs@',
    '-chardev',
    'socket,id=console,fd=@console@',
    '-serial',
    'chardev:console',
    '-device',
    'virtio-serial-device',
    '-chardev',
    'socket,id=port,fd=@port@',
    '-device',
    'virtserialport,chardev=port,name=tspod.0',
    '-device',
    'virtio-balloon-device,free-page-reporting=on,deflate-on-oom=on',
    ...(layout.shares.length === 0
      ? []
      : [
          '-chardev',
          'socket,id=share,fd=@share@',
          '-device',
          `vhost-user-fs-device,chardev=share,tag=${SHARE}`,
        ]),
    ...(pod.interfaces ?? []).flatMap(({ tap, mac, mtu }) => [
      '-netdev',
      `tap,id=${tap},fd=@${tap}@`,
      '-device',
      `virtio-net-device,netdev=${tap},mac=${mac},host_mtu=${mtu}`,
    ]),
    ...disks.flatMap(({ serial, writes }, index) => [
      '-add-fd',
      `fd=@${serial}@,set=${index + 1}`,
      '-blockdev',
      `driver=raw,node-name=${serial},read-only=${writes ? 'off' : 'on'},file.driver=file,file.filename=/dev/fdset/${index + 1},file.locking=off${writes ? ',discard=unmap' : ''}`,
      '-device',
      `virtio-blk-device,drive=${serial},serial=${serial}`,
    ]),
  ];
}

/** The sockets that init has for an app. */
function attachSteps(pod: Pod, app: PodApp): readonly Step[] {
  const modes = streamModes(annotationsOf(pod, app), pod.options.interactive);
  const kinds = new Set(
    STREAMS.flatMap(stream =>
      modes[stream] === 'stream' ? [stream] : modes[stream] === 'tty' ? ['tty'] : [],
    ),
  );
  return [...kinds].map((kind): Step => {
    const path = `rkt/attach/${app.name}-${kind}`;
    return ['listen', `stage1/rootfs/${path}`, path];
  });
}

function stopSeconds(pod: Pod): number {
  const all = [
    podSupervision(pod.manifest).stopSeconds,
    ...pod.apps.map(app => appSupervision(annotationsOf(pod, app)).stopSeconds),
  ];
  return Math.ceil(Math.max(DEFAULT_STOP_SECONDS, ...all.map(seconds => seconds ?? 0)));
}

/** Who may use /dev/kvm. */
function kvmGroup(): number | undefined {
  const gid = statSync('/dev/kvm', { throwIfNoEntry: false })?.gid;
  return gid === 0 ? undefined : gid;
}
