/**
 * The OCI config and manifest that an ACI gets at import, so that everything behind the fetch has one model of
 * an image. The same ACI and layers always give the same bytes. What OCI has no word for stays in the
 * ImageManifest, which the manifest names and pods are made from.
 */
import { APPC_MANIFEST_ANNOTATION } from '../../../src/image/aci-layer.ts';
import {
  type AppcImageManifest,
  goArchitecture,
  labelOf,
} from '../../../src/image/appc-manifest.ts';
import { type Digest, toAppcHash } from '../../../src/image/digest.ts';
import {
  type Descriptor,
  type ImageConfig,
  type ImageManifest,
  MEDIA,
  type Raw,
} from '../../../src/image/oci.ts';
import { parseImageConfig, parseImageManifest } from '../../../src/image/oci-validate.ts';
import { digestOf } from '../source.ts';

/** A label of the config: images that differ in their ImageManifest only have ids of their own. */
const ID_LABEL = 'tspod.aci.id';

export interface AciLayer {
  readonly blob: Descriptor;
  readonly diffId: Digest;
}

export function ociForm(
  aci: { readonly id: Digest; readonly manifest: Raw<AppcImageManifest> },
  layers: readonly AciLayer[],
): { readonly config: Raw<ImageConfig>; readonly manifest: Raw<ImageManifest> } {
  const configBytes = json(configOf(aci.id, aci.manifest.value, layers));
  const config = parseImageConfig(configBytes, digestOf(configBytes));
  const manifestBytes = json({
    schemaVersion: 2,
    mediaType: MEDIA.ociManifest,
    config: { mediaType: MEDIA.ociConfig, digest: config.digest, size: configBytes.length },
    layers: layers.map(({ blob }) => blob),
    annotations: { [APPC_MANIFEST_ANNOTATION]: aci.manifest.digest },
  });
  return { config, manifest: parseImageManifest(manifestBytes, digestOf(manifestBytes)) };
}

function configOf(id: Digest, manifest: AppcImageManifest, layers: readonly AciLayer[]): object {
  const { app } = manifest;
  const set = (names: readonly string[]) => Object.fromEntries(names.map(name => [name, {}]));
  return {
    os: labelOf(manifest, 'os') || 'unknown',
    architecture: goArchitecture(labelOf(manifest, 'arch') || 'unknown'),
    config: {
      ...(app === undefined
        ? {}
        : {
            User: `${app.user}:${app.group}`,
            Env: (app.environment ?? []).map(({ name, value }) => `${name}=${value}`),
            Entrypoint: app.exec,
            WorkingDir: app.workingDirectory ?? '',
            ExposedPorts: set((app.ports ?? []).map(({ port, protocol }) => `${port}/${protocol}`)),
            Volumes: set((app.mountPoints ?? []).map(({ path }) => path)),
          }),
      Labels: {
        ...Object.fromEntries(manifest.labels.map(({ name, value }) => [name, value])),
        [ID_LABEL]: toAppcHash(id),
      },
    },
    rootfs: { type: 'layers', diff_ids: layers.map(({ diffId }) => diffId) },
  };
}

function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}
