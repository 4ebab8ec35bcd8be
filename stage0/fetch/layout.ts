/** What only a layout needs, in one chunk of the bundle. */
import '../hot.ts';

export { openLayoutArchive } from './layout-archive.ts';
export { openLayoutFolder } from './layout-folder.ts';
export { LayoutSource } from './layout-source.ts';
