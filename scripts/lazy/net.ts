/** node:net, loaded at the first call. */
import type * as Net from 'node:net';

const real = (): typeof Net => process.getBuiltinModule('node:net');

export const isIP: typeof Net.isIP = text => real().isIP(text);

/** `new BlockList()` gives a real one: a constructor may return another object. */
export const BlockList = function BlockList() {
  return new (real().BlockList)();
} as unknown as typeof Net.BlockList;
