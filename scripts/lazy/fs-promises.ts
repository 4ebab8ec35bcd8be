/** node:fs/promises, loaded at the first call. */
import type * as FsPromises from 'node:fs/promises';

export const open: typeof FsPromises.open = (...args) =>
  process.getBuiltinModule('node:fs/promises').open(...args);
