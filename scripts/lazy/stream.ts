/** node:stream, loaded when one of its classes is first used: it brings 20 modules of Node's own. */
import type * as Stream from 'node:stream';

const real = (): Pick<typeof Stream, 'Readable' | 'Writable'> =>
  process.getBuiltinModule('node:stream');

/** `new`, static members, `instanceof` and `extends` go to the real class. */
function lazyClass<C extends object>(get: () => C & (new (...args: never[]) => object)): C {
  const lazy: C = new Proxy(function Lazy() {} as unknown as C, {
    construct: (_, args, target) =>
      Reflect.construct(get(), args, target === lazy ? get() : target),
    // Writable tells a Duplex by itself, and only when it is asked itself.
    get: (_, key) =>
      key === Symbol.hasInstance
        ? (value: unknown) => value instanceof get()
        : Reflect.get(get(), key),
  });
  return lazy;
}

export const Readable = lazyClass<typeof Stream.Readable>(() => real().Readable);
export const Writable = lazyClass<typeof Stream.Writable>(() => real().Writable);
