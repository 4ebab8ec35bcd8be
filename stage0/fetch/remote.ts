/** What only a registry needs, in one chunk of the bundle. */
import '../hot.ts';

export { loadConfig } from '../config.ts';
export { openRegistry } from './registry.ts';
