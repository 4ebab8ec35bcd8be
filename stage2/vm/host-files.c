/*
 * Files in the pod's folder that the machine's side speaks of. A name from the machine is one of the few that a pod's
 * init has, of plain characters: nothing in it can lead elsewhere, and what is written is small and seldom.
 */
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
#include "host.h"

#define MOST_CONTENT 4096
/* At once: a few for each app. */
#define MOST_FILES 8192u
#define MOST_LOGS 512

static unsigned files;

struct log {
    const char *app;
    int fd;
    uint64_t size, most;
    unsigned kept;
    bool failing;
};
static struct log logs[MOST_LOGS];
static size_t log_count;

void send_pod_file(const char *path, const char *name)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        die_errno("can't give the machine %s", path);
    if (!S_ISREG(st.st_mode) || st.st_size > (off_t)(MUX_MOST_MESSAGE / 2))
        die("can't give the machine %s: it is no file of at most %u bytes", path, MUX_MOST_MESSAGE / 2);
    char *content = malloc((size_t)st.st_size + 1);
    if (!content || read(fd, content, (size_t)st.st_size) != st.st_size)
        die("can't give the machine %s: it can't be read", path);
    close(fd);
    mux_send_named(FRAME_FILE, name, content, (size_t)st.st_size);
    free(content);
}

static bool is_plain(const char *name)
{
    size_t length = strlen(name);
    for (size_t i = 0; i < length; i++) {
        char c = name[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("._-", c)))
            return false;
    }
    return length > 0 && length <= 200 && name[0] != '.';
}

/* Where a name of the machine's lies on the host, or false. */
static bool place_of(const char *name, char path[512])
{
    bool known = strcmp(name, "init-began") == 0 || strcmp(name, "init-ended") == 0 ||
                 strcmp(name, "supervisor-status") == 0 ||
                 (strncmp(name, "status/", 7) == 0 && is_plain(name + 7));
    if (known)
        snprintf(path, 512, POD_FILES "/%s", name);
    return known;
}

/* sd_notify(3), to the manager of the unit that the pod is. */
static void notify_ready(void)
{
    const char *path = getenv("NOTIFY_SOCKET"), *text = "READY=1";
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    if (!path || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof address.sun_path)
        return;
    memcpy(address.sun_path, path, strlen(path));
    socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path) + (path[0] == '/'));
    if (path[0] == '@')
        address.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&address, length) < 0)
        say("can't say that the pod is ready: %s", strerror(errno));
    if (fd >= 0)
        close(fd);
}

/* Written aside and renamed: who reads has the whole of it. */
static void write_whole(const char *path, const char *content, size_t length)
{
    static const char aside[] = POD_FILES "/.machine";
    int fd = open(aside, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0 || write(fd, content, length) != (ssize_t)length || rename(aside, path) < 0)
        say("can't write %s: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
}

void take_pod_file(const char *data, size_t length, bool removed)
{
    char path[512];
    size_t name = strnlen(data, length);
    if (name == length && !removed)
        return;
    if (!place_of(data, path))
        return;
    if (removed) {
        if (unlink(path) == 0 && files > 0)
            files--;
        return;
    }
    if (access(path, F_OK) < 0 && files++ >= MOST_FILES) {
        files--;
        return;
    }
    if (strcmp(data, "supervisor-status") == 0) {
        notify_ready();
        /* rkt's way to say it. */
        if (symlink("ready", path) < 0 && errno != EEXIST)
            say("can't write %s: %s", path, strerror(errno));
        return;
    }
    size_t content = length - name - 1;
    write_whole(path, data + name + 1, content < MOST_CONTENT ? content : MOST_CONTENT);
    size_t ending = strlen("-started");
    if (strncmp(data, "status/", 7) == 0)
        open_sockets(name > ending && strcmp(data + name - ending, "-started") == 0);
}

void write_failure(const char *text, const char *console, size_t length)
{
    write_whole(POD_FILES "/machine-failed", text, strlen(text));
    write_whole(POD_FILES "/machine-console", console, length);
}

void log_for(const char *app, uint64_t most, unsigned kept)
{
    if (log_count == MOST_LOGS || !is_plain(app))
        die("can't keep the log of app \"%s\"", app);
    logs[log_count++] = (struct log){ .app = app, .fd = -1, .most = most, .kept = kept };
}

static void log_path(char path[512], const struct log *log, unsigned age)
{
    if (age == 0)
        snprintf(path, 512, POD_FILES "/logs/%s.log", log->app);
    else
        snprintf(path, 512, POD_FILES "/logs/%s.log.%u", log->app, age);
}

static void rotate(struct log *log)
{
    char from[512], to[512];
    close(log->fd);
    log->fd = -1;
    for (unsigned age = log->kept; age > 0; age--) {
        log_path(from, log, age - 1);
        log_path(to, log, age);
        rename(from, to);
    }
    if (log->kept == 0) {
        log_path(from, log, 0);
        unlink(from);
    }
}

void take_log(const char *data, size_t length)
{
    size_t name = strnlen(data, length);
    struct log *log = NULL;
    struct stat st;
    char path[512];
    if (name == length)
        return;
    for (size_t i = 0; i < log_count && !log; i++)
        if (strcmp(logs[i].app, data) == 0)
            log = &logs[i];
    if (!log)
        return;
    if (log->fd < 0) {
        log_path(path, log, 0);
        log->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0640);
        log->size = log->fd >= 0 && fstat(log->fd, &st) == 0 ? (uint64_t)st.st_size : 0;
    }
    const char *text = data + name + 1;
    size_t size = length - name - 1;
    bool whole = log->fd >= 0 && write(log->fd, text, size) == (ssize_t)size;
    if (!whole && !log->failing)
        say("app \"%s\": can't write its log, lines are lost: %s", log->app, strerror(errno));
    log->failing = !whole;
    log->size += size;
    /* Records come whole, but a piece may end within one. */
    if (log->fd >= 0 && log->size >= log->most && size > 0 && text[size - 1] == '\n')
        rotate(log);
}
