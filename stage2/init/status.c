/* The files by which others see how the apps are: rkt's names and forms (stage1 implementors' guide). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
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

void write_ready(void)
{
    if (symlink("ready", "/rkt/supervisor-status") < 0 && errno != EEXIST)
        say("can't say that the pod is ready: %s", strerror(errno));
}
