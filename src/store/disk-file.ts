/**
 * In a layer's folder, beside its tree: the same as one self-contained EROFS image, for machines with an older kernel.
 * Made when such a machine first needs it (stage0/vm-image/disks.ts), gone with the layer.
 */
export const DISK_FILE = 'whole.erofs';
