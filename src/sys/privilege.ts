/** The root check that rkt makes up front for what can't work otherwise (rkt-1.30, `cannot run as unprivileged user`). */
import { TspodError } from '../errors.ts';

/** @throws TspodError 'privilege' when the effective user is not root. */
export function requireRoot(command: string): void {
  if (process.geteuid?.() !== 0) {
    throw new TspodError('privilege', `${command}: cannot run as unprivileged user`, {
      hint: 'run it as root, for instance with sudo',
    });
  }
}
