/*
 * What the starter records before Node changes it, and the addon's exec() puts back: Node ignores
 * SIGPIPE and SIGXFSZ, raises the soft limit of open files, and makes pipes on 0-2 non-blocking.
 *
 * TSPOD_START=1:IGNORED:BLOCKED:NOFILE:NONBLOCKING, all hexadecimal: the version, a bit per signal
 * (signal n is bit n-1) twice, the soft RLIMIT_NOFILE, a bit per descriptor 0-2.
 */
#pragma once
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define START_STATE_VARIABLE "TSPOD_START"
#define START_SIGNALS 64

struct start_state {
    bool known;
    uint64_t ignored;
    uint64_t blocked;
    uint64_t nofile;
    unsigned nonblocking;
};

/* Without a record (tspod.js was started by hand): nothing ignored, nothing blocked, all blocking. */
static inline void read_start_state(const char *text, struct start_state *start)
{
    memset(start, 0, sizeof *start);
    start->known = text && sscanf(text, "1:%" SCNx64 ":%" SCNx64 ":%" SCNx64 ":%x", &start->ignored,
                                  &start->blocked, &start->nofile, &start->nonblocking) == 4;
    if (!start->known)
        memset(start, 0, sizeof *start);
}

static inline void write_start_state(char *text, size_t size, const struct start_state *start)
{
    snprintf(text, size, "1:%" PRIx64 ":%" PRIx64 ":%" PRIx64 ":%x", start->ignored, start->blocked,
             start->nofile, start->nonblocking);
}
