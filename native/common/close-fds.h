/*
 * Which descriptors survive an exec: a list that is written down, never what happens to be open
 * (CVE-2024-21626 was one forgotten descriptor). Kernels before 5.11 lack CLOSE_RANGE_CLOEXEC.
 */
#pragma once
#include <stddef.h>

/*
 * Everything above 2 gets CLOEXEC; the `count` descriptors of `keep` lose it.
 * Answers -1, or the descriptor (of `keep`) that is not open, or INT_MAX, with errno set.
 */
int keep_fds_at_exec(const int *keep, size_t count);

/* Closes everything above 2 but `keep`, now. Answers 0, or -1 with errno. Sorts `keep`. */
int close_all_but(int *keep, size_t count);
