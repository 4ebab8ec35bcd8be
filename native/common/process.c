#define _GNU_SOURCE
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "numbers.h"

ssize_t read_small_file(int folder, const char *path, char *into, size_t room)
{
    int fd = openat(folder, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    size_t length = 0;
    while (length < room) {
        ssize_t got = read(fd, into + length, room - length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            int reason = errno;
            close(fd);
            errno = reason;
            if (got < 0)
                return -1;
            into[length] = '\0';
            return (ssize_t)length;
        }
        length += (size_t)got;
    }
    close(fd);
    errno = EFBIG;
    return -1;
}

bool process_start_time(const char *pid, uint64_t *ticks)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%s/stat", pid);
    if (read_small_file(AT_FDCWD, path, text, sizeof text) < 0)
        return false;
    /* The second field is the name in parentheses and may hold anything; count from its last one. */
    char *at = strrchr(text, ')');
    for (int field = 2; at && field < 22; field++)
        at = strchr(at + 1, ' ');
    if (!at)
        return false;
    at++;
    at[strcspn(at, " \n")] = '\0';
    return parse_number(at, 10, UINT64_MAX, ticks);
}

bool parse_process(const char *text, pid_t *pid, uint64_t *ticks)
{
    char number[16];
    size_t length = strcspn(text, ":");
    uint64_t value;
    if (length >= sizeof number)
        return false;
    memcpy(number, text, length);
    number[length] = '\0';
    if (!parse_number(number, 10, 4194304, &value) || value == 0)
        return false;
    *pid = (pid_t)value;
    *ticks = 0;
    return text[length] == '\0' || parse_number(text + length + 1, 10, UINT64_MAX, ticks);
}

void fault_point(const char *name)
{
    const char *wanted = getenv("TSPOD_FAULT");
    if (wanted && strcmp(wanted, name) == 0)
        kill(getpid(), SIGKILL);
}
