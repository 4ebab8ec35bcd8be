/**
 * The frame of an RFC 3161 timestamp. The library finds the parts that it checks by their place, whatever stands
 * around them; that it is a granted answer, one token of that type with one signer, is checked here (RFC 3161,
 * 2.4.2; CMS: RFC 5652, 5.1, 5.3 and 11.1).
 */
import { ASN1Obj } from '@sigstore/core';
import { refuse } from './refusal.ts';

const SIGNED_DATA = '1.2.840.113549.1.7.2';
const TST_INFO = '1.2.840.113549.1.9.16.1.4';
const CONTENT_TYPE = '1.2.840.113549.1.9.3';
const MESSAGE_DIGEST = '1.2.840.113549.1.9.4';

const TAG = { integer: 0x02, octets: 0x04, sequence: 0x30, set: 0x31, explicit: 0xa0 };

/** @throws Refusal */
export function checkTimestampFrame(der: Uint8Array): void {
  const [status, token] = parts(decode(der), TAG.sequence, 2);
  const granted = at(parts(status, TAG.sequence, 1), 0, TAG.integer).toInteger();
  // 1: granted, with changes that the answer tells.
  if (granted !== 0n && granted !== 1n) refuse("its timestamp's request was rejected");
  const contentInfo = parts(token, TAG.sequence, 2);
  if (oidOf(contentInfo[0]) !== SIGNED_DATA) refuse('its timestamp is not signed data');
  const signedData = parts(
    at(parts(contentInfo[1], TAG.explicit, 1), 0, TAG.sequence),
    TAG.sequence,
    4,
  );
  at(signedData, 0, TAG.integer);
  at(signedData, 1, TAG.set);
  const content = parts(signedData[2], TAG.sequence, 2);
  if (oidOf(content[0]) !== TST_INFO) refuse('its timestamp is of another type');
  at(parts(content[1], TAG.explicit, 1), 0, TAG.octets);
  const signers = parts(signedData.at(-1), TAG.set, 1);
  if (signers.length !== 1) refuse(`its timestamp has ${signers.length} signers, not one`);
  checkSigner(signers[0]);
}

function decode(der: Uint8Array): ASN1Obj {
  try {
    return ASN1Obj.parseBuffer(Buffer.from(der));
  } catch {
    return refuse('its timestamp does not decode');
  }
}

function checkSigner(signer: ASN1Obj | undefined): void {
  const fields = parts(signer, TAG.sequence, 6);
  at(fields, 0, TAG.integer);
  at(fields, 1, TAG.sequence);
  at(fields, 2, TAG.sequence);
  const attributes = parts(fields[3], TAG.explicit, 2).map(attribute => {
    const [type, values] = parts(attribute, TAG.sequence, 2);
    return { type: oidOf(type), values: parts(values, TAG.set, 1) };
  });
  const types = attributes.map(({ type }) => type);
  if (new Set(types).size !== types.length || !types.includes(MESSAGE_DIGEST)) {
    refuse('its timestamp does not decode');
  }
  const contentType = attributes.find(({ type }) => type === CONTENT_TYPE)?.values[0];
  // Without it, a signature over anything else of the same shape would do.
  if (contentType === undefined || oidOf(contentType) !== TST_INFO) {
    refuse('its timestamp is of another type');
  }
  at(fields, 4, TAG.sequence);
  at(fields, 5, TAG.octets);
}

/** The parts of a constructed value: at least `least`. */
function parts(value: ASN1Obj | undefined, tag: number, least: number): readonly ASN1Obj[] {
  if (value === undefined || value.tag.toDER() !== tag || value.subs.length < least) {
    return refuse('its timestamp does not decode');
  }
  return value.subs;
}

function at(list: readonly ASN1Obj[], index: number, tag: number): ASN1Obj {
  const value = list[index];
  return value?.tag.toDER() === tag ? value : refuse('its timestamp does not decode');
}

function oidOf(value: ASN1Obj | undefined): string {
  return value?.tag.isOID() === true ? value.toOID() : refuse('its timestamp does not decode');
}
