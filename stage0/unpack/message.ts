/**
 * What passes between tspod and the child that unpacks: one JSON object as its argument, one JSON object
 * on its standard output. Blanks before the answer say "still working". Whitelists of ACIs may be longer
 * than an argument: they come as JSON on descriptor 3. A tar that it gives comes on descriptor 4, the blobs
 * that this is made of are open as descriptors from 5 on.
 */
import { type ErrorCode, TspodError } from '../../src/errors.ts';
import type { Digest, DigestAlgorithm } from '../../src/image/digest.ts';
import type { Compression } from '../../src/image/oci.ts';
import type { Bounds } from './bounds.ts';

export type Job =
  | {
      readonly job: 'unpack';
      readonly parent: number;
      /** Absolute; the layer's root. */
      readonly folder: string;
      readonly compression: Compression;
      /** Of the diff-id. */
      readonly algorithm: DigestAlgorithm;
      readonly bounds: Bounds;
      /** The blob is an ACI; what to do with it is on descriptor 3. */
      readonly aci?: true;
      /** The tree is no overlay's layer: attributes that say something to overlayfs stay as they are. */
      readonly plain?: true;
      /** ms without a byte on the pipe before the child gives up */
      readonly idleMs: number;
    }
  /** Reads an ACI through: its ids, its manifest, what the layer made of it would have as diff-id. */
  | {
      readonly job: 'inspect-aci';
      readonly parent: number;
      /** An empty folder, to be shut in. */
      readonly folder: string;
      readonly compression: Compression;
      readonly bounds: Bounds;
      readonly idleMs: number;
    }
  | {
      readonly job: 'flatten';
      readonly parent: number;
      /** Absolute, lowest first. */
      readonly layers: readonly string[];
      readonly target: string;
    }
  | TarJob;

/**
 * Gives the tar of layers together (merge-layers.ts), that of one layer, or what one blob holds.
 * Transforms are on descriptor 3.
 */
export interface TarJob {
  readonly job: 'merge' | 'layer-tar' | 'decompress';
  readonly parent: number;
  /** An empty folder, to be shut in. */
  readonly folder: string;
  /** Lowest first. */
  readonly layers: readonly { readonly compression: Compression; readonly diffId: Digest }[];
  /** In front of every name. */
  readonly prefix: string;
  readonly bounds: Bounds;
}

/** Descriptors of the child. */
export const EXTRA_FD = 3;
export const TAR_FD = 4;
export const FIRST_BLOB_FD = 5;

export interface Unpacked {
  readonly diffId: string;
  /** Bytes of file content. */
  readonly bytes: number;
  readonly entries: number;
  /** Of `inspect-aci`. */
  readonly aci?: {
    /** `sha512:…` of the uncompressed archive */
    readonly id: string;
    /** base64 of the file `manifest` */
    readonly manifest: string;
  };
}

export type Answer =
  | { readonly ok: true; readonly result: Unpacked | undefined }
  | {
      readonly ok: false;
      readonly code: ErrorCode;
      readonly message: string;
      readonly hint?: string;
    };

export function answerOf(error: unknown): Answer {
  if (error instanceof TspodError) {
    const { code, message, hint } = error;
    return { ok: false, code, message, ...(hint === undefined ? {} : { hint }) };
  }
  const text = error instanceof Error ? error.message : String(error);
  return { ok: false, code: 'system', message: `layer: can't unpack: ${text}` };
}
