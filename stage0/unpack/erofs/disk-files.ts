/** Names in the folder of a layer in EROFS form. */
export { META_FILE, TAR_FILE } from './message.ts';

/** For machines with an older kernel (disk-child.ts). */
export const DISK_META_FILE = 'disk.erofs';
export const DISK_DATA_FILE = 'disk.data';
