/**
 * Exec hand-off: this process stops being Node and becomes another program, with the same PID, as if
 * Node had never run in it (see `exec` in native.ts for what that takes). Node's own process.execve
 * aborts on failure before Node 26, passes only descriptors 0-2, and leaves SIGPIPE ignored.
 */
import { errnoOf, systemError, TspodError } from '../errors.ts';
import { native } from './native.ts';

export interface HandOffOptions {
  /** absolute */
  readonly path: string;
  readonly argv: readonly string[];
  /** NAME=VALUE; the whole environment */
  readonly env: readonly string[];
  /** descriptors above 2 that stay open; every other one is closed */
  readonly keepFds: readonly number[];
}

/** @throws TspodError 'launch' when the program is missing, 'system' for another refusal of execve. */
export function handOff(options: HandOffOptions): never {
  try {
    return native().exec(options.path, options.argv, options.env, options.keepFds);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') {
      throw new TspodError('launch', `can't execute ${options.path}: it does not exist`, {
        hint: 'build tspod with npm run build',
        cause: error,
      });
    }
    throw systemError(`can't execute ${options.path}`, error);
  }
}
