/** Transparency logs of the tests' own: Rekor v1 (promises, ECDSA) and v2 (tiles, Ed25519). */
import { generateKeyPairSync, sign } from 'node:crypto';
import { ecKey, type KeyPair, sha256, spki } from './certificates.ts';

/** A bundle's `tlogEntries[]`. */
export interface LogEntry {
  logIndex: string;
  logId: { keyId: string };
  kindVersion: { kind: string; version: string };
  integratedTime?: string;
  inclusionPromise?: { signedEntryTimestamp: string };
  inclusionProof?: InclusionProof;
  canonicalizedBody: string;
}

export interface InclusionProof {
  logIndex: string;
  rootHash: string;
  treeSize: string;
  hashes: string[];
  checkpoint: { envelope: string };
}

export interface Log {
  readonly host: string;
  readonly keys: KeyPair;
  readonly id: Buffer;
  readonly keyDetails: string;
  /** Logs a body among `others` earlier entries and proves it. */
  add(body: EntryBody, at: Date, others?: number): LogEntry;
  checkpoint(size: number, root: Uint8Array): string;
}

export interface EntryBody {
  readonly kind: string;
  readonly apiVersion: string;
  readonly spec: object;
}

export function rekor1(host: string): Log {
  const keys = ecKey();
  const id = sha256(spki(keys.publicKey));
  const checkpoint = (size: number, root: Uint8Array) =>
    note(`${host} - 42\n${size}\n${base64(root)}\n`, host, id, text =>
      sign('sha256', Buffer.from(text), keys.privateKey),
    );
  const add = (body: EntryBody, at: Date, others = 5): LogEntry => {
    const bytes = Buffer.from(canonical(body));
    const integratedTime = Math.floor(at.getTime() / 1000);
    // The index over all of Rekor's trees; the proof's is that in the newest tree.
    const logIndex = 1000 + others;
    const promised = canonical({
      body: base64(bytes),
      integratedTime,
      logIndex,
      logID: id.toString('hex'),
    });
    return {
      logIndex: String(logIndex),
      logId: { keyId: base64(id) },
      kindVersion: { kind: body.kind, version: body.apiVersion },
      integratedTime: String(integratedTime),
      inclusionPromise: {
        signedEntryTimestamp: base64(sign('sha256', Buffer.from(promised), keys.privateKey)),
      },
      inclusionProof: prove(bytes, others, checkpoint),
      canonicalizedBody: base64(bytes),
    };
  };
  return { host, keys, id, keyDetails: 'PKIX_ECDSA_P256_SHA_256', add, checkpoint };
}

export function rekor2(host: string): Log {
  const keys = generateKeyPairSync('ed25519');
  const raw = spki(keys.publicKey).subarray(-32);
  // C2SP signed-note, "Signatures".
  const id = sha256(Buffer.from(`${host}\n`), Buffer.from([1]), raw);
  const checkpoint = (size: number, root: Uint8Array) =>
    note(`${host}\n${size}\n${base64(root)}\n`, host, id, text =>
      sign(null, Buffer.from(text), keys.privateKey),
    );
  const add = (body: EntryBody, _at: Date, others = 6): LogEntry => {
    const bytes = Buffer.from(canonical(body));
    return {
      logIndex: String(others),
      logId: { keyId: base64(id) },
      kindVersion: { kind: body.kind, version: body.apiVersion },
      inclusionProof: prove(bytes, others, checkpoint),
      canonicalizedBody: base64(bytes),
    };
  };
  return { host, keys, id, keyDetails: 'PKIX_ED25519', add, checkpoint };
}

function note(
  text: string,
  name: string,
  id: Uint8Array,
  signer: (text: string) => Uint8Array,
): string {
  return `${text}\n— ${name} ${base64(Buffer.concat([id.subarray(0, 4), signer(text)]))}\n`;
}

/** RFC 6962, 2.1.1, with two younger entries behind. */
function prove(
  body: Uint8Array,
  others: number,
  checkpoint: (size: number, root: Uint8Array) => string,
): InclusionProof {
  const leaves = Array.from({ length: others }, (_, index) => leafHash(Buffer.from(`e${index}`)));
  leaves.push(leafHash(body), leafHash(Buffer.from('y')), leafHash(Buffer.from('z')));
  const root = treeHash(leaves);
  return {
    logIndex: String(others),
    rootHash: base64(root),
    treeSize: String(leaves.length),
    hashes: path(others, leaves).map(base64),
    checkpoint: { envelope: checkpoint(leaves.length, root) },
  };
}

const leafHash = (body: Uint8Array): Buffer => sha256(Buffer.from([0]), body);

function treeHash(leaves: readonly Buffer[]): Buffer {
  const [only] = leaves;
  if (only !== undefined && leaves.length === 1) return only;
  const half = splitAt(leaves.length);
  return sha256(Buffer.from([1]), treeHash(leaves.slice(0, half)), treeHash(leaves.slice(half)));
}

function path(index: number, leaves: readonly Buffer[]): Buffer[] {
  if (leaves.length === 1) return [];
  const half = splitAt(leaves.length);
  return index < half
    ? [...path(index, leaves.slice(0, half)), treeHash(leaves.slice(half))]
    : [...path(index - half, leaves.slice(half)), treeHash(leaves.slice(0, half))];
}

/** The largest power of two below. */
const splitAt = (size: number): number => 2 ** Math.floor(Math.log2(size - 1));

const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');

/** RFC 8785, for texts and small numbers: keys in order, no spaces. */
export function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const entries = Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return `{${entries.map(([key, item]) => `${JSON.stringify(key)}:${canonical(item)}`).join(',')}}`;
}
