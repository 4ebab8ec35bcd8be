/**
 * What passes between tspod and the child that indexes layers, on one socket per layer under way.
 *
 * Down: frames of a little-endian uint32 length and as many bytes. The first frame is the job as JSON, the
 * following are the layer's bytes as they came; a frame of length 0 ends them, ABORT gives the layer up.
 * Up: lines. An empty one says "still working", any other is the answer, as JSON; one answer per job.
 */

import type { ErrorCode } from '../../../src/errors.ts';
import type { DigestAlgorithm } from '../../../src/image/digest.ts';
import type { AciTransform, Compression } from '../../../src/image/oci.ts';
import type { LayerRoot } from '../../../src/store/types.ts';
import type { Bounds } from '../bounds.ts';

export const ABORT = 0xffffffff;
/** Layers under way in one child: descriptors 3 and up. */
export const SLOTS = 4;
export const FIRST_SLOT = 3;

/** Names in a layer's folder. */
export const TAR_FILE = 'layer.tar';
export const META_FILE = 'meta.erofs';
export const RECORD_FILE = 'erofs.json';

export interface IndexJob {
  /** As the child sees it: it is confined to the store's folder for what is being written. */
  readonly folder: string;
  readonly compression: Compression;
  /** Of the diff-id. */
  readonly algorithm: DigestAlgorithm;
  readonly transform?: AciTransform;
  readonly bounds: Bounds;
}

export interface Indexed {
  readonly diffId: string;
  /** Bytes of the tar and its metadata. */
  readonly bytes: number;
  readonly entries: number;
}

export type IndexAnswer =
  | { readonly ok: true; readonly result: Indexed }
  | {
      readonly ok: false;
      readonly code: ErrorCode;
      readonly message: string;
      readonly hint?: string;
    };

/** RECORD_FILE: what is known of a layer without mounting it. */
export interface ErofsRecord {
  readonly version: 1;
  /** Of the tar as it came; the file may be longer by zeros up to a block. */
  readonly tarBytes: number;
  readonly root: LayerRoot;
}
