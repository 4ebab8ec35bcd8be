/**
 * What passes between tspod and the child that unpacks: one JSON object as its argument, one JSON object
 * on its standard output. Blanks before the answer say "still working". Whitelists of ACIs may be longer
 * than an argument: they come as JSON on descriptor 3.
 */
import { type ErrorCode, TspodError } from '../../src/errors.ts';
import type { DigestAlgorithm } from '../../src/image/digest.ts';
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
    };

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
