/*
 * The pod becomes this process's: its lock, its folder's place, the sockets it was given. The lock is on
 * the file `lock`, not on the folder, for its descriptor ends in the app, and a descriptor of a folder
 * outside the app's root would be a way out of it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/die.h"
#include "common/numbers.h"
#include "common/process.h"
#include "launch.h"

static bool same_file(int a, int b)
{
    struct stat left, right;
    return fstat(a, &left) == 0 && fstat(b, &right) == 0 && left.st_dev == right.st_dev && left.st_ino == right.st_ino;
}

/* The descriptor that stage0 handed over, or -1 when this is started without one. */
static int inherited_lock(int folder)
{
    const char *text = getenv("TSPOD_LOCK_FD");
    uint64_t number;
    if (!text)
        return -1;
    if (!parse_number(text, 10, INT_MAX, &number) || number < 3)
        die("can't take over the pod: TSPOD_LOCK_FD is \"%s\", no descriptor", text);
    int lock = (int)number;
    int file = openat(folder, "lock", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (file < 0)
        die_errno("can't take over the pod: can't open its lock");
    if (!same_file(file, lock))
        die("can't take over the pod: descriptor %d is not its lock", lock);
    close(file);
    /* Free when ours; another holder means that it was never locked for us. */
    if (flock(lock, LOCK_EX | LOCK_NB) < 0)
        die("can't take over the pod: descriptor %d does not hold its lock", lock);
    return lock;
}

/* A reader of the state holds a shared lock for an instant. */
static bool lock_patiently(int lock)
{
    const struct timespec pause = { .tv_nsec = 5000000 };
    for (int attempt = 0; flock(lock, LOCK_EX | LOCK_NB) < 0; attempt++) {
        if (errno != EWOULDBLOCK || attempt == 40)
            return false;
        nanosleep(&pause, NULL);
    }
    return true;
}

static int take_lock(int folder, const char *name)
{
    int lock = openat(folder, "lock", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (lock < 0)
        die_errno("can't start the pod in \"%s\": can't open its lock", name);
    if (!lock_patiently(lock)) {
        if (errno == EWOULDBLOCK)
            die("can't start the pod in \"%s\": it is in use", name);
        die_errno("can't start the pod in \"%s\": can't lock it", name);
    }
    return lock;
}

/* prepared/UUID -> run/UUID, durably. */
static void move_to_run(int folder)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "/proc/self/fd/%d", folder);
    char real[PATH_MAX];
    ssize_t length = readlink(path, real, sizeof real - 1);
    if (length < 0)
        die_errno("can't start the pod: its folder has no name");
    real[length] = '\0';
    char *uuid = strrchr(real, '/');
    if (!uuid || uuid == real)
        return;
    *uuid++ = '\0';
    char *phase = strrchr(real, '/');
    if (!phase || strcmp(phase, "/prepared") != 0)
        return;
    int prepared = open(real, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    *phase = '\0';
    int pods = open(*real ? real : "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int run = pods < 0 ? -1 : openat(pods, "run", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (run < 0 && pods >= 0 && errno == ENOENT && mkdirat(pods, "run", 0700) == 0)
        run = openat(pods, "run", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (prepared < 0 || run < 0)
        die_errno("can't move the pod %s to run", uuid);
    /* Between lock and here somebody else may have started and ended it: what we locked must be it. */
    int there = openat(prepared, uuid, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (there < 0 || !same_file(there, folder))
        die("can't start the pod %s: it is in use", uuid);
    if (renameat(prepared, uuid, run, uuid) < 0)
        die_errno("can't move the pod %s to run", uuid);
    if (fsync(prepared) < 0 || fsync(run) < 0)
        die_errno("can't move the pod %s to run", uuid);
    fault_point("renamed");
    close(there);
    close(prepared);
    close(run);
    close(pods);
}

void take_pod(const char *name)
{
    int folder = open(name, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        die_errno("can't open the pod's folder \"%s\"", name);
    held.lock = inherited_lock(folder);
    if (held.lock < 0) {
        held.lock = take_lock(folder, name);
        fault_point("locked");
        move_to_run(folder);
    }
    if (fchdir(folder) < 0)
        die_errno("can't open the pod's folder \"%s\"", name);
    close(folder);
}

/* sd_listen_fds(3): the descriptors are ours only if LISTEN_PID says so. */
void take_socket_activation(void)
{
    const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS"), *watchdog = getenv("WATCHDOG_PID");
    char own[16];
    uint64_t number;
    snprintf(own, sizeof own, "%d", (int)getpid());
    if (pid && count && strcmp(pid, own) == 0 && parse_number(count, 10, 1024, &number)) {
        for (uint64_t i = 0; i < number; i++)
            if (fcntl(3 + (int)i, F_GETFD) < 0)
                die("can't pass sockets on: LISTEN_FDS is %s, but descriptor %d is not open", count, 3 + (int)i);
        held.listen = (unsigned)number;
    }
    held.watchdog = watchdog && strcmp(watchdog, own) == 0;
}
