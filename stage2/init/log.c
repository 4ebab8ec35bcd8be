/*
 * An app's log file: lines in the form of Kubernetes' CRI (`TIME STREAM F|P TEXT`), rotated by size. A file
 * never grows over the bound but by a single line; a reader never sees half a line for longer than a write.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/die.h"
#include "streams.h"

#define HEAD 64
#define BATCH (64 * 1024)

/* The records of one piece of output; there is one thread, and each piece is flushed before the next. */
static char batch[BATCH];
static size_t batched;

static void tell(struct app *app, struct log *log)
{
    if (!log->failing)
        say("app \"%s\": can't write its log, lines are lost: %s", app->name, strerror(errno));
    log->failing = true;
}

void log_close(struct log *log)
{
    if (log->fd >= 0)
        close(log->fd);
    log->fd = -1;
}

static void rotate(struct app *app, struct log *log)
{
    char from[4096], to[4096];
    log_close(log);
    if (app->log_kept == 0)
        unlink(app->log_file);
    for (unsigned i = app->log_kept; i > 0; i--) {
        if (i == 1)
            snprintf(from, sizeof from, "%s", app->log_file);
        else
            snprintf(from, sizeof from, "%s.%u", app->log_file, i - 1);
        snprintf(to, sizeof to, "%s.%u", app->log_file, i);
        rename(from, to);
    }
}

static bool open_log(struct app *app, struct log *log)
{
    struct stat st;
    if (log->fd >= 0)
        return true;
    log->fd = open(app->log_file, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0640);
    if (log->fd < 0 || fstat(log->fd, &st) < 0) {
        tell(app, log);
        log_close(log);
        return false;
    }
    log->size = (uint64_t)st.st_size;
    return true;
}

void log_flush(struct app *app, struct log *log)
{
    size_t length = batched;
    batched = 0;
    if (length == 0 || log->fd < 0)
        return;
    ssize_t written;
    do
        written = write(log->fd, batch, length);
    while (written < 0 && errno == EINTR);
    if (written == (ssize_t)length) {
        log->size += length;
        log->failing = false;
        return;
    }
    if (written >= 0)
        errno = ENOSPC;
    tell(app, log);
    /* Half a line would spoil the next one. */
    if (written > 0 && ftruncate(log->fd, (off_t)log->size) < 0)
        log->size += (uint64_t)written;
}

/* RFC 3339 in UTC, to the nanosecond. */
static size_t put_time(char head[HEAD])
{
    static time_t second = -1;
    static char date[32];
    struct timespec now;
    struct tm parts;
    clock_gettime(CLOCK_REALTIME, &now);
    if (now.tv_sec != second) {
        gmtime_r(&now.tv_sec, &parts);
        strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &parts);
        second = now.tv_sec;
    }
    return (size_t)snprintf(head, HEAD, "%s.%09ldZ", date, now.tv_nsec);
}

void log_line(struct app *app, struct log *log, const char *stream, const char *text, size_t length, bool whole)
{
    char head[HEAD];
    if (app->log_journal)
        write_journal(app, stream, text, length, whole);
    if (!app->log_file)
        return;
    size_t used = put_time(head);
    used += (size_t)snprintf(head + used, sizeof head - used, " %s %c ", stream, whole ? 'F' : 'P');
    size_t record = used + length + 1;
    if (batched + record > BATCH)
        log_flush(app, log);
    if (!open_log(app, log))
        return;
    if (app->log_bytes && log->size + batched > 0 && log->size + batched + record > app->log_bytes) {
        log_flush(app, log);
        rotate(app, log);
        if (!open_log(app, log))
            return;
    }
    memcpy(batch + batched, head, used);
    memcpy(batch + batched + used, text, length);
    batch[batched + record - 1] = '\n';
    batched += record;
}
