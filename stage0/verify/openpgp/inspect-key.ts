/**
 * A key as people compare it: fingerprints in groups of four, the identities and subkeys that the key itself has
 * signed. What a stranger has put into the file beside them is not shown.
 */
import type { Config, PublicKey } from 'openpgp';
import { reasonOf, TspodError } from '../../../src/errors.ts';
import type { KeyBlock } from './key-block.ts';
import { printable } from './packets.ts';
import { checkCurves, checkForeignRevocations, configOf } from './strictness.ts';

export interface InspectedKey {
  readonly fingerprint: string;
  /** Fingerprints. */
  readonly subkeys: readonly string[];
  readonly identities: readonly string[];
  /** Why it can't verify anything now; undefined when it can. */
  readonly unusable: string | undefined;
}

/** @throws TspodError 'protocol' when the key can't be read */
export async function inspectKey(block: KeyBlock): Promise<InspectedKey> {
  const library = await import('./library.ts');
  const config = configOf(library);
  let key: PublicKey;
  try {
    key = await library.readKey({ binaryKey: block.bytes, config });
  } catch (error) {
    throw new TspodError(
      'protocol',
      `key ${block.fingerprint}: it can't be read: ${printable(reasonOf(error))}`,
      { cause: error },
    );
  }
  const subkeys: string[] = [];
  for (const subkey of key.subkeys) {
    if (await holds(() => subkey.verify(undefined, config))) subkeys.push(subkey.getFingerprint());
  }
  const identities: string[] = [];
  for (const user of key.users) {
    const { userID } = user;
    if (userID !== null && (await holds(() => user.verify(undefined, config)))) {
      identities.push(printable(userID.userID));
    }
  }
  return {
    fingerprint: block.fingerprint,
    subkeys,
    identities,
    unusable: await faultOf(key, config),
  };
}

/** `8B86 DE38 890D DB72 9186  7B02 5210 BD88 8818 2190`, as gpg and rkt print it. */
export function groupFingerprint(fingerprint: string): string {
  const groups = fingerprint.toUpperCase().match(/.{1,4}/g) ?? [];
  const half = groups.length / 2;
  return `${groups.slice(0, half).join(' ')}  ${groups.slice(half).join(' ')}`;
}

async function holds(check: () => Promise<unknown>): Promise<boolean> {
  try {
    await check();
    return true;
  } catch {
    return false;
  }
}

async function faultOf(key: PublicKey, config: Config): Promise<string | undefined> {
  try {
    checkCurves([key]);
    checkForeignRevocations(key);
    await key.getSigningKey(undefined, undefined, undefined, config);
    return undefined;
  } catch (error) {
    return printable(reasonOf(error));
  }
}
