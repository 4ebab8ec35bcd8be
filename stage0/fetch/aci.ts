/** What only ACIs need, in one chunk of the bundle. */
import '../hot.ts';

export { loadConfig } from '../config.ts';
export { openProgress } from '../progress.ts';
export { fetchAci } from './aci/fetch-aci.ts';
