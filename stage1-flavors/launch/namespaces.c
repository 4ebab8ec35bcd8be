/* Namespaces: new ones, and those of a running process, which is held by a pidfd while they are opened. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/die.h"
#include "common/process.h"
#include "launch.h"

static const struct {
    const char *name, *file;
    int flag;
} NAMESPACES[] = {
    { "mount", "mnt", CLONE_NEWNS }, { "uts", "uts", CLONE_NEWUTS }, { "ipc", "ipc", CLONE_NEWIPC },
    { "net", "net", CLONE_NEWNET },  { "pid", "pid", CLONE_NEWPID }, { "cgroup", "cgroup", CLONE_NEWCGROUP },
};
#define NAMESPACE_COUNT (sizeof NAMESPACES / sizeof NAMESPACES[0])

bool parse_namespace(const char *name, int *flag)
{
    for (size_t i = 0; i < NAMESPACE_COUNT; i++)
        if (strcmp(NAMESPACES[i].name, name) == 0) {
            *flag = NAMESPACES[i].flag;
            return true;
        }
    return false;
}

void run_unshare(const struct step *step)
{
    int flags = 0;
    for (uint32_t i = 1; i < step->count; i++) {
        int flag = 0;
        parse_namespace(word_text(step, i), &flag);
        flags |= flag;
    }
    if (unshare(flags) < 0)
        die_errno("can't make the pod's namespaces");
}

void run_hostname(const struct step *step)
{
    if (sethostname(word_text(step, 1), step->words[1].length) < 0)
        die_errno("can't set the hostname \"%s\"", word_text(step, 1));
}

/* The same process as at the beginning, and alive: what was opened by its number is its own. */
static void require_alive(int pidfd, const char *pid, uint64_t ticks)
{
    uint64_t now;
    if (syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0) < 0 || !process_start_time(pid, &now) ||
        (ticks && now != ticks))
        die("can't enter: process %s has ended", pid);
}

void run_join_namespaces(const struct step *step)
{
    pid_t number = 0;
    uint64_t ticks = 0;
    char pid[16], path[64];
    parse_process(word_text(step, 1), &number, &ticks);
    snprintf(pid, sizeof pid, "%d", (int)number);
    int pidfd = (int)syscall(SYS_pidfd_open, number, 0);
    if (pidfd < 0)
        die(errno == ESRCH ? "can't enter: process %s has ended" : "can't enter: process %s can't be opened", pid);
    require_alive(pidfd, pid, ticks);
    int files[8] = { 0 };
    for (uint32_t i = 2; i < step->count; i++)
        for (size_t k = 0; k < NAMESPACE_COUNT; k++)
            if (strcmp(NAMESPACES[k].name, word_text(step, i)) == 0) {
                snprintf(path, sizeof path, "/proc/%s/ns/%s", pid, NAMESPACES[k].file);
                files[i - 2] = open(path, O_RDONLY | O_CLOEXEC);
                if (files[i - 2] < 0)
                    die_errno("can't enter: can't open %s", path);
            }
    require_alive(pidfd, pid, ticks);
    for (uint32_t i = 2; i < step->count; i++) {
        if (setns(files[i - 2], 0) < 0)
            die_errno("can't enter the %s namespace of process %s", word_text(step, i), pid);
        held.inside = held.inside || strcmp(word_text(step, i), "mount") == 0;
        close(files[i - 2]);
    }
    close(pidfd);
    /* Entering a mount namespace puts the process at its root. A flavor whose pods keep the host's tree
     * goes on with paths relative to the pod's folder; in another one they lead nowhere, and say so. */
    if (chdir(held.folder) < 0 && chdir("/") < 0)
        die_errno("can't enter: can't change to the root");
}
