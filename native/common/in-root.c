#define _GNU_SOURCE
#include "in-root.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

int open_in_root(int root, const char *path, uint64_t flags, mode_t mode)
{
    struct open_how how = {
        .flags = flags | O_CLOEXEC,
        .mode = flags & O_CREAT ? mode : 0,
        .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
    };
    /* EAGAIN: a rename or mount raced with a ".." on the way, and the kernel can't vouch for the walk. */
    for (int tries = 0;; tries++) {
        int fd = (int)syscall(SYS_openat2, root, *path ? path : ".", &how, sizeof how);
        if (fd >= 0 || (errno != EAGAIN && errno != EINTR) || tries == 1000)
            return fd;
    }
}

static int make_folders(int root, const char *path, mode_t mode, int links);

/* A link that leads nowhere: what it names is made, below the root as everything. */
static int make_link_target(int root, int parent, const char *name, const char *prefix, const char *rest, mode_t mode,
                            int links)
{
    char link[PATH_MAX], path[PATH_MAX];
    ssize_t length = readlinkat(parent, name, link, sizeof link - 1);
    if (length < 0 || links == 0) {
        errno = ELOOP;
        return -1;
    }
    link[length] = '\0';
    /* A relative link starts where the link lies; the string is only ever resolved below the root. */
    int size = link[0] == '/' ? snprintf(path, sizeof path, "%s/%s", link, rest)
                              : snprintf(path, sizeof path, "%.*s/%s/%s", (int)(strlen(prefix) - strlen(name)), prefix, link, rest);
    if (size < 0 || (size_t)size >= sizeof path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    return make_folders(root, path, mode, links - 1);
}

static int make_folders(int root, const char *path, mode_t mode, int links)
{
    if (strlen(path) >= PATH_MAX) {
        errno = ENAMETOOLONG;
        return -1;
    }
    int folder = open_in_root(root, path, O_PATH | O_DIRECTORY, 0);
    if (folder >= 0 || errno != ENOENT)
        return folder;

    char prefix[PATH_MAX];
    int parent = open_in_root(root, "/", O_PATH | O_DIRECTORY, 0);
    const char *at = path;
    while (parent >= 0) {
        at += strspn(at, "/");
        if (!*at)
            return parent;
        size_t length = strcspn(at, "/");
        char name[NAME_MAX + 1];
        if (length > NAME_MAX) {
            close(parent);
            errno = ENAMETOOLONG;
            return -1;
        }
        memcpy(name, at, length);
        name[length] = '\0';
        at += length;
        memcpy(prefix, path, (size_t)(at - path));
        prefix[at - path] = '\0';
        /* The prefix is walked anew each time, so a link in it may lead anywhere within the root. */
        int next = open_in_root(root, prefix, O_PATH | O_DIRECTORY, 0);
        if (next < 0 && errno == ENOENT) {
            /* EEXIST: somebody else made it, or it is a link that leads nowhere. */
            if (mkdirat(parent, name, mode) == 0 || errno == EEXIST) {
                next = open_in_root(root, prefix, O_PATH | O_DIRECTORY, 0);
                if (next < 0 && errno == ENOENT) {
                    next = make_link_target(root, parent, name, prefix, at, mode, links);
                    int reason = errno;
                    close(parent);
                    errno = reason;
                    return next;
                }
            }
        }
        int reason = errno;
        close(parent);
        errno = reason;
        parent = next;
    }
    return parent;
}

int make_folders_in_root(int root, const char *path, mode_t mode)
{
    return make_folders(root, path, mode, 40 /* as the kernel follows */);
}

int open_parent_in_root(int root, const char *path, char name[256])
{
    size_t length = strlen(path);
    while (length > 0 && path[length - 1] == '/')
        length--;
    size_t start = length;
    while (start > 0 && path[start - 1] != '/')
        start--;
    if (length - start == 0 || length - start > 255 || start >= PATH_MAX) {
        errno = length - start == 0 ? EINVAL : ENAMETOOLONG;
        return -1;
    }
    memcpy(name, path + start, length - start);
    name[length - start] = '\0';
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        errno = EINVAL;
        return -1;
    }
    char parent[PATH_MAX];
    snprintf(parent, sizeof parent, "%.*s", (int)start, path);
    return make_folders_in_root(root, parent, 0755);
}
