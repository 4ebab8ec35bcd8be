/* What the pod's init writes for others to read (docs/stage2-init.md) goes to the host as it is written. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest.h"

#define RKT TREE "/rkt"
#define MOST_LOGS 512
#define MOST_CONTENT 4096

static int notifier = -1, rkt_watch, status_watch;
static struct pollfd *notified;

static struct log {
    char app[256];
    int fd;
    struct pollfd *polled;
} *logs;
static size_t log_count;

void watch_files(void)
{
    notifier = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    rkt_watch = notifier < 0 ? -1 : inotify_add_watch(notifier, RKT, IN_CREATE | IN_MOVED_TO);
    status_watch = notifier < 0 ? -1 : inotify_add_watch(notifier, RKT "/status", IN_MOVED_TO | IN_DELETE);
    if (rkt_watch < 0 || status_watch < 0)
        fail_errno("can't watch the pod's status");
}

/* Its init writes there as into a file; what comes out is the host's log. */
void watch_log(const char *app)
{
    char path[512];
    if (!logs && !(logs = calloc(MOST_LOGS, sizeof *logs)))
        fail("no memory");
    if (log_count == MOST_LOGS)
        fail("too many logs");
    struct log *log = &logs[log_count++];
    snprintf(log->app, sizeof log->app, "%s", app);
    snprintf(path, sizeof path, RKT "/logs/%s.log", app);
    if (mkfifo(path, 0600) < 0 || (log->fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC)) < 0)
        fail_errno("can't make the log of app \"%s\"", app);
    fcntl(log->fd, F_SETPIPE_SZ, 1024 * 1024);
}

static void send_file(const char *folder, const char *name, bool removed)
{
    char path[512], title[512], content[MOST_CONTENT];
    ssize_t length = 0;
    if (name[0] == '.')
        return;
    snprintf(title, sizeof title, "%s%s", folder, name);
    if (removed) {
        mux_send_named(FRAME_REMOVE, title, NULL, 0);
        return;
    }
    snprintf(path, sizeof path, RKT "/%.300s", title);
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat st;
    if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        length = read(fd, content, sizeof content);
    else if (strcmp(title, "supervisor-status") != 0)
        length = -1;
    if (fd >= 0)
        close(fd);
    if (length >= 0)
        mux_send_named(FRAME_FILE, title, content, (size_t)length);
}

static void take_events(void)
{
    char events[4096] __attribute__((aligned(8)));
    ssize_t got;
    while ((got = read(notifier, events, sizeof events)) > 0)
        for (char *at = events; at < events + got;) {
            struct inotify_event *event = (struct inotify_event *)at;
            at += sizeof *event + event->len;
            if (event->len == 0)
                continue;
            if (event->wd == rkt_watch && (strncmp(event->name, "init-", 5) == 0 || strcmp(event->name, "supervisor-status") == 0))
                send_file("", event->name, false);
            else if (event->wd == status_watch)
                send_file("status/", event->name, (event->mask & IN_DELETE) != 0);
        }
}

static bool read_log(struct log *log)
{
    char text[16384];
    ssize_t got = read(log->fd, text, sizeof text);
    if (got > 0)
        mux_send_named(FRAME_LOG, log->app, text, (size_t)got);
    return got > 0;
}

size_t files_poll(struct pollfd *fds, size_t used, size_t most)
{
    notified = NULL;
    for (size_t i = 0; i < log_count; i++)
        logs[i].polled = NULL;
    if (mux_is_full() || notifier < 0)
        return used;
    notified = &fds[used];
    fds[used++] = (struct pollfd){ .fd = notifier, .events = POLLIN };
    for (size_t i = 0; i < log_count && used < most; i++) {
        logs[i].polled = &fds[used];
        fds[used++] = (struct pollfd){ .fd = logs[i].fd, .events = POLLIN };
    }
    return used;
}

void files_ready(void)
{
    if (notified && notified->revents)
        take_events();
    for (size_t i = 0; i < log_count; i++)
        if (logs[i].polled && logs[i].polled->revents)
            read_log(&logs[i]);
}

void flush_files(void)
{
    if (notifier < 0)
        return;
    take_events();
    for (size_t i = 0; i < log_count; i++)
        while (read_log(&logs[i]))
            ;
}
