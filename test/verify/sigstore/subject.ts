/** What is signed in tests: a small manifest, its subject, and statements about it. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseDigest } from '../../../src/image/digest.ts';
import { loadTrustedRoot, type TrustedRoot } from '../../../stage0/verify/sigstore/trusted-root.ts';
import type { Subject } from '../../../stage0/verify/types.ts';
import { sha256 } from './certificates.ts';

export const MANIFEST = Buffer.from('{"schemaVersion":2,"config":{},"layers":[]}');

export function subjectOf(bytes: Uint8Array = MANIFEST, name = 'quay.io/example/app'): Subject {
  return {
    name,
    reference: `docker://${name}:1`,
    digest: parseDigest(`sha256:${sha256(bytes).toString('hex')}`, 'test'),
    // In pieces, as a file comes.
    content: () => [bytes.subarray(0, 7), bytes.subarray(7)],
  };
}

export function statementOf(subject: Subject, changes: object = {}): string {
  return JSON.stringify({
    _type: 'https://in-toto.io/Statement/v1',
    subject: [{ digest: { sha256: subject.digest.slice('sha256:'.length) } }],
    predicateType: 'https://sigstore.dev/cosign/sign/v1',
    predicate: {},
    ...changes,
  });
}

/** cosign's payload. */
export function simpleSigning(subject: Subject, name = subject.name, type?: string): Buffer {
  return Buffer.from(
    JSON.stringify({
      critical: {
        identity: { 'docker-reference': name },
        image: { 'docker-manifest-digest': subject.digest },
        type: type ?? 'cosign container image signature',
      },
      optional: null,
    }),
  );
}

export function loadRoot(json: unknown): TrustedRoot {
  const folder = mkdtempSync(join(tmpdir(), 'tspod-root-'));
  try {
    const path = join(folder, 'trusted_root.json');
    writeFileSync(path, typeof json === 'string' ? json : JSON.stringify(json));
    return loadTrustedRoot(path);
  } finally {
    rmSync(folder, { recursive: true });
  }
}
