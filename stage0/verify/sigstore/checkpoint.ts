/**
 * A log's checkpoint (C2SP: tlog-checkpoint and signed-note): origin, size and root hash of the tree, a blank line,
 * then signatures. The library looks for signatures anywhere behind the blank line; that nothing else stands there,
 * and that the proof claims the same tree, is checked here.
 */
import { decodeBase64 } from './base64.ts';
import { refuse } from './refusal.ts';

export interface ClaimedTree {
  readonly treeSize: string;
  readonly rootHash: Buffer;
  readonly checkpoint: { readonly envelope: string } | undefined;
}

/** Witnesses sign, too. */
const MAX_SIGNATURES = 64;
const MAX_SIGNATURE = 8 * 1024;

/** @throws Refusal */
export function checkCheckpoint(proof: ClaimedTree): void {
  const [text = '', signatures, ...others] = proof.checkpoint?.envelope.split('\n\n') ?? [];
  const lines = signatures?.split('\n') ?? [];
  // The last line has an end, too.
  if (others.length > 0 || lines.pop() !== '' || !lines.every(isSignature)) {
    refuse("its log's checkpoint is not a signed note");
  }
  if (lines.length > MAX_SIGNATURES) {
    refuse(`its log's checkpoint has more than ${MAX_SIGNATURES} signatures`);
  }
  const [, size, hash] = text.split('\n');
  if (size !== proof.treeSize || hash !== proof.rootHash.toString('base64')) {
    refuse("its inclusion proof and its log's checkpoint disagree");
  }
}

function isSignature(line: string): boolean {
  const [dash, name, signature, ...others] = line.split(' ');
  return (
    dash === '—' &&
    name !== undefined &&
    name !== '' &&
    decodeBase64(signature ?? '', MAX_SIGNATURE) !== undefined &&
    others.length === 0
  );
}
