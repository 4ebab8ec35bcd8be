/** What finding keys and signatures on servers needs, in one chunk of the bundle. */
import '../../hot.ts';

export { loadConfig } from '../../config.ts';
export { discover } from '../../fetch/discovery.ts';
export { collect } from '../../fetch/source.ts';
export { WebClient } from '../../fetch/web-server.ts';
