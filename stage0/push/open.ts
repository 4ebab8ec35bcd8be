/** What only a push needs, in one chunk of the bundle. */
import '../hot.ts';
import type { Context } from '../../src/context.ts';
import { canonicalReference, type RegistryReference } from '../../src/image/reference.ts';
import { loadConfig } from '../config.ts';
import { findCredentials } from '../fetch/credentials.ts';
import { allows, HUB_HOST } from '../fetch/registry.ts';
import { Endpoint } from '../fetch/registry-endpoint.ts';
import { TIMING, type Timing } from '../fetch/retry.ts';

export { portableImage } from '../export/portable.ts';
export { openProgress } from '../progress.ts';
export { otherRepository, parseTarget, pushImage } from './push.ts';

/** The registry itself: mirrors are for pulling. */
export function openTarget(
  context: Context,
  target: RegistryReference,
  signal: AbortSignal,
  timing: Timing = TIMING,
): Endpoint {
  const config = loadConfig(context);
  const { registry, repository } = target;
  const settings = config.registries.get(registry);
  return new Endpoint({
    host: registry === 'docker.io' ? HUB_HOST : registry,
    repository,
    image: canonicalReference(target),
    timing,
    signal,
    allowHttp: allows(context, settings, 'http'),
    actions: 'pull,push',
    tls: {
      verify: !allows(context, settings, 'tls'),
      caCertificate: settings?.caCertificate,
      clientCertificate: settings?.clientCertificate,
      clientKey: settings?.clientKey,
    },
    credentials: () => findCredentials(config, registry, repository),
  });
}

export { TIMING };
