/** How an archive member is refused: the same words whatever form the layer takes. */
import { systemError, TspodError } from '../../src/errors.ts';
import { showName, type TarEntry } from './tar-entry.ts';

/** @param why follows the entry's name in the message */
export function refused(why: string): TspodError {
  return new TspodError('unpack', why);
}

/** Adds the entry's name and place to whatever went wrong with it. */
export function failed(entry: TarEntry, error: unknown): TspodError {
  if (error instanceof TspodError && error.message.startsWith('layer entry ')) return error;
  const what = `layer entry ${showName(entry.name)} at offset ${entry.offset}`;
  if (error instanceof TspodError) {
    return new TspodError(error.code, `${what}: ${error.message}`, {
      ...(error.hint === undefined ? {} : { hint: error.hint }),
      cause: error,
    });
  }
  return systemError(what, error);
}
