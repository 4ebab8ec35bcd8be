/** What only layouts and archives need, in one chunk of the bundle. */
import '../hot.ts';

export { openArchive } from './archive.ts';
export { archiveKind } from './archive-kind.ts';
export { openLayoutFolder } from './layout-folder.ts';
export { LayoutSource } from './layout-source.ts';
export { copyOfInput } from './spool.ts';
