/**
 * The leaf certificate of a keyless signature: what it says about itself, and that it is one for signing code.
 * The library checks its chain, its dates and its SCTs, but neither what it may be used for nor whom it names
 * (Fulcio's certificate-specification.md, "Issued Certificate").
 */
import { createPublicKey, type KeyObject } from 'node:crypto';
import { type ASN1Obj, X509Certificate } from '@sigstore/core';
import type { CertificateIdentity } from './identity.ts';
import { refusal } from './public-key.ts';
import { Refusal, refuse } from './refusal.ts';

export interface Leaf extends CertificateIdentity {
  readonly certificate: X509Certificate;
  readonly der: Buffer;
  readonly key: KeyObject;
}

const OID = {
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  extendedKeyUsage: '2.5.29.37',
  codeSigning: '1.3.6.1.5.5.7.3.3',
  fulcioUserName: '1.3.6.1.4.1.57264.1.7',
  issuerV2: '1.3.6.1.4.1.57264.1.8',
  issuerV1: '1.3.6.1.4.1.57264.1.1',
};

/** Critical extensions that are looked at, here or by the library. */
const UNDERSTOOD: ReadonlySet<string> = new Set([
  OID.keyUsage,
  OID.subjectAltName,
  OID.basicConstraints,
  OID.extendedKeyUsage,
]);

/** @throws Refusal */
export function readLeaf(der: Uint8Array): Leaf {
  const bytes = Buffer.from(der);
  const certificate = decode(() => X509Certificate.parse(bytes));
  return decode(() => {
    checkExtensions(certificate);
    checkUse(certificate);
    const key = createPublicKey({ key: certificate.publicKey, format: 'der', type: 'spki' });
    const why = refusal(key);
    if (why !== undefined) refuse(`its certificate's key: ${why}`);
    return {
      certificate,
      der: bytes,
      key,
      identity: subjectOf(certificate),
      issuer: issuerOf(certificate),
    };
  });
}

/** Whether a certificate names itself as its issuer: a root has no place in a bundle. */
export function isSelfIssued(der: Uint8Array): boolean {
  return decode(() => {
    const certificate = X509Certificate.parse(Buffer.from(der));
    return certificate.issuer.equals(certificate.subject);
  });
}

function decode<T>(act: () => T): T {
  try {
    return act();
  } catch (error) {
    if (error instanceof Refusal) throw error;
    return refuse('its certificate does not decode');
  }
}

function checkExtensions(certificate: X509Certificate): void {
  const seen = new Set<string>();
  for (const extension of certificate.extensions) {
    const oid = child(extension, 0).toOID();
    if (seen.has(oid)) refuse(`its certificate has the extension ${oid} twice`);
    seen.add(oid);
    const critical = extension.subs.length === 3 && child(extension, 1).toBoolean();
    if (critical && !UNDERSTOOD.has(oid)) {
      refuse(`its certificate has the critical extension ${oid}, which is not understood`);
    }
  }
}

function checkUse(certificate: X509Certificate): void {
  if (certificate.extBasicConstraints?.isCA === true) {
    refuse("its certificate is a certificate authority's");
  }
  const usage = value(certificate, OID.keyUsage)?.toBitString();
  if (usage?.[0] !== 1) refuse('its certificate is not for digital signatures');
  const purposes = value(certificate, OID.extendedKeyUsage)?.subs.map(purpose => purpose.toOID());
  if (purposes?.includes(OID.codeSigning) !== true)
    refuse('its certificate is not for signing code');
}

/** An e-mail address, a URI, or Fulcio's otherName; exactly one. */
function subjectOf(certificate: X509Certificate): string {
  const names = value(certificate, OID.subjectAltName)?.subs ?? [];
  const [name] = names;
  if (name === undefined || names.length > 1) {
    return refuse(`its certificate names ${names.length} identities, not one`);
  }
  if (name.tag.isContextSpecific(1) || name.tag.isContextSpecific(6)) return text(name.value);
  if (name.tag.isContextSpecific(0) && child(name, 0).toOID() === OID.fulcioUserName) {
    return text(child(child(name, 1), 0).value);
  }
  return refuse("its certificate's identity is neither an e-mail address nor a URI");
}

function issuerOf(certificate: X509Certificate): string {
  const current = value(certificate, OID.issuerV2);
  if (current !== undefined) return text(current.value);
  // The old one is the bare text, without a DER type around it.
  const old = certificate.extension(OID.issuerV1);
  return old === undefined ? refuse("its certificate names no identity's issuer") : text(old.value);
}

/** What an extension's octets hold. */
function value(certificate: X509Certificate, oid: string): ASN1Obj | undefined {
  const extension = certificate.extension(oid);
  return extension === undefined ? undefined : child(extension.valueObj, 0);
}

function child(parent: ASN1Obj, index: number): ASN1Obj {
  return parent.subs[index] ?? refuse('its certificate does not decode');
}

const MAX_NAME = 2048;

/** Strictly: the library's `ascii` would clear the highest bit, and make other names look like a known one. */
function text(bytes: Uint8Array): string {
  const decoded = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  if (decoded === '' || decoded.length > MAX_NAME || /\p{Cc}/u.test(decoded))
    refuse("its certificate's identity is not a name");
  return decoded;
}
