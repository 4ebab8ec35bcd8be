/**
 * A whole sigstore of the tests' own, made anew in each run: certificate authority, certificate transparency
 * log, both kinds of Rekor, timestamp authority, and the trusted root that names them.
 */
import type { KeyObject } from 'node:crypto';
import {
  type Authority,
  authority,
  authorityKeyId,
  CODE_SIGNING,
  certificate,
  ecKey,
  HOUR,
  issuerV2,
  type KeyPair,
  keyUsage,
  purpose,
  sctList,
  sha256,
  spki,
  subjectAltName,
  subjectKeyId,
} from './certificates.ts';
import { seq } from './der.ts';
import { type Log, rekor1, rekor2 } from './logs.ts';
import { type TimestampAuthority, timestampAuthority } from './timestamps.ts';

export const IDENTITY =
  'https://github.com/example/app/.github/workflows/release.yml@refs/heads/main';
export const ISSUER = 'https://token.actions.githubusercontent.com';

export interface Issued {
  readonly keys: KeyPair;
  readonly certificate: Buffer;
}

export interface IssueOptions {
  readonly identity?: string;
  readonly keys?: KeyPair;
  readonly from?: Date;
  readonly to?: Date;
  readonly issuer?: Authority;
  /** undefined: of the instance's log. */
  readonly ctLog?: KeyPair | 'none';
  /** In the place of usage, purpose, identity and issuer. */
  readonly extensions?: readonly Buffer[];
}

export interface Instance {
  /** When everything is signed. */
  readonly now: Date;
  readonly root: Authority;
  readonly intermediate: Authority;
  readonly ctLog: KeyPair;
  readonly rekor1: Log;
  readonly rekor2: Log;
  readonly timestamps: TimestampAuthority;
  /** A certificate for ten minutes, as Fulcio's. */
  issue(options?: IssueOptions): Issued;
  /** trusted_root.json */
  trustedRoot(): TrustedRootJson;
}

export interface LogJson {
  baseUrl: string;
  hashAlgorithm: string;
  publicKey: { rawBytes: string; keyDetails: string; validFor: Period };
  logId: { keyId: string };
}

export interface AuthorityJson {
  subject: { organization: string; commonName: string };
  uri: string;
  certChain: { certificates: { rawBytes: string }[] };
  validFor: Period;
}

interface Period {
  start?: string;
  end?: string;
}

export interface TrustedRootJson {
  mediaType: string;
  tlogs: LogJson[];
  certificateAuthorities: AuthorityJson[];
  ctlogs: LogJson[];
  timestampAuthorities: AuthorityJson[];
}

export function makeInstance(now = new Date('2026-01-15T12:00:00Z')): Instance {
  const from = new Date(now.getTime() - 1000 * HOUR);
  const to = new Date(now.getTime() + 1000 * HOUR);
  const root = authority('test root', from, to);
  const intermediate = authority('test intermediate', from, to, root);
  const ctLog = ecKey();
  const instance: Instance = {
    now,
    root,
    intermediate,
    ctLog,
    rekor1: rekor1('rekor.test'),
    rekor2: rekor2('log2026.rekor.test'),
    timestamps: timestampAuthority(from, to),
    issue: options => issue(instance, options ?? {}),
    trustedRoot: () => trustedRoot(instance, from),
  };
  return instance;
}

/** What a certificate says besides its SCT. */
export function usualExtensions(identity = IDENTITY): Buffer[] {
  return [keyUsage(0x80, 7), purpose(CODE_SIGNING), subjectAltName(identity), issuerV2(ISSUER)];
}

function issue(instance: Instance, options: IssueOptions): Issued {
  const keys = options.keys ?? ecKey();
  const issuer = options.issuer ?? instance.intermediate;
  const ctLog = options.ctLog ?? instance.ctLog;
  const made = certificate(
    {
      issuer,
      subject: seq(),
      key: keys.publicKey,
      from: options.from ?? new Date(instance.now.getTime() - 60_000),
      to: options.to ?? new Date(instance.now.getTime() + 540_000),
      extensions: [
        ...(options.extensions ?? usualExtensions(options.identity)),
        subjectKeyId(keys.publicKey),
        authorityKeyId(issuer.keys.publicKey),
      ],
    },
    tbs =>
      ctLog === 'none' ? undefined : sctList(ctLog, issuer.keys.publicKey, tbs, instance.now),
  );
  return { keys, certificate: made };
}

function trustedRoot(instance: Instance, from: Date): TrustedRootJson {
  const validFor = () => ({ start: from.toISOString() });
  const log = (baseUrl: string, key: KeyObject, id: Buffer, keyDetails: string): LogJson => ({
    baseUrl,
    hashAlgorithm: 'SHA2_256',
    publicKey: { rawBytes: spki(key).toString('base64'), keyDetails, validFor: validFor() },
    logId: { keyId: id.toString('base64') },
  });
  const chain = (uri: string, certificates: readonly Buffer[]): AuthorityJson => ({
    subject: { organization: 'test', commonName: 'test' },
    uri,
    certChain: {
      certificates: certificates.map(der => ({ rawBytes: der.toString('base64') })),
    },
    validFor: validFor(),
  });
  const rekor = ({ host, keys, id, keyDetails }: Log) =>
    log(`https://${host}`, keys.publicKey, id, keyDetails);
  const ct = instance.ctLog.publicKey;
  return {
    mediaType: 'application/vnd.dev.sigstore.trustedroot+json;version=0.1',
    tlogs: [rekor(instance.rekor1), rekor(instance.rekor2)],
    certificateAuthorities: [
      chain('https://fulcio.test', [instance.intermediate.certificate, instance.root.certificate]),
    ],
    ctlogs: [log('https://ct.test', ct, sha256(spki(ct)), 'PKIX_ECDSA_P256_SHA_256')],
    timestampAuthorities: [chain('https://tsa.test', instance.timestamps.chain)],
  };
}
