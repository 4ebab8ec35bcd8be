/*
 * Lines of apps for the host's journal, by its native protocol (systemd's JOURNAL_NATIVE_PROTOCOL): one datagram per
 * line. The host's socket is bound to JOURNAL in the pod's tree. The journal may hold us up for a moment, as a pipe
 * would; where it takes nothing for long, lines are lost and counted, and the pod goes on.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/die.h"
#include "init.h"

#define JOURNAL "/rkt/journal"
#define STREAM "/run/systemd/journal/stdout"
#define LONGEST_WAIT 2 /* seconds */
#define LONGEST_FIELDS 65536

static int to_journal = -1;
static unsigned long lost;
static bool stuck; /* it did not even take one line in time: the next is not waited for */

/* What goes before the message and is the same for every line of the app. */
static bool add_field(struct app *app, const char *name, const char *value)
{
    size_t before = app->journal_length, name_length = strlen(name), length = strlen(value);
    size_t grown = before + name_length + length + 16;
    char *fields = grown > LONGEST_FIELDS ? NULL : realloc(app->journal_fields, grown);
    if (!fields)
        return false;
    app->journal_fields = fields;
    memcpy(fields + before, name, name_length);
    char *at = fields + before + name_length;
    if (strchr(value, '\n')) {
        *at++ = '\n';
        for (int i = 0; i < 8; i++)
            *at++ = (char)(unsigned char)((uint64_t)length >> (8 * i));
    } else
        *at++ = '=';
    memcpy(at, value, length);
    at[length] = '\n';
    app->journal_length = (size_t)(at + length + 1 - fields);
    return true;
}

bool add_journal_field(struct app *app, const char *name, const char *value)
{
    size_t length = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");
    /* One that begins with _ is the journal's own to set. */
    return length > 0 && !name[length] && length <= 64 && name[0] >= 'A' && name[0] <= 'Z' &&
           add_field(app, name, value);
}

bool start_journal(struct app *app)
{
    app->log_journal = true;
    return add_field(app, "SYSLOG_IDENTIFIER", app->name) && add_field(app, "TSPOD_APP", app->name) &&
           (!pod.uuid || add_field(app, "TSPOD_POD", pod.uuid));
}

static bool open_journal(void)
{
    if (to_journal >= 0)
        return true;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    struct timeval longest = { .tv_sec = LONGEST_WAIT };
    int large = 1 << 20;
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &longest, sizeof longest);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &large, sizeof large); /* what the machine allows of it */
    to_journal = fd;
    return true;
}

static bool send_parts(struct iovec *parts, size_t count)
{
    struct sockaddr_un journal = { .sun_family = AF_UNIX, .sun_path = JOURNAL };
    struct msghdr message = {
        .msg_name = &journal, .msg_namelen = sizeof journal, .msg_iov = parts, .msg_iovlen = count,
    };
    ssize_t sent;
    do
        sent = sendmsg(to_journal, &message, MSG_NOSIGNAL | (stuck ? MSG_DONTWAIT : 0));
    while (sent < 0 && errno == EINTR);
    stuck = sent < 0 && errno == EAGAIN;
    return sent >= 0;
}

void write_journal(const struct app *app, const char *stream, const char *text, size_t length, bool whole)
{
    char about[128];
    int about_length = snprintf(about, sizeof about, "TSPOD_STREAM=%s\nPRIORITY=%d\n%sMESSAGE=", stream,
                                strcmp(stream, "stderr") == 0 ? 3 : 6, whole ? "" : "TSPOD_PARTIAL=true\n");
    struct iovec parts[] = {
        { app->journal_fields, app->journal_length },
        { about, (size_t)about_length },
        { (char *)text, length },
        { (char *)"\n", 1 },
    };
    if (!open_journal() || !send_parts(parts, 4)) {
        if (lost++ == 0)
            say("a line of app \"%s\" does not reach the journal: %s", app->name, strerror(errno));
    } else if (lost > 0) {
        say("%lu lines did not reach the journal", lost);
        lost = 0;
    }
}

bool leads_to_journal(int fd)
{
    struct sockaddr_un peer = { 0 };
    socklen_t length = sizeof peer - 1;
    return getpeername(fd, (struct sockaddr *)&peer, &length) == 0 && peer.sun_family == AF_UNIX &&
           strcmp(peer.sun_path, STREAM) == 0;
}
