/*
 * The apps' standard streams. `inherit` costs nothing: the app writes where init would. `log` goes through
 * init: each line to the app's log file in the form of Kubernetes' CRI, the bytes as they are to init's own
 * stream. Whoever reads that slowly slows the app down, as a pipe would; nothing piles up here.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/die.h"
#include "init.h"

#define LINE 16384    /* a longer line is written in parts, marked P */
#define PIECE 4096    /* PIPE_BUF: a pipe that is said to be writable takes so much at once */
#define LAST_READ (1024 * 1024) /* of what is still in the pipe when the app has ended */

struct log {
    int fd;
    uint64_t size;
};

struct pipe {
    struct watch source;  /* read end; fd -1: not open */
    struct watch console; /* init's own stream, while it is full */
    struct app *app;
    const char *name;
    int number;    /* 1 or 2 */
    int write_end; /* until the fork */
    bool console_gone;
    char line[LINE];
    size_t filled;
    char pending[PIECE];
    size_t pending_at, pending_left;
};

struct streams {
    struct pipe pipes[2];
    struct log log;
};

static void rotate(struct app *app)
{
    char from[4096], to[4096];
    for (unsigned i = app->log_kept; i > 0; i--) {
        if (i == 1)
            snprintf(from, sizeof from, "%s", app->log_file);
        else
            snprintf(from, sizeof from, "%s.%u", app->log_file, i - 1);
        snprintf(to, sizeof to, "%s.%u", app->log_file, i);
        rename(from, to);
    }
    if (app->log_kept == 0)
        unlink(app->log_file);
    close(app->streams->log.fd);
    app->streams->log.fd = -1;
}

static bool open_log(struct app *app)
{
    struct log *log = &app->streams->log;
    if (log->fd >= 0)
        return true;
    log->fd = open(app->log_file, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0640);
    struct stat st;
    if (log->fd < 0 || fstat(log->fd, &st) < 0)
        return false;
    log->size = (uint64_t)st.st_size;
    return true;
}

static void write_line(struct pipe *pipe, const char *text, size_t length, bool whole)
{
    struct app *app = pipe->app;
    if (app->log_journal)
        write_journal(app, pipe->name, text, length, whole);
    if (!app->log_file)
        return;
    if (app->log_bytes && app->streams->log.fd >= 0 && app->streams->log.size >= app->log_bytes)
        rotate(app);
    if (!open_log(app))
        return;
    char head[64];
    struct timespec now;
    struct tm date;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &date);
    size_t used = strftime(head, sizeof head, "%Y-%m-%dT%H:%M:%S", &date);
    used += (size_t)snprintf(head + used, sizeof head - used, ".%09ldZ %s %c ", now.tv_nsec, pipe->name,
                             whole ? 'F' : 'P');
    char record[sizeof head + LINE + 1];
    memcpy(record, head, used);
    memcpy(record + used, text, length);
    record[used + length] = '\n';
    ssize_t written = write(app->streams->log.fd, record, used + length + 1);
    if (written > 0)
        app->streams->log.size += (uint64_t)written;
}

static void take_lines(struct pipe *pipe, const char *bytes, size_t length)
{
    while (length > 0) {
        const char *end = memchr(bytes, '\n', length);
        size_t part = end ? (size_t)(end - bytes) : length;
        size_t room = LINE - pipe->filled;
        size_t taken = part < room ? part : room;
        memcpy(pipe->line + pipe->filled, bytes, taken);
        pipe->filled += taken;
        bytes += taken;
        length -= taken;
        if (taken == part && end) {
            write_line(pipe, pipe->line, pipe->filled, true);
            pipe->filled = 0;
            bytes++;
            length--;
        } else if (pipe->filled == LINE) {
            write_line(pipe, pipe->line, pipe->filled, false);
            pipe->filled = 0;
        }
    }
}

static void close_pipe(struct pipe *pipe)
{
    if (pipe->source.fd >= 0) {
        watch_remove(&pipe->source);
        close(pipe->source.fd);
        pipe->source.fd = -1;
    }
    if (pipe->filled > 0)
        write_line(pipe, pipe->line, pipe->filled, true);
    pipe->filled = 0;
}

/* True when all of it is written, or nobody takes it any more. */
static bool write_console(struct pipe *pipe)
{
    while (pipe->pending_left > 0 && !pipe->console_gone) {
        struct pollfd target = { .fd = pipe->number, .events = POLLOUT };
        if (poll(&target, 1, 0) == 0)
            return false;
        ssize_t written = write(pipe->number, pipe->pending + pipe->pending_at, pipe->pending_left);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0 && errno == EAGAIN)
            return false;
        if (written < 0)
            pipe->console_gone = true;
        else {
            pipe->pending_at += (size_t)written;
            pipe->pending_left -= (size_t)written;
        }
    }
    pipe->pending_left = 0;
    return true;
}

/* Until the console has room again nothing is read. */
static void wait_for_console(struct pipe *pipe)
{
    pipe->console.fd = fcntl(pipe->number, F_DUPFD_CLOEXEC, 3);
    if (pipe->console.fd < 0) {
        pipe->console_gone = true;
        pipe->pending_left = 0;
        return;
    }
    if (pipe->source.fd >= 0)
        watch_change(&pipe->source, 0);
    watch_add(&pipe->console, EPOLLOUT);
}

/* False at the end of the stream or when nothing is there now. */
static bool read_piece(struct pipe *pipe)
{
    ssize_t length = read(pipe->source.fd, pipe->pending, PIECE);
    if (length < 0 && errno == EINTR)
        return true;
    if (length <= 0) {
        if (length == 0)
            close_pipe(pipe);
        return false;
    }
    take_lines(pipe, pipe->pending, (size_t)length);
    pipe->pending_at = 0;
    pipe->pending_left = (size_t)length;
    return true;
}

static void source_ready(struct watch *watch, uint32_t events)
{
    struct pipe *pipe = (struct pipe *)((char *)watch - offsetof(struct pipe, source));
    (void)events;
    if (pipe->pending_left > 0)
        return;
    if (read_piece(pipe) && !write_console(pipe))
        wait_for_console(pipe);
}

static void console_ready(struct watch *watch, uint32_t events)
{
    struct pipe *pipe = (struct pipe *)((char *)watch - offsetof(struct pipe, console));
    (void)events;
    if (!write_console(pipe))
        return;
    watch_remove(&pipe->console);
    close(pipe->console.fd);
    pipe->console.fd = -1;
    if (pipe->source.fd >= 0)
        watch_change(&pipe->source, EPOLLIN);
}

static struct streams *streams_of(struct app *app)
{
    if (app->streams)
        return app->streams;
    struct streams *streams = calloc(1, sizeof *streams);
    if (!streams)
        return NULL;
    streams->log.fd = -1;
    for (int i = 0; i < 2; i++)
        streams->pipes[i] = (struct pipe){
            .source = { source_ready, -1 },
            .console = { console_ready, -1 },
            .app = app,
            .name = i ? "stderr" : "stdout",
            .number = i + 1,
            .write_end = -1,
            /* Once is enough. */
            .console_gone = app->log_journal && leads_to_journal(i + 1),
        };
    return app->streams = streams;
}

bool open_streams(struct app *app, char error[256])
{
    struct streams *streams = streams_of(app);
    if (!streams) {
        snprintf(error, 256, "no memory");
        return false;
    }
    for (int i = 0; i < 2; i++) {
        struct pipe *pipe = &streams->pipes[i];
        if (app->modes[i + 1] != MODE_LOG)
            continue;
        int ends[2];
        if (pipe2(ends, O_CLOEXEC) < 0) {
            snprintf(error, 256, "can't make a pipe: %s", strerror(errno));
            finish_streams(app);
            return false;
        }
        fcntl(ends[0], F_SETFL, O_NONBLOCK);
        pipe->source.fd = ends[0];
        pipe->write_end = ends[1];
        watch_add(&pipe->source, pipe->pending_left > 0 ? 0 : EPOLLIN);
    }
    return true;
}

void take_streams(struct app *app)
{
    for (int i = 0; i < 3; i++) {
        int fd = -1;
        if (app->modes[i] == MODE_NULL)
            fd = open("/dev/null", (i == 0 ? O_RDONLY : O_WRONLY) | O_CLOEXEC);
        else if (app->modes[i] == MODE_LOG)
            fd = app->streams->pipes[i - 1].write_end;
        else
            continue;
        if (fd < 0 || dup2(fd, i) < 0)
            die_errno("can't start app \"%s\": can't open its standard streams", app->name);
    }
}

void streams_started(struct app *app)
{
    for (int i = 0; i < 2; i++) {
        int *end = &app->streams->pipes[i].write_end;
        if (*end >= 0)
            close(*end);
        *end = -1;
    }
}

void finish_streams(struct app *app)
{
    if (!app->streams)
        return;
    streams_started(app);
    for (int i = 0; i < 2; i++) {
        struct pipe *pipe = &app->streams->pipes[i];
        /* What is still there, as far as the console takes it; the log takes all. */
        for (size_t total = 0; pipe->source.fd >= 0 && total < LAST_READ; total += PIECE) {
            if (pipe->pending_left > 0 && !write_console(pipe))
                pipe->pending_left = 0;
            if (!read_piece(pipe))
                break;
            write_console(pipe);
        }
        close_pipe(pipe);
    }
}

void free_streams(struct app *app)
{
    finish_streams(app);
    if (app->streams && app->streams->log.fd >= 0)
        close(app->streams->log.fd);
    free(app->streams);
    app->streams = NULL;
}

void flush_streams(void)
{
    for (struct app *app = pod.apps; app; app = app->next)
        finish_streams(app);
}
