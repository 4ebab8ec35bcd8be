/** Manifests of artifacts that refer to an image (image-spec 1.1, manifest.md, `subject` and `artifactType`). */
import { type Digest, parseDigest } from './digest.ts';
import { JsonReader, parseBoundedJson } from './json.ts';
import type { Descriptor } from './oci.ts';
import { MANIFEST_MAX_BYTES, readDescriptor } from './oci-validate.ts';

export interface ArtifactManifest {
  /** Its own, or the type of its config, which is where it stood before version 1.1. */
  readonly artifactType: string | undefined;
  readonly subject: Digest | undefined;
  readonly layers: readonly Descriptor[];
}

/** More than what anybody puts into one manifest of signatures. */
const MAX_LAYERS = 64;

/** @throws TspodError 'protocol' with the JSON path, or 'limit' */
export function parseArtifactManifest(bytes: Uint8Array, what: string): ArtifactManifest {
  const reader: JsonReader = new JsonReader({ what, code: 'protocol' });
  const object = reader.object(parseBoundedJson(bytes, MANIFEST_MAX_BYTES, reader.kind), '');
  if (object.schemaVersion !== 2) reader.fail('schemaVersion', 'is not 2');
  const config = reader.optionalObject(object.config, 'config');
  const subject = reader.optionalObject(object.subject, 'subject');
  const own = reader.optionalString(object.artifactType, 'artifactType');
  return {
    artifactType: own || reader.optionalString(config?.mediaType, 'config.mediaType'),
    subject:
      subject === undefined ? undefined : parseDigest(subject.digest, `${what}: subject.digest`),
    layers: reader
      .array(object.layers, 'layers', MAX_LAYERS)
      .map((item, index) => readDescriptor(reader, item, `layers[${index}]`)),
  };
}
