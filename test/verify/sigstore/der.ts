/** A writer of DER (X.690), as little as certificates and timestamps need. */

export function tlv(tag: number, ...contents: readonly Uint8Array[]): Buffer {
  const content = Buffer.concat(contents);
  const length: number[] = [];
  for (let rest = content.length; rest > 0; rest >>>= 8) length.unshift(rest & 0xff);
  const head = content.length < 128 ? [content.length] : [0x80 | length.length, ...length];
  return Buffer.concat([Buffer.from([tag, ...head]), content]);
}

export const seq = (...contents: readonly Uint8Array[]): Buffer => tlv(0x30, ...contents);
export const set = (...contents: readonly Uint8Array[]): Buffer => tlv(0x31, ...contents);
export const octets = (...contents: readonly Uint8Array[]): Buffer => tlv(0x04, ...contents);
export const bool = (value: boolean): Buffer => tlv(0x01, Buffer.from([value ? 0xff : 0]));
export const utf8 = (text: string): Buffer => tlv(0x0c, Buffer.from(text));
export const bits = (bytes: Uint8Array, unused = 0): Buffer =>
  tlv(0x03, Buffer.from([unused]), bytes);

export function int(value: number | Uint8Array): Buffer {
  let bytes = typeof value === 'number' ? Buffer.from([value]) : Buffer.from(value);
  if (((bytes[0] ?? 0) & 0x80) !== 0) bytes = Buffer.concat([Buffer.from([0]), bytes]);
  return tlv(0x02, bytes);
}

export function oid(text: string): Buffer {
  const [first = 0, second = 0, ...others] = text.split('.').map(Number);
  const bytes = [first * 40 + second];
  for (const arc of others) {
    const digits = [arc & 0x7f];
    for (let rest = Math.floor(arc / 128); rest > 0; rest = Math.floor(rest / 128)) {
      digits.unshift(0x80 | (rest & 0x7f));
    }
    bytes.push(...digits);
  }
  return tlv(0x06, Buffer.from(bytes));
}

/** Context-specific: constructed, or primitive with plain content. */
export const ctx = (number: number, ...contents: readonly Uint8Array[]): Buffer =>
  tlv(0xa0 | number, ...contents);
export const ctxPlain = (number: number, content: Uint8Array): Buffer =>
  tlv(0x80 | number, content);

export function time(date: Date): Buffer {
  const text = date.toISOString().replace(/[-:T]|\.\d+/g, '');
  return tlv(0x18, Buffer.from(text));
}
