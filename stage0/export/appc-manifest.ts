/** The appc ImageManifest of an image: an ACI's own, or what its OCI config says in appc's words. */
import { APPC_VERSION } from '../../src/image/appc.ts';
import { appFromImageConfig } from '../../src/image/convert.ts';
import { parseReference } from '../../src/image/reference.ts';
import type { ImageRecord, Store } from '../../src/store/types.ts';
import { tagOf } from './oci-archive.ts';

/** appc's names of architectures where they differ from Go's (appc 0.8.11, "labels"). */
const ARCHITECTURES: Readonly<Record<string, string>> = { arm64: 'aarch64', '386': 'i386' };

export function imageManifest(store: Store, image: ImageRecord): Uint8Array {
  const own = store.appcManifest(image);
  if (own !== undefined) return own.bytes;
  const { value: config } = store.config(image);
  const name = appcName(image);
  const { app, annotations } = appFromImageConfig(config, name);
  const arch = ARCHITECTURES[config.architecture] ?? config.architecture;
  const manifest = {
    acKind: 'ImageManifest',
    acVersion: APPC_VERSION,
    name,
    labels: [
      { name: 'version', value: tagOf(image) ?? 'latest' },
      { name: 'os', value: config.os },
      { name: 'arch', value: arch },
    ],
    // appc wants something to execute in every app section.
    ...(app.exec.length === 0 ? {} : { app: { ...app, exec: absolute(app.exec) } }),
    annotations: annotations.map(({ name: key, value }) => ({ name: identifier(key), value })),
  };
  return Buffer.from(JSON.stringify(manifest));
}

/** appc's first word is an absolute path; docker2aci has a shell look for others, as a registry's client does. */
function absolute(exec: readonly string[]): readonly string[] {
  const [first = ''] = exec;
  return first.startsWith('/') ? exec : ['/bin/sh', '-c', '"$0" "$@"', ...exec];
}

/** An AC Identifier (appc 0.8.11, "AC Identifier Type"). */
function identifier(text: string): string {
  const clean = text
    .toLowerCase()
    .replace(/[^a-z0-9\-._~/]+/g, '-')
    .replace(/^[^a-z0-9]+|[^a-z0-9]+$/g, '');
  return clean === '' ? 'unnamed' : clean;
}

function appcName(image: ImageRecord): string {
  for (const name of image.names) {
    const reference = parseReference(name);
    if (reference.kind === 'registry') {
      return identifier(`${reference.registry}/${reference.repository}`);
    }
  }
  const [name = image.id] = image.names;
  return identifier(name.replace(/^[a-z-]+:/, '').replace(/:[^/]*$/, ''));
}
