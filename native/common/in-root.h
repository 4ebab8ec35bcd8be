/*
 * The one resolver for paths that come from outside: every path is walked by the kernel below the root's
 * descriptor (openat2 with RESOLVE_IN_ROOT), and what is answered is a descriptor, so what was checked is
 * what is used. Doing this with strings is the root of a dozen CVEs (2019-18837, 2021-30465, 2024-45310).
 */
#pragma once
#include <stdint.h>
#include <sys/types.h>

/* A path inside a root: -1 with errno. O_CLOEXEC is added; symbolic links stay within the root. */
int open_in_root(int root, const char *path, uint64_t flags, mode_t mode);

/*
 * The folder at `path`, O_PATH; missing ones are made one by one with mkdirat below an open parent.
 * -1 with errno; ELOOP also for a dangling link.
 */
int make_folders_in_root(int root, const char *path, mode_t mode);

/* The folder in which the last component of `path` lies (made if missing), and that component's name. */
int open_parent_in_root(int root, const char *path, char name[256]);
