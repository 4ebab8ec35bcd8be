/** The keys that end attaching: found in what is typed, also when they come in pieces, and never sent on. */
import { TspodError } from '../../src/errors.ts';

const MOST_KEYS = 16;

/**
 * `ctrl-p,ctrl-q`, `ctrl-a,d`; `none`: there are none.
 * @throws TspodError 'usage'
 */
export function parseDetachKeys(text: string): Uint8Array {
  if (text === 'none' || text === '') return new Uint8Array();
  const keys = text.split(',').map(key => {
    const control = /^ctrl-([a-z@[\\\]^_])$/.exec(key)?.[1];
    if (control !== undefined) return control.toUpperCase().charCodeAt(0) & 0x1f;
    if (/^[\x21-\x7e]$/.test(key)) return key.charCodeAt(0);
    throw new TspodError('usage', `--detach-keys: ${JSON.stringify(key.slice(0, 20))} is no key`, {
      hint: 'give one or more of a letter or ctrl-LETTER, with commas',
    });
  });
  if (keys.length > MOST_KEYS)
    throw new TspodError('usage', `--detach-keys: over ${MOST_KEYS} keys`);
  return Uint8Array.from(keys);
}

export class DetachFilter {
  readonly #keys: Uint8Array;
  #matched = 0;

  constructor(keys: Uint8Array) {
    this.#keys = keys;
  }

  /** What of the input is to be sent on, and whether the keys were in it; what follows them is dropped. */
  take(input: Uint8Array): { readonly pass: Buffer; readonly detach: boolean } {
    const keys = this.#keys;
    if (keys.length === 0) return { pass: Buffer.from(input), detach: false };
    const pass: number[] = [];
    for (const byte of input) {
      while (this.#matched > 0 && keys[this.#matched] !== byte) this.#fallBack(pass);
      if (keys[this.#matched] === byte) this.#matched += 1;
      else pass.push(byte);
      if (this.#matched === keys.length) {
        this.#matched = 0;
        return { pass: Buffer.from(pass), detach: true };
      }
    }
    return { pass: Buffer.from(pass), detach: false };
  }

  /** The longest beginning of the keys that also ends what was matched; the rest was typed. */
  #fallBack(pass: number[]): void {
    const keys = this.#keys;
    for (let shift = 1; shift <= this.#matched; shift++) {
      const left = this.#matched - shift;
      if (keys.subarray(0, left).every((key, index) => key === keys[index + shift])) {
        pass.push(...keys.subarray(0, shift));
        this.#matched = left;
        return;
      }
    }
  }
}
