/**
 * Trusted keys as the library has them, one per fingerprint. Of several copies, as two configuration folders
 * may hold them, the renewals and the revocations of all count; where one copy can't be read or has a revocation
 * that can't be checked, the key does not verify anything, whatever the others say.
 */
import type { PublicKey } from 'openpgp';
import { reasonOf } from '../../../src/errors.ts';
import type { TrustedKey } from './keystore.ts';
import { printable } from './packets.ts';
import { checkForeignRevocations, configOf } from './strictness.ts';

type Library = typeof import('./library.ts');

export interface LoadedKeys {
  readonly keys: readonly PublicKey[];
  /** Why some of them can't be used, by fingerprint: `FILE: why`. */
  readonly faults: ReadonlyMap<string, string>;
}

export async function loadKeys(
  library: Library,
  trusted: readonly TrustedKey[],
): Promise<LoadedKeys> {
  const keys = new Map<string, PublicKey>();
  const faults = new Map<string, string>();
  for (const { bytes, fingerprint, path } of trusted) {
    try {
      const key = await library.readKey({ binaryKey: bytes, config: configOf(library) });
      if (key.isPrivate() || key.getFingerprint() !== fingerprint) {
        throw new Error('the key inside is another one');
      }
      checkForeignRevocations(key);
      const former = keys.get(fingerprint);
      keys.set(fingerprint, former === undefined ? key : await former.update(key));
    } catch (error) {
      faults.set(fingerprint, `${path}: ${printable(reasonOf(error))}`);
    }
  }
  for (const fingerprint of faults.keys()) keys.delete(fingerprint);
  return { keys: [...keys.values()], faults };
}
