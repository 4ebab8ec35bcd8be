/** node:tty, loaded at the first call. */
import type * as Tty from 'node:tty';

export const isatty: typeof Tty.isatty = fd => process.getBuiltinModule('node:tty').isatty(fd);
