/*
 * `supervise`: the process that the user started stays, waits for the app, and ends as the app ended.
 *
 * Terminal and signals: the app stays in the caller's process group, so it has the terminal exactly when
 * the caller had it, and what the terminal sends (^C, ^Z, ^\, a new size, a hang-up) reaches it from the
 * kernel. What a process sends to us alone is passed on; what came from the kernel, or from the app itself,
 * is not, or it would arrive twice. A stop stops us, too, so that the shell's job control sees it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/close-fds.h"
#include "common/die.h"
#include "common/process.h"
#include "launch.h"

struct end {
    const char *kind; /* exited, signaled, failed */
    int number;
};

static void report_failure(void)
{
    if (held.status >= 0 && write(held.status, "F", 1) < 0)
        return; /* the supervisor is gone; we end anyway */
}

static void set_number(const char *name, int number)
{
    char text[16];
    snprintf(text, sizeof text, "%d", number);
    if (setenv(name, text, 1) < 0)
        die("can't start: no memory");
}

/* A signal that was sent to us. */
static void pass_on(pid_t child, const siginfo_t *info)
{
    int number = info->si_signo;
    bool stops = number == SIGTSTP || number == SIGTTIN || number == SIGTTOU;
    /* SI_KERNEL: from the terminal, to the whole foreground group. */
    bool ours_alone = info->si_code != SI_KERNEL && info->si_pid != child;
    /* In a session of its own it hears nothing of our terminal: its process group gets that from us. */
    if (held.apart && held.relay < 0 && (info->si_code == SI_KERNEL || number == SIGCONT)) {
        if (kill(-child, stops ? SIGSTOP : number) < 0)
            kill(child, number);
    } else if (ours_alone) {
        if (info->si_code == SI_QUEUE)
            sigqueue(child, number, info->si_value);
        else
            kill(child, number);
    }
    if (stops)
        raise(SIGSTOP);
}

static int wait_for(pid_t child)
{
    sigset_t all;
    sigfillset(&all);
    for (;;) {
        int status;
        pid_t ended = waitpid(child, &status, WNOHANG);
        if (ended == child)
            return status;
        if (ended < 0 && errno != EINTR)
            die_errno("can't wait for the app");
        siginfo_t info;
        if (sigwaitinfo(&all, &info) < 0)
            continue;
        if (info.si_signo != SIGCHLD)
            pass_on(child, &info);
    }
}

/* 'R' as the last byte: the app's own program was executed. */
static bool was_executed(int status)
{
    char bytes[8];
    ssize_t length;
    do
        length = read(status, bytes, sizeof bytes);
    while (length < 0 && errno == EINTR);
    return length > 0 && bytes[length - 1] == 'R';
}

static struct end describe(int status, int status_pipe)
{
    if (!was_executed(status_pipe))
        return (struct end){ "failed", EXIT_FAILED };
    if (WIFSIGNALED(status))
        return (struct end){ "signaled", WTERMSIG(status) };
    return (struct end){ "exited", WEXITSTATUS(status) };
}

void run_init_folder(const struct step *step)
{
    held.init = word_text(step, 1);
}

static bool init_told(const char *what)
{
    char path[4096];
    return snprintf(path, sizeof path, "%s/%s", held.init, what) < (int)sizeof path &&
           faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* What leads to a pod's init (systemd-nspawn) ends with a status of its own where init has none to hand on. */
static struct end as_init_told(struct end end)
{
    if (!held.init || strcmp(end.kind, "exited") != 0 || end.number == 0 || init_told("init-ended"))
        return end;
    if (init_told("init-began") && end.number != EXIT_FAILED)
        return (struct end){ "signaled", SIGKILL };
    if (!init_told("init-began"))
        say("can't start the pod: what was to start its init ended with %d", end.number);
    return (struct end){ "failed", EXIT_FAILED };
}

/* Written aside and renamed: a reader sees the whole number or no file. */
static void write_status(const char *folder, const char *app, struct end end)
{
    char path[4096], aside[4096 + 8], text[16];
    if (snprintf(path, sizeof path, "%s/%s", folder, app) >= (int)sizeof path)
        return say("can't write the status of \"%s\": the name is too long", app);
    snprintf(aside, sizeof aside, "%s.new", path);
    int length = snprintf(text, sizeof text, "%d", strcmp(end.kind, "signaled") == 0 ? 128 + end.number : end.number);
    int fd = open(aside, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0 || write(fd, text, (size_t)length) != length || close(fd) < 0 || rename(aside, path) < 0)
        say("can't write the status of \"%s\": %s", app, strerror(errno));
}

static void run_command(const struct step *step, struct end end)
{
    char number[16];
    char **argv = calloc(step->count, sizeof *argv); /* minus 3, plus 2 words and NULL */
    if (!argv)
        return say("can't run \"%s\": no memory", word_text(step, 3));
    uint32_t count = step->count - 3;
    snprintf(number, sizeof number, "%d", end.number);
    for (uint32_t i = 0; i < count; i++)
        argv[i] = (char *)word_text(step, i + 3);
    argv[count] = (char *)end.kind;
    argv[count + 1] = number;
    pid_t child = fork();
    if (child < 0)
        return say("can't run \"%s\": %s", argv[0], strerror(errno));
    if (child == 0) {
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        keep_fds_at_exec(NULL, 0);
        execvp(argv[0], argv);
        die_errno("can't run \"%s\"", argv[0]);
    }
    while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
        ;
    free(argv);
}

_Noreturn static void end_like(struct end end)
{
    if (strcmp(end.kind, "signaled") != 0)
        exit(end.number);
    /* The same death, for whoever waits for us; the core file was the app's to write. */
    struct rlimit none = { 0, 0 };
    setrlimit(RLIMIT_CORE, &none);
    signal(end.number, SIG_DFL);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, end.number);
    raise(end.number);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    exit(128 + end.number);
}

_Noreturn void end_like_child(int status)
{
    end_like(WIFSIGNALED(status) ? (struct end){ "signaled", WTERMSIG(status) }
                                 : (struct end){ "exited", WEXITSTATUS(status) });
}

_Noreturn static void supervise(const struct step *step, pid_t child, int status_pipe)
{
    int status = wait_for(child);
    struct end end = as_init_told(describe(status, status_pipe));
    if (strcmp(word_text(step, 1), "-") != 0)
        write_status(word_text(step, 1), word_text(step, 2), end);
    if (held.lock >= 0)
        close(held.lock);
    if (step->count > 3)
        run_command(step, end);
    end_like(end);
}

void run_supervise(const struct step *step)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        die_errno("can't supervise the app");
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    /* Ignored by the caller, the kernel would reap the app unseen. */
    struct sigaction plain = { .sa_handler = SIG_DFL }, child_signal;
    sigaction(SIGCHLD, &plain, &child_signal);

    pid_t parent = getpid();
    pid_t child = fork();
    if (child < 0)
        die_errno("can't supervise the app");
    if (child > 0) {
        close(ends[1]);
        supervise(step, child, ends[0]);
    }
    close(ends[0]);
    held.status = ends[1];
    before_death = report_failure;
    /* getppid() is 0 when the parent is outside a new pid namespace; then it is the pipe that tells. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
        die_errno("can't supervise the app");
    pid_t now = getppid();
    if (now != parent && now != 0)
        _exit(EXIT_FAILED);
    sigaction(SIGCHLD, &child_signal, NULL);
    sigprocmask(SIG_SETMASK, &before, NULL);
    take_terminal();
    if (held.listen > 0)
        set_number("LISTEN_PID", (int)getpid());
    if (held.watchdog)
        set_number("WATCHDOG_PID", (int)getpid());
}
