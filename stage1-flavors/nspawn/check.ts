/** What nspawn refuses, by name, before anything is written. */
import type { NameValue } from '../../src/image/appc.ts';
import { isMutable, MUTABLE_ANNOTATION } from '../../src/pod/mutable.ts';
import { wantsNetworks } from '../../src/pod/net-request.ts';
import type { Pod } from '../../src/pod/pod.ts';
import { inheritsAny, STREAMS, streamAnnotation, streamModes } from '../../src/pod/streams.ts';
import { annotationsOf, unsupported } from '../isolation.ts';
import { planCgroups } from './cgroups.ts';
import { findNspawn } from './command.ts';
import { confinedIsolation } from './isolation.ts';

/** The launcher has 1024 slots. */
const MAX_SLOTS = 1000;
/** Below these the pod's own trees are mounted: what lies there would be hidden, or reach into them. */
const OWN_TREES = ['/proc', '/sys', '/dev'];

const STREAM_ANNOTATIONS: ReadonlySet<string> = new Set(STREAMS.map(streamAnnotation));

/** @throws TspodError 'unsupported' that names the option, isolator or field */
export function check(pod: Pod): void {
  findNspawn();
  checkPod(pod);
  planCgroups(pod);
}

/** What every flavor with an init refuses. @throws as `check` */
export function checkPod(pod: Pod): void {
  const { options, manifest } = pod;
  // rkt's words.
  if (manifest.ports.length > 0 && options.net !== undefined && !wantsNetworks(options.net)) {
    throw unsupported(
      `--port flag does not work with '${options.net}' networking`,
      'give --net=default',
    );
  }
  if (options.privateUsers) throw unsupported('--private-users: not in this version');
  if (options.mdsRegister) throw unsupported('--mds-register: there is no metadata service');
  if (options.ipc === 'parent') throw unsupported('--ipc=parent: a pod has IPC of its own');
  if (options.interactive && pod.apps.length > 1)
    throw unsupported('--interactive: only one app can have the terminal');
  const [podIsolator] = manifest.isolators;
  if (podIsolator !== undefined)
    throw unsupported(`isolator ${podIsolator.name} of the pod`, 'give it to the app');
  refuseForeign(manifest.annotations.filter(({ name }) => name !== MUTABLE_ANNOTATION));
  let slots = 3;
  for (const app of pod.apps) {
    const what = `app "${app.name}"`;
    slots += 2 + app.mounts.length;
    const handlers = app.app.eventHandlers ?? [];
    for (const { name, exec } of handlers) {
      if (exec.length === 0)
        throw unsupported(`event handler ${name} of ${what}: it has nothing to execute`);
      if (handlers.filter(handler => handler.name === name).length > 1)
        throw unsupported(`event handler ${name} of ${what}: there are two of them`);
    }
    for (const { volume, path } of app.mounts) {
      if (volume.kind === 'device' && !/^\/(?:proc|sys)(?:\/|$)/.test(path) && path !== '/dev') {
        if (isMutable(manifest))
          throw unsupported(`volume "${volume.name}": a device can't come into a running pod`);
        continue;
      }
      if (OWN_TREES.some(tree => path === tree || path.startsWith(`${tree}/`)))
        throw unsupported(
          `${what}: a volume on ${path} lies in a tree of the kernel's or the pod's`,
        );
    }
    const isolation = confinedIsolation(pod, app);
    const [other] = isolation.others;
    if (other !== undefined)
      throw unsupported(`isolator ${other} of ${what}: it can't be enforced`);
    const annotations = annotationsOf(pod, app);
    refuseForeign(annotations.filter(({ name }) => !STREAM_ANNOTATIONS.has(name)));
    const modes = streamModes(annotations, options.interactive);
    if (inheritsAny(modes) && isMutable(manifest))
      throw unsupported(
        `${what}: an app that comes into a running pod can't have the streams of who made it`,
        'use stream, tty, log or null',
      );
  }
  if (slots > MAX_SLOTS) throw unsupported(`the pod has over ${MAX_SLOTS} mounts`);
}

/** What is rkt's to say to its own stage1 and means nothing here. */
function refuseForeign(annotations: readonly NameValue[]): void {
  const foreign = annotations.find(({ name }) => name.startsWith('coreos.com/rkt/'));
  if (foreign !== undefined) throw unsupported(`annotation ${foreign.name}: not in this version`);
}
