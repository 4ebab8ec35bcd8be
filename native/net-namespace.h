/* A network namespace of its own that a file keeps, as `ip netns add` makes them (ip-netns(8)). */
#ifndef TSPOD_NET_NAMESPACE_H
#define TSPOD_NET_NAMESPACE_H

/*
 * Mounts a new network namespace, with its loopback up, on the existing file `path`. The calling thread stays in its own. 0, or an errno with
 * the system call in *failed.
 */
int pin_net_namespace(const char *path, const char **failed);

#endif
