/*
 * The last step. stage2 is executed from a sealed copy in memory, so that a root inside the pod can never
 * write into the host's binary through /proc/PID/exe (CVE-2019-5736). The copy and the app's plan are
 * opened before the first step: afterwards their paths may lead elsewhere.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/close-fds.h"
#include "common/die.h"
#include "launch.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif
#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x0020
#endif
#define FIRST_PASSED 3 /* SD_LISTEN_FDS_START */

extern char **environ;

static int open_stage2(void)
{
    char path[PATH_MAX + 8];
    ssize_t length = readlink("/proc/self/exe", path, PATH_MAX - 1);
    if (length < 0)
        die_errno("can't find stage2: can't read /proc/self/exe");
    path[length] = '\0';
    strcpy(strrchr(path, '/') + 1, "stage2");
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        die_errno("can't open %s", path);
    return fd;
}

static int sealed_copy(int source)
{
    int copy = memfd_create("stage2", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);
    if (copy < 0 && errno == EINVAL) /* before Linux 6.3: executable unless said otherwise */
        copy = memfd_create("stage2", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (copy < 0) {
        if (errno == EACCES)
            die("can't start stage2: the kernel forbids executable memory files; set vm.memfd_noexec to 0 or 1 with sysctl");
        die_errno("can't start stage2: can't make a memory file");
    }
    struct stat st;
    if (fstat(source, &st) < 0)
        die_errno("can't start stage2: can't copy it");
    off_t left = st.st_size;
    while (left > 0) {
        ssize_t sent = sendfile(copy, source, NULL, (size_t)left);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            die_errno("can't start stage2: can't copy it");
        left -= sent;
    }
    int seals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
    if (fchmod(copy, 0500) < 0)
        die_errno("can't start stage2: can't seal it");
    if (fcntl(copy, F_ADD_SEALS, seals | F_SEAL_EXEC) < 0 && fcntl(copy, F_ADD_SEALS, seals) < 0)
        die_errno("can't start stage2: can't seal it");
    return copy;
}

/* The plan that names it is trusted, so links are followed: enter passes /proc/self/fd/N. */
void prepare_start(const char *app_plan)
{
    held.app_plan = open(app_plan, O_RDONLY | O_CLOEXEC);
    if (held.app_plan < 0)
        die_errno("can't read the app plan \"%s\"", app_plan);
    int source = open_stage2();
    held.stage2 = sealed_copy(source);
    close(source);
}

/* Moves a descriptor out of the way of the numbers that the app gets. */
static int move_up(int fd, int least)
{
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, least);
    if (moved < 0)
        die_errno("can't arrange the descriptors");
    close(fd);
    return moved;
}

/* After this: 0-2, the sockets from 3 on, the lock right behind them; everything else is CLOEXEC. */
static void arrange(int *passed, size_t *count)
{
    int free_from = FIRST_PASSED + (int)held.listen + 1;
    if (held.app_plan >= 0)
        held.app_plan = move_up(held.app_plan, free_from);
    if (held.stage2 >= 0)
        held.stage2 = move_up(held.stage2, free_from);
    if (held.status >= 0)
        held.status = move_up(held.status, free_from);
    *count = 0;
    for (unsigned i = 0; i < held.listen; i++)
        passed[(*count)++] = FIRST_PASSED + (int)i;
    if (held.lock >= 0) {
        int wanted = FIRST_PASSED + (int)held.listen;
        if (held.lock != wanted) {
            if (dup3(held.lock, wanted, O_CLOEXEC) < 0)
                die_errno("can't arrange the descriptors");
            held.lock = wanted;
        }
        passed[(*count)++] = held.lock;
    }
}

static void name_lock(void)
{
    char text[16];
    snprintf(text, sizeof text, "%d", held.lock);
    if (held.lock < 0) {
        unsetenv("RKT_LOCK_FD");
        unsetenv("TSPOD_LOCK_FD");
    } else if (setenv("RKT_LOCK_FD", text, 1) < 0 || setenv("TSPOD_LOCK_FD", text, 1) < 0) {
        die("can't start: no memory");
    }
    unsetenv("TSPOD_FAULT");
    if (held.listen == 0) {
        /* They were meant for another process. */
        unsetenv("LISTEN_PID");
        unsetenv("LISTEN_FDS");
        unsetenv("LISTEN_FDNAMES");
    }
}

static void keep(const int *passed, size_t count)
{
    int bad = keep_fds_at_exec(passed, count);
    if (bad >= 0)
        die_errno("can't pass descriptor %d on", bad);
}

void run_start(const struct step *step)
{
    (void)step;
    int passed[1024 + 4];
    size_t count;
    arrange(passed, &count);
    name_lock();

    const char **argv = calloc(2 * count + 8, sizeof *argv);
    char(*numbers)[16] = calloc(count + 2, sizeof *numbers);
    if (!argv || !numbers)
        die("can't start stage2: no memory");
    size_t words = 0, used = 0;
    argv[words++] = "stage2";
    argv[words++] = "app";
    for (size_t i = 0; i < count; i++) {
        snprintf(numbers[used], sizeof numbers[used], "%d", passed[i]);
        argv[words++] = "--keep-fd";
        argv[words++] = numbers[used++];
    }
    snprintf(numbers[used], sizeof numbers[used], "%d", held.app_plan);
    argv[words++] = "--plan-fd";
    argv[words++] = numbers[used++];
    passed[count++] = held.app_plan;
    if (held.status >= 0) {
        snprintf(numbers[used], sizeof numbers[used], "%d", held.status);
        argv[words++] = "--status-fd";
        argv[words++] = numbers[used++];
        passed[count++] = held.status;
    }
    keep(passed, count);
    syscall(SYS_execveat, held.stage2, "", argv, environ, AT_EMPTY_PATH);
    die_errno("can't execute stage2");
}

void run_done(const struct step *step)
{
    (void)step;
    exit(0);
}

void run_environment(const struct step *step)
{
    for (uint32_t i = 1; i < step->count; i++)
        if (putenv((char *)word_text(step, i)) != 0)
            die("can't start: no memory");
}

void run_exec(const struct step *step)
{
    int passed[1024 + 4];
    size_t count;
    arrange(passed, &count);
    name_lock();
    char **argv = calloc(step->count + 1, sizeof *argv);
    if (!argv)
        die("can't execute \"%s\": no memory", word_text(step, 1));
    /* exec PATH WORD...: PATH is the first argument, too. */
    for (uint32_t i = 1; i < step->count; i++)
        argv[i - 1] = (char *)word_text(step, i);
    keep(passed, count);
    if (held.status >= 0 && write(held.status, "R", 1) != 1)
        die_errno("can't report to the supervisor");
    execve(argv[0], argv, environ);
    die_errno("can't execute \"%s\"", argv[0]);
}
