/** node:timers/promises, loaded at the first call. */
import type * as TimersPromises from 'node:timers/promises';

export const setTimeout = ((...args: Parameters<typeof TimersPromises.setTimeout>) =>
  process
    .getBuiltinModule('node:timers/promises')
    .setTimeout(...args)) as typeof TimersPromises.setTimeout;
