/** node:crypto, loaded at the first call. */
import type * as Crypto from 'node:crypto';

const real = (): typeof Crypto => process.getBuiltinModule('node:crypto');

export const createHash: typeof Crypto.createHash = (...args) => real().createHash(...args);
export const hash = ((...args: Parameters<typeof Crypto.hash>) =>
  real().hash(...args)) as typeof Crypto.hash;
export const randomBytes = ((size: number) =>
  real().randomBytes(size)) as typeof Crypto.randomBytes;
export const randomUUID: typeof Crypto.randomUUID = (...args) => real().randomUUID(...args);
