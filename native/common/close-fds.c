#define _GNU_SOURCE
#include "close-fds.h"

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1U << 2)
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif

int keep_fds_at_exec(const int *keep, size_t count)
{
    if (syscall(SYS_close_range, 3U, ~0U, CLOSE_RANGE_CLOEXEC) < 0)
        return INT_MAX;
    for (size_t i = 0; i < count; i++) {
        int flags = fcntl(keep[i], F_GETFD);
        if (flags < 0 || fcntl(keep[i], F_SETFD, flags & ~FD_CLOEXEC) < 0)
            return keep[i];
    }
    return -1;
}

static int by_number(const void *a, const void *b)
{
    int left = *(const int *)a, right = *(const int *)b;
    return (left > right) - (left < right);
}

int close_all_but(int *keep, size_t count)
{
    if (count > 1)
        qsort(keep, count, sizeof *keep, by_number);
    unsigned next = 3;
    for (size_t i = 0; i < count; i++) {
        if (keep[i] < 0 || (unsigned)keep[i] < next)
            continue;
        unsigned fd = (unsigned)keep[i];
        if (fd > next && syscall(SYS_close_range, next, fd - 1, 0U) < 0)
            return -1;
        next = fd + 1;
    }
    return (int)syscall(SYS_close_range, next, ~0U, 0U);
}
