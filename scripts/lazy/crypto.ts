/** node:crypto, loaded at the first call. */
import type * as Crypto from 'node:crypto';

const real = (): typeof Crypto => process.getBuiltinModule('node:crypto');

export const createHash: typeof Crypto.createHash = (...args) => real().createHash(...args);
export const hash = ((...args: Parameters<typeof Crypto.hash>) =>
  real().hash(...args)) as typeof Crypto.hash;
export const randomBytes = ((size: number) =>
  real().randomBytes(size)) as typeof Crypto.randomBytes;
export const randomUUID: typeof Crypto.randomUUID = (...args) => real().randomUUID(...args);
export const createPublicKey: typeof Crypto.createPublicKey = key => real().createPublicKey(key);
export const createVerify: typeof Crypto.createVerify = (...args) => real().createVerify(...args);
export const verify = ((...args: Parameters<typeof Crypto.verify>) =>
  real().verify(...args)) as typeof Crypto.verify;
