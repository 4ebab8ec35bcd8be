/** PEM (RFC 7468), strictly: one block and nothing else but white space. */
import { decodeBase64 } from './base64.ts';

export interface PemBlock {
  readonly label: string;
  readonly der: Buffer;
}

const MAX_PEM = 128 * 1024;
const GRAMMAR =
  /^\s*-----BEGIN ([A-Z0-9 ]{1,40})-----\r?\n([A-Za-z0-9+/=\r\n]*)-----END \1-----\s*$/;

/** undefined: no PEM, more than one block, or over 128 KiB. */
export function decodePem(text: string): PemBlock | undefined {
  if (text.length > MAX_PEM) return undefined;
  const [, label, body = ''] = GRAMMAR.exec(text) ?? [];
  const der = decodeBase64(body.replace(/[\r\n]/g, ''), MAX_PEM);
  return label === undefined || der === undefined ? undefined : { label, der };
}
