/*
 * File contents written behind the back of the one thread that unpacks: it opens each file itself, in
 * order, and leaves the writing to two threads. Only descriptors are handed over, no names, so nothing that
 * happens to the names later can be mistaken.
 */
#ifndef TSPOD_WRITE_QUEUE_H
#define TSPOD_WRITE_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <time.h>

struct write_job {
    int fd;
    off_t offset;
    size_t length;
    /* With it: owner, mode and time are set after the content, and the descriptor is closed. */
    bool finishes;
    uid_t uid;
    gid_t gid;
    mode_t mode;
    struct timespec mtime;
    struct write_job *next;
    char data[];
};

struct write_failure {
    unsigned job; /* counted from 0 since the last drain */
    int err;
    const char *syscall;
};

/*
 * Takes the job, which was allocated by malloc. Waits while too much is under way. False, with errno set and
 * the job untouched, when the threads can't be made.
 */
bool write_queue_add(struct write_job *job);

/* Waits for all jobs. True with the first failure filled in, if there was one since the last drain. */
bool write_queue_drain(struct write_failure *failure);

#endif
