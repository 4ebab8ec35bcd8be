/** A timestamp authority of the tests' own (RFC 3161, CMS: RFC 5652). */
import { sign } from 'node:crypto';
import {
  type Authority,
  authority,
  authorityKeyId,
  certificate,
  distinguishedName,
  ECDSA_SHA256,
  ecKey,
  keyUsage,
  purpose,
  sha256,
  subjectKeyId,
  TIME_STAMPING,
} from './certificates.ts';
import { ctx, int, octets, oid, seq, set, time } from './der.ts';

export interface TimestampAuthority {
  /** The signing certificate, then its root: DER. */
  readonly chain: readonly Buffer[];
  /** A response with a token that says: these bytes existed at that time. */
  stamp(bytes: Uint8Array, at: Date, wrong?: WrongStamp): Buffer;
}

/** What may be wrong with an answer whose token is signed all the same. */
export interface WrongStamp {
  readonly status?: number;
  readonly contentType?: Buffer;
  readonly innerType?: Buffer;
  readonly signedType?: Buffer;
  readonly signers?: number;
  readonly attributes?: readonly Buffer[];
}

const SHA256 = seq(oid('2.16.840.1.101.3.4.2.1'));
const SIGNED_DATA = oid('1.2.840.113549.1.7.2');
const TST_INFO = oid('1.2.840.113549.1.9.16.1.4');

export function timestampAuthority(from: Date, to: Date): TimestampAuthority {
  const root: Authority = authority('test timestamps', from, to);
  const keys = ecKey();
  const serial = Buffer.from('0102030405060708', 'hex');
  const leaf = certificate(
    {
      issuer: root,
      subject: distinguishedName('test timestamp signer'),
      key: keys.publicKey,
      from,
      to,
      extensions: [
        keyUsage(0x80, 7),
        purpose(TIME_STAMPING, true),
        subjectKeyId(keys.publicKey),
        authorityKeyId(root.keys.publicKey),
      ],
    },
    undefined,
    serial,
  );
  const stamp = (bytes: Uint8Array, at: Date, wrong: WrongStamp = {}): Buffer => {
    const info = seq(
      int(1),
      oid('1.3.6.1.4.1.57264.2'),
      seq(SHA256, octets(sha256(bytes))),
      int(serial),
      time(at),
    );
    const attributes = [
      seq(oid('1.2.840.113549.1.9.3'), set(wrong.signedType ?? TST_INFO)),
      seq(oid('1.2.840.113549.1.9.4'), set(octets(sha256(info)))),
      // ESSCertIDv2 (RFC 5816): which certificate it is.
      seq(oid('1.2.840.113549.1.9.16.2.47'), set(seq(seq(seq(octets(sha256(leaf))))))),
      ...(wrong.attributes ?? []),
    ];
    const signature = sign('sha256', set(...attributes), keys.privateKey);
    const signer = seq(
      int(1),
      seq(root.name, int(serial)),
      SHA256,
      ctx(0, ...attributes),
      ECDSA_SHA256,
      octets(signature),
    );
    const signers = Array.from({ length: wrong.signers ?? 1 }, () => signer);
    const signed = seq(
      int(3),
      set(SHA256),
      seq(wrong.innerType ?? TST_INFO, ctx(0, octets(info))),
      set(...signers),
    );
    return seq(seq(int(wrong.status ?? 0)), seq(wrong.contentType ?? SIGNED_DATA, ctx(0, signed)));
  };
  return { chain: [leaf, root.certificate], stamp };
}
