/** node:net, loaded at the first call. */
import type * as Net from 'node:net';

const real = (): typeof Net => process.getBuiltinModule('node:net');

export const connect = ((...args: Parameters<typeof Net.connect>) =>
  real().connect(...args)) as typeof Net.connect;

export const isIP: typeof Net.isIP = text => real().isIP(text);

/** `new Socket()` gives a real one, as below; an `instanceof` asks the real class. */
export const Socket = new Proxy(function Socket() {} as unknown as typeof Net.Socket, {
  construct: (_, args: ConstructorParameters<typeof Net.Socket>) => new (real().Socket)(...args),
  get: (_, key) => Reflect.get(real().Socket, key),
});

/** `new BlockList()` gives a real one: a constructor may return another object. */
export const BlockList = function BlockList() {
  return new (real().BlockList)();
} as unknown as typeof Net.BlockList;
