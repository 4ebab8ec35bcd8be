/**
 * What the library may accept, spelled out, so that neither its defaults nor somebody's change of them weaken
 * it. Self-signatures and bindings with SHA-1 count, as for gpg: keys of before 2020 have no others, and they
 * can only be forged by who has the key sign what he chose.
 */
import type { Key, PublicKey, Subkey } from 'openpgp';

type Library = typeof import('./library.ts');

export function configOf({ config, enums }: Library): typeof config {
  const { md5, ripemd, sha1 } = enums.hash;
  return {
    ...config,
    minRSABits: 2047,
    allowMissingKeyFlags: false,
    allowInsecureVerificationWithReformattedKeys: false,
    enableParsingV5Entities: false,
    knownNotations: [],
    rejectHashAlgorithms: new Set([md5, ripemd]),
    rejectMessageHashAlgorithms: new Set([md5, ripemd, sha1]),
    rejectPublicKeyAlgorithms: new Set([enums.publicKey.elgamal, enums.publicKey.dsa]),
    rejectCurves: new Set([enums.curve.secp256k1]),
  };
}

/** @throws Error for curves that the library can't verify with by itself */
export function checkCurves(keys: readonly (Key | Subkey)[]): void {
  for (const key of keys) {
    const { curve } = key.getAlgorithmInfo();
    if (curve === undefined || !/^(?:brainpool|secp256k1)/.test(curve)) continue;
    throw new Error(`keys on the curve ${curve} are not supported`);
  }
}

/**
 * A key may name another one that can revoke it (RFC 9580, 5.2.3.23), which the library knows nothing of. Such a
 * revocation is believed unchecked.
 * @throws Error when there is one
 */
export function checkForeignRevocations(key: PublicKey): void {
  const own = key.getKeyID();
  if (key.revocationSignatures.some(({ issuerKeyID }) => !issuerKeyID.equals(own))) {
    throw new Error('the key is revoked by another key');
  }
}
