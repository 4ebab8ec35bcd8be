/** What flavors ask of a pod's manifest, and the one way in which they refuse. */
import { TspodError } from '../src/errors.ts';
import { type Isolation, readIsolation } from '../src/pod/isolators.ts';
import type { Pod, PodApp } from '../src/pod/pod.ts';

/** The app's isolators without what `--insecure-options` switched off. */
export function isolationOf(pod: Pod, app: PodApp): Isolation {
  const { capabilities, seccomp, ...rest } = readIsolation(
    app.app.isolators ?? [],
    `app "${app.name}"`,
  );
  const { insecure } = pod.options;
  return {
    ...rest,
    ...(capabilities === undefined || insecure.capabilities ? {} : { capabilities }),
    ...(seccomp === undefined || insecure.seccomp ? {} : { seccomp }),
  };
}

export function annotationsOf(
  pod: Pod,
  app: PodApp,
): readonly { readonly name: string; readonly value: string }[] {
  return pod.manifest.apps.find(({ name }) => name === app.name)?.annotations ?? [];
}

export function unsupported(message: string, hint?: string): TspodError {
  return new TspodError('unsupported', message, hint === undefined ? {} : { hint });
}
