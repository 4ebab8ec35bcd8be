/**
 * An ACI as a layer in an OCI manifest: a media type of our own, and the whitelists that it is cut down by in
 * an annotation. What a registry serves is never read like this (stage0/fetch/compression.ts does not know
 * the type); only manifests that tspod made itself, at import, have such layers.
 */
import { TspodError } from '../errors.ts';
import { JsonReader, parseBoundedJson } from './json.ts';
import type { AciTransform, Compression, Descriptor } from './oci.ts';

const TYPE = 'application/vnd.tspod.aci.layer.v1+tar';
/** JSON: `{"own": [path…], "above": [[path…]…]}`; not there when nothing is filtered. */
const WHITELIST_ANNOTATION = 'tspod.aci.whitelist';
/** On the manifest: the digest of the blob of the image's appc ImageManifest. */
export const APPC_MANIFEST_ANNOTATION = 'tspod.aci.manifest';

const MAX_WHITELIST_BYTES = 3 * 1024 * 1024;
const MAX_PATHS = 100_000;
/** Images above one another. */
const MAX_ABOVE = 100;

export function aciLayerType(compression: Compression): string {
  return compression === 'none' ? TYPE : `${TYPE}+${compression}`;
}

export function aciLayerAnnotations({
  own,
  above,
}: AciTransform): Readonly<Record<string, string>> {
  if (own.length === 0 && above.length === 0) return {};
  const text = JSON.stringify({ own, above });
  if (text.length <= MAX_WHITELIST_BYTES) return { [WHITELIST_ANNOTATION]: text };
  throw new TspodError(
    'limit',
    `image: its whitelists are longer than the limit of ${MAX_WHITELIST_BYTES} bytes`,
  );
}

/** Undefined for a layer that is no ACI. @throws TspodError 'protocol', 'limit' */
export function aciTransform(layer: Descriptor): AciTransform | undefined {
  if (layer.mediaType !== TYPE && !layer.mediaType.startsWith(`${TYPE}+`)) return undefined;
  const text = layer.annotations?.[WHITELIST_ANNOTATION];
  if (text === undefined) return { kind: 'aci', own: [], above: [] };
  const reader: JsonReader = new JsonReader({ what: `layer ${layer.digest}`, code: 'protocol' });
  const document = parseBoundedJson(Buffer.from(text), MAX_WHITELIST_BYTES * 4, reader.kind);
  const object = reader.object(document, '');
  return {
    kind: 'aci',
    own: reader.strings(object.own, 'own', MAX_PATHS),
    above: reader
      .array(object.above, 'above', MAX_ABOVE)
      .map((list, index) => reader.strings(list, `above[${index}]`, MAX_PATHS)),
  };
}
