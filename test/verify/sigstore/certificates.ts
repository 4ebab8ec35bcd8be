/** Certificates as Fulcio issues them, with SCTs of a test log, and the authorities above them. */
import { createHash, generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto';
import { bits, bool, ctx, ctxPlain, int, octets, oid, seq, set, time, tlv, utf8 } from './der.ts';

export interface KeyPair {
  readonly privateKey: KeyObject;
  readonly publicKey: KeyObject;
}

export const ecKey = (namedCurve = 'P-256'): KeyPair => generateKeyPairSync('ec', { namedCurve });
export const spki = (key: KeyObject): Buffer => key.export({ type: 'spki', format: 'der' });
export const pem = (key: KeyObject): string =>
  key.export({ type: 'spki', format: 'pem' }).toString();
export const sha256 = (...parts: readonly Uint8Array[]): Buffer => {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return hash.digest();
};

export const ECDSA_SHA256 = seq(oid('1.2.840.10045.4.3.2'));
export const HOUR = 3_600_000;

export interface Authority {
  readonly name: Buffer;
  readonly keys: KeyPair;
  readonly certificate: Buffer;
}

export function distinguishedName(commonName: string): Buffer {
  return seq(set(seq(oid('2.5.4.3'), utf8(commonName))));
}

export function extension(id: string, value: Uint8Array, critical = false): Buffer {
  return critical ? seq(oid(id), bool(true), octets(value)) : seq(oid(id), octets(value));
}

export interface CertificateFields {
  readonly issuer: { readonly name: Buffer; readonly keys: KeyPair };
  readonly subject: Buffer;
  readonly key: KeyObject;
  readonly from: Date;
  readonly to: Date;
  readonly extensions: readonly Buffer[];
}

/** RFC 5280, 4.1. `complete` gets the unsigned part and may add an extension: an SCT list. */
export function certificate(
  fields: CertificateFields,
  complete?: (tbs: Buffer) => Buffer | undefined,
  serial: Buffer = Buffer.concat([Buffer.from([1]), randomBytes(15)]),
): Buffer {
  const tbsWith = (extensions: readonly Buffer[]) =>
    seq(
      ctx(0, int(2)),
      int(serial),
      ECDSA_SHA256,
      fields.issuer.name,
      seq(time(fields.from), time(fields.to)),
      fields.subject,
      spki(fields.key),
      ctx(3, seq(...extensions)),
    );
  const added = complete?.(tbsWith(fields.extensions));
  const tbs = tbsWith(added === undefined ? fields.extensions : [...fields.extensions, added]);
  return seq(tbs, ECDSA_SHA256, bits(sign('sha256', tbs, fields.issuer.keys.privateKey)));
}

const keyId = (key: KeyObject): Buffer => sha256(spki(key)).subarray(0, 20);
export const subjectKeyId = (key: KeyObject): Buffer => extension('2.5.29.14', octets(keyId(key)));
export const authorityKeyId = (key: KeyObject): Buffer =>
  extension('2.5.29.35', seq(ctxPlain(0, keyId(key))));
export const keyUsage = (usage: number, unused: number): Buffer =>
  extension('2.5.29.15', bits(Buffer.from([usage]), unused), true);
export const purpose = (id: string, critical = false): Buffer =>
  extension('2.5.29.37', seq(oid(id)), critical);
export const CODE_SIGNING = '1.3.6.1.5.5.7.3.3';
export const TIME_STAMPING = '1.3.6.1.5.5.7.3.8';
export const isAuthority = (): Buffer => extension('2.5.29.19', seq(bool(true)), true);

/** Signed by `above`, or by itself. */
export function authority(
  commonName: string,
  from: Date,
  to: Date,
  above?: Authority,
  keys: KeyPair = ecKey(),
): Authority {
  const name = distinguishedName(commonName);
  const issuer = above ?? { name, keys };
  const made = certificate({
    issuer,
    subject: name,
    key: keys.publicKey,
    from,
    to,
    extensions: [
      isAuthority(),
      keyUsage(0x06, 1),
      subjectKeyId(keys.publicKey),
      authorityKeyId(issuer.keys.publicKey),
    ],
  });
  return { name, keys, certificate: made };
}

/** RFC 6962, 3.2 and 3.3: a list of one timestamp over the certificate as it was without it. */
export function sctList(log: KeyPair, issuer: KeyObject, tbs: Buffer, at: Date): Buffer {
  const when = Buffer.alloc(8);
  when.writeBigUInt64BE(BigInt(at.getTime()));
  const signed = Buffer.concat([
    Buffer.from([0, 0]),
    when,
    Buffer.from([0, 1]),
    sha256(spki(issuer)),
    sized(3, tbs),
    Buffer.from([0, 0]),
  ]);
  const sct = Buffer.concat([
    Buffer.from([0]),
    sha256(spki(log.publicKey)),
    when,
    Buffer.from([0, 0, 4, 3]),
    sized(2, sign('sha256', signed, log.privateKey)),
  ]);
  return extension('1.3.6.1.4.1.11129.2.4.2', octets(sized(2, sized(2, sct))));
}

function sized(width: number, content: Uint8Array): Buffer {
  const length = Buffer.alloc(width);
  length.writeUIntBE(content.length, 0, width);
  return Buffer.concat([length, content]);
}

/** A URI, or an e-mail address where there is an @ and no scheme. */
export function subjectAltName(...identities: readonly (string | Buffer)[]): Buffer {
  const names = identities.map(identity =>
    typeof identity === 'string'
      ? ctxPlain(identity.includes('://') ? 6 : 1, Buffer.from(identity))
      : identity,
  );
  return extension('2.5.29.17', seq(...names), true);
}

export const issuerV2 = (issuer: string): Buffer =>
  extension('1.3.6.1.4.1.57264.1.8', utf8(issuer));
export const issuerV1 = (issuer: string): Buffer =>
  extension('1.3.6.1.4.1.57264.1.1', Buffer.from(issuer));
/** Fulcio's user names: otherName (RFC 5280, 4.2.1.6). */
export const userName = (name: string): Buffer =>
  ctx(0, oid('1.3.6.1.4.1.57264.1.7'), ctx(0, tlv(0x0c, Buffer.from(name))));
