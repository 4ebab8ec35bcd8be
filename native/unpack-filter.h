/* What a confined unpacker may no longer ask of the kernel. */
#ifndef TSPOD_UNPACK_FILTER_H
#define TSPOD_UNPACK_FILTER_H

/*
 * Forbids, for every thread of this process and for good, what unpacking never needs: the network, programs,
 * mounts, namespaces, other processes, the kernel's own interfaces. They fail with EPERM. Needs no_new_privs.
 * Returns 0, or -1 with errno.
 */
int forbid_what_unpacking_never_needs(void);

#endif
