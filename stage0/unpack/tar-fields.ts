/**
 * Fields of a 512-byte tar header: strings, octal and base-256 numbers, the checksum. POSIX.1-2017,
 * pax, "ustar Interchange Format", and the GNU tar manual, "Basic Tar Format".
 */

/** Thrown inside the reader only; it adds the entry and the offset. */
export class FieldError extends Error {}

/** The bytes up to the first NUL, as a view. */
export function stringField(block: Buffer, start: number, length: number): Buffer {
  let end = start;
  const limit = start + length;
  while (end < limit && block[end] !== 0) end += 1;
  return block.subarray(start, end);
}

/**
 * A number: octal digits between blanks and NULs, or base-256 when the first byte's top bit is set
 * (two's complement, big-endian). An empty field is 0.
 */
export function numberField(block: Buffer, start: number, length: number, what: string): number {
  const first = block[start] ?? 0;
  if (first & 0x80) return base256(block, start, length, what);
  let at = start;
  const limit = start + length;
  while (at < limit && (block[at] === 0x20 || block[at] === 0)) at += 1;
  let value = 0;
  for (; at < limit; at += 1) {
    const digit = (block[at] ?? 0) - 0x30;
    if (digit < 0 || digit > 7) break;
    value = value * 8 + digit;
  }
  for (; at < limit; at += 1) {
    if (block[at] !== 0x20 && block[at] !== 0) throw new FieldError(`${what} is not a number`);
  }
  return value; // at most 12 octal digits: exact
}

function base256(block: Buffer, start: number, length: number, what: string): number {
  const first = block[start] ?? 0;
  const negative = (first & 0x40) !== 0;
  let value = negative ? (first & 0x7f) - 0x80 : first & 0x3f;
  for (let at = start + 1; at < start + length; at += 1) {
    value = value * 256 + (block[at] ?? 0);
    if (!Number.isSafeInteger(value)) throw new FieldError(`${what} is out of range`);
  }
  return value;
}

export function isZeroBlock(block: Buffer): boolean {
  for (let at = 0; at < 512; at += 1) if (block[at] !== 0) return false;
  return true;
}

/**
 * The sum of all bytes with the checksum field read as blanks. Old tars summed signed bytes, so either
 * sum is accepted, as GNU tar does.
 */
export function checksumFits(block: Buffer): boolean {
  let unsigned = 8 * 0x20;
  let high = 0;
  for (let at = 0; at < 512; at += 1) {
    if (at === 148) at = 156;
    const byte = block[at] ?? 0;
    unsigned += byte;
    if (byte > 127) high += 1;
  }
  const stored = numberField(block, 148, 8, 'the checksum');
  return stored === unsigned || stored === unsigned - 256 * high;
}

const DECIMAL = /^[0-9]{1,16}$/;

/** A decimal number of a PAX record. */
export function paxNumber(value: Buffer, what: string): number {
  const text = value.toString('latin1');
  const number = Number(text);
  if (!DECIMAL.test(text) || !Number.isSafeInteger(number)) {
    throw new FieldError(`${what} is not a number`);
  }
  return number;
}

const TIME = /^(-?)([0-9]{1,15})(?:\.([0-9]{0,30}))?$/;

/** A PAX time `[-]seconds[.fraction]` as whole seconds and 0 to 999,999,999 ns, rounded down. */
export function paxTime(value: Buffer, what: string): { sec: number; nsec: number } {
  const parts = TIME.exec(value.toString('latin1'));
  if (parts === null) throw new FieldError(`${what} is not a time`);
  const sec = Number(parts[2]);
  const fraction = parts[3] ?? '';
  const nsec = Number(fraction.slice(0, 9).padEnd(9, '0'));
  if (parts[1] !== '-') return { sec, nsec };
  const rest = /[1-9]/.test(fraction.slice(9)) ? 1 : 0;
  const below = nsec + rest;
  return below === 0 ? { sec: 0 - sec, nsec: 0 } : { sec: -sec - 1, nsec: 1_000_000_000 - below };
}
