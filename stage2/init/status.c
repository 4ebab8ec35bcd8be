/* The files by which others see how the apps are: rkt's names and forms (stage1 implementors' guide). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/die.h"
#include "init.h"

#define FOLDER "/rkt/status"

void write_status(const char *app, const char *suffix, const char *text)
{
    char path[512], aside[520];
    snprintf(path, sizeof path, FOLDER "/%s%s", app, suffix);
    snprintf(aside, sizeof aside, FOLDER "/.%s%s", app, suffix);
    int fd = open(aside, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
    size_t length = strlen(text);
    bool written = fd >= 0 && write(fd, text, length) == (ssize_t)length;
    if (fd >= 0)
        close(fd);
    if (!written || rename(aside, path) < 0)
        say("app \"%s\": can't write its status: %s", app, strerror(errno));
}

void remove_status(const char *app, const char *suffix)
{
    char path[512];
    snprintf(path, sizeof path, FOLDER "/%s%s", app, suffix);
    if (unlink(path) < 0 && errno != ENOENT)
        say("app \"%s\": can't remove its old status: %s", app, strerror(errno));
}

void tell_parent(const char *what)
{
    char path[64];
    snprintf(path, sizeof path, "/rkt/%s", what);
    int fd = open(path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0)
        say("can't write %s: %s", path, strerror(errno));
    else
        close(fd);
}

/* sd_notify(3). Under systemd-nspawn the socket is its own, and it tells the unit's manager. False with errno set. */
static bool notify(const char *text)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    if (!path || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof address.sun_path)
        return true;
    memcpy(address.sun_path, path, strlen(path));
    socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path) + (path[0] == '/'));
    if (path[0] == '@')
        address.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return false;
    /* Without a text: whether anybody listens. */
    bool done = text ? sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&address, length) >= 0
                     : connect(fd, (struct sockaddr *)&address, length) == 0;
    int err = errno;
    close(fd);
    errno = err;
    return done;
}

bool parent_is_gone(void)
{
    return !notify(NULL) && errno == ECONNREFUSED;
}

void write_ready(void)
{
    if (!notify("READY=1"))
        say("can't say that the pod is ready: %s", strerror(errno));
    if (symlink("ready", "/rkt/supervisor-status") < 0 && errno != EEXIST)
        say("can't say that the pod is ready: %s", strerror(errno));
}
