/** What is needed once layers have to be fetched, in one chunk of the bundle. */
import '../hot.ts';

export { openProgress } from '../progress.ts';
export { fetchLayers } from './layers.ts';
