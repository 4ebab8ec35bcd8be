/**
 * How a layer's blob is packed: its media type says so (layer.md, "+gzip", "+zstd"; Docker's `.tar.gzip`),
 * its first bytes have to agree. Docker's type is also used for plain and zstd tars, so there the bytes win.
 */
import { TspodError } from '../../src/errors.ts';
import type { Compression, Descriptor } from '../../src/image/oci.ts';

export const SNIFF_BYTES = 6;

const MAGIC: readonly (readonly [Compression, Buffer])[] = [
  ['gzip', Buffer.from([0x1f, 0x8b])],
  ['zstd', Buffer.from([0x28, 0xb5, 0x2f, 0xfd])],
  ['xz', Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00])],
  ['bzip2', Buffer.from('BZh')],
];

/** Media types of layers; undefined where the type does not bind. */
const LAYER_TYPES = new Map<string, Compression | undefined>([
  ['application/vnd.oci.image.layer.v1.tar', 'none'],
  ['application/vnd.oci.image.layer.v1.tar+gzip', 'gzip'],
  ['application/vnd.oci.image.layer.v1.tar+zstd', 'zstd'],
  ['application/vnd.oci.image.layer.nondistributable.v1.tar', 'none'],
  ['application/vnd.oci.image.layer.nondistributable.v1.tar+gzip', 'gzip'],
  ['application/vnd.oci.image.layer.nondistributable.v1.tar+zstd', 'zstd'],
  ['application/vnd.docker.image.rootfs.diff.tar', 'none'],
  ['application/vnd.docker.image.rootfs.diff.tar.gzip', undefined],
  ['application/vnd.docker.image.rootfs.diff.tar.zstd', 'zstd'],
  ['application/vnd.docker.image.rootfs.foreign.diff.tar.gzip', undefined],
]);

export function compressionOfBytes(start: Uint8Array): Compression {
  const found = MAGIC.find(([, magic]) => magic.equals(start.subarray(0, magic.length)));
  return found?.[0] ?? 'none';
}

/** @throws TspodError 'unsupported' for a type that is no layer's. */
export function checkLayerType({ mediaType, digest }: Descriptor): void {
  if (LAYER_TYPES.has(mediaType)) return;
  const shown = JSON.stringify(mediaType.slice(0, 100));
  throw new TspodError('unsupported', `layer ${digest}: its type ${shown} is not known`);
}

/** @throws TspodError 'protocol' when the bytes are not what the media type says. */
export function checkCompression(blob: Descriptor, actual: Compression): Compression {
  checkLayerType(blob);
  const told = LAYER_TYPES.get(blob.mediaType);
  if (told === undefined || told === actual) return actual;
  throw new TspodError(
    'protocol',
    `layer ${blob.digest}: its media type says ${told}, and its content is ${actual}`,
  );
}
