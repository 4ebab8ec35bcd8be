/**
 * What fly refuses, by name, before anything is written. fly has the host's network, IPC, host name,
 * processes and users; whoever asks for one of his own must learn that he does not get it.
 */
import { existsSync } from 'node:fs';
import type { Pod, PodApp } from '../../src/pod/pod.ts';
import { PROBES_ANNOTATION } from '../../src/pod/probes.ts';
import { STREAMS, streamAnnotation } from '../../src/pod/streams.ts';
import {
  EXIT_POLICY_ANNOTATION,
  FIRST_ANNOTATION,
  RESTART_ANNOTATION,
  STOP_TIMEOUT_ANNOTATION,
} from '../../src/pod/supervision.ts';
import { annotationsOf, isolationOf, unsupported } from '../isolation.ts';

/** An init's work, and there is none. */
const SUPERVISION: ReadonlySet<string> = new Set([
  FIRST_ANNOTATION,
  PROBES_ANNOTATION,
  EXIT_POLICY_ANNOTATION,
  RESTART_ANNOTATION,
  STOP_TIMEOUT_ANNOTATION,
]);
/** The launcher has 1024 slots, some of which fly uses itself. */
const MAX_MOUNTS = 1000;

/** The pod's only app. @throws TspodError 'unsupported' */
export function onlyApp(pod: Pod): PodApp {
  const [app, ...others] = pod.apps;
  if (app === undefined || others.length > 0)
    throw unsupported('fly only supports 1 application per Pod for now');
  return app;
}

/** @throws TspodError 'unsupported' that names the option, isolator or field */
export function check(pod: Pod): void {
  const { options, manifest } = pod;
  const app = onlyApp(pod);
  if (options.net !== undefined && options.net !== 'host') {
    throw unsupported(
      `--net=${options.net}: fly has the host's network`,
      'leave --net out or give --net=host',
    );
  }
  const [port] = manifest.ports;
  if (port !== undefined) {
    throw unsupported(
      `--port=${port.name}: fly has the host's network, where the app's ports are the host's`,
      'leave --port out',
    );
  }
  if (options.hostname !== undefined)
    throw unsupported(`--hostname=${options.hostname}: fly has the host's name`);
  if (options.ipc === 'private')
    throw unsupported("--ipc=private: fly has the host's IPC namespace");
  if (options.privateUsers) throw unsupported('--private-users: fly has no user namespace');
  if (options.mdsRegister) throw unsupported('--mds-register: fly has no metadata service');
  const [podIsolator] = manifest.isolators;
  if (podIsolator !== undefined) {
    throw unsupported(
      `isolator ${podIsolator.name} of the pod: fly isolates apps only`,
      'give it to the app',
    );
  }
  const [handler] = app.app.eventHandlers ?? [];
  if (handler !== undefined) {
    throw unsupported(
      `event handler ${handler.name} of app "${app.name}": nobody is there to run it under fly`,
    );
  }
  const annotations = [...manifest.annotations, ...annotationsOf(pod, app)];
  const watched = annotations.find(({ name }) => SUPERVISION.has(name));
  if (watched !== undefined) {
    throw unsupported(
      `--${watched.name.replace('tspod/', '')}=${watched.value}: nobody watches over an app under fly`,
      'use --stage1-name=nspawn, or the supervisor that started tspod',
    );
  }
  const stream = STREAMS.find(name => annotations.some(one => one.name === streamAnnotation(name)));
  if (stream !== undefined) {
    throw unsupported(
      `--${stream}: fly leaves the app the standard streams of its caller`,
      'use --stage1-name=nspawn',
    );
  }
  const foreign = annotations.find(({ name }) => name.startsWith('coreos.com/rkt/'));
  if (foreign !== undefined)
    throw unsupported(`annotation ${foreign.name}: fly can't do what it asks for`);
  // The mount point would be made there, and stay.
  const outside = app.mounts.find(
    ({ path }) => /^\/(?:dev|sys)(?:\/|$)/.test(path) && !existsSync(path),
  );
  if (outside !== undefined) {
    const tree = outside.path.split('/')[1];
    throw unsupported(
      `volume "${outside.volume.name}": ${outside.path} lies in the host's /${tree}, which fly's apps have`,
      'mount it elsewhere, or use --stage1-name=nspawn',
    );
  }
  if (app.mounts.length > MAX_MOUNTS) {
    throw unsupported(
      `app "${app.name}": ${app.mounts.length} mounts are over the limit of ${MAX_MOUNTS}`,
    );
  }
  const [other] = isolationOf(pod, app).others;
  if (other !== undefined)
    throw unsupported(`isolator ${other} of app "${app.name}": fly can't enforce it`);
}
