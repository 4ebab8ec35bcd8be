/*
 * PID 1 of a machine. It makes of the machine what a host with systemd-nspawn is to a pod: mounts, namespaces, and
 * the pod's init in them; then it carries streams, files and commands between that init and the host.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/close-fds.h"
#include "common/die.h"
#include "run-vm.h"

#define MOST_POLLED 1024
/* How long the host has to take what is left. */
#define LAST_MS 5000

static bool has_port;
static struct plan plan;
static struct streams streams;
static struct start_request start;
static char term[64] = "TERM=linux";
static bool started, init_ended;
static uint32_t init_status;
static int init_signal;
static int signals;

static _Noreturn void switch_off(void)
{
    sync();
    /* QEMU ends instead: not every machine has a way to be switched off. */
    reboot(RB_AUTOBOOT);
    for (;;)
        pause();
}

static void pump(int wait);

static _Noreturn void end(uint32_t status, const char *text)
{
    char message[600];
    size_t length = strlen(text) < 500 ? strlen(text) : 500;
    memcpy(message, &status, sizeof status);
    memcpy(message + sizeof status, text, length);
    if (getpid() != 1) {
        dprintf(STDERR_FILENO, "%s: %s\n", program_name, text);
        _exit((int)status);
    }
    if (has_port) {
        mux_send(FRAME_END, 0, message, sizeof status + length);
        /* The host ends the machine when it has everything. */
        for (int i = 0; i < LAST_MS / 10 && !(mux_is_flushed() && i > LAST_MS / 20); i++)
            pump(10);
    } else
        dprintf(STDERR_FILENO, "%s: %s\n", program_name, text);
    switch_off();
}

void fail(const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    end(EXIT_FAILED, text);
}

void fail_errno(const char *format, ...)
{
    char text[512];
    int reason = errno;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fail("%s: %s", text, strerror(reason));
}

static const struct verb VERBS[] = {
    { .name = "program", .least = 1, .most = 1 },
    { .name = "hostname", .least = 1, .most = 1 },
    { .name = "layer", .least = 3, .most = 3 },
    { .name = "scratch", .least = 2, .most = 2 },
    { .name = "share", .least = 2, .most = 2 },
    { .name = "interface", .least = 2, .most = 2 },
    { .name = "up", .least = 1, .most = 1 },
    { .name = "address", .least = 2, .most = 2 },
    { .name = "route", .least = 3, .most = 3 },
    { .name = "log", .least = 1, .most = 1 },
    { .name = "launch", .least = 1, .most = 1 },
    { 0 },
};

/* In the child: PID 1 of the pod. */
static _Noreturn void become_init(const char *hostname)
{
    char *environment[] = { term, "container=tspod", NULL };
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setsid();
    enter_tree(hostname);
    use_streams(&streams);
    if (keep_fds_at_exec(NULL, 0) == -1)
        execle("/init", "/init", "init", NULL, environment);
    die_errno("can't execute the pod's init");
}

static void start_pod(void)
{
    const char *hostname = "pod";
    int fd = open(POD "/machine-plan", O_RDONLY | O_CLOEXEC);
    started = true;
    if (fd < 0 || !plan_read(&plan, fd) || !plan_check(&plan, VERBS))
        fail("can't use the machine's plan: %s", fd < 0 ? strerror(errno) : plan.error);
    close(fd);
    prepare_tree();
    watch_files();
    for (size_t i = 0; i < plan.count; i++) {
        const struct step *step = &plan.steps[i];
        if (strcmp(word_text(step, 0), "program") == 0)
            program_name = word_text(step, 1);
        else if (strcmp(word_text(step, 0), "hostname") == 0)
            hostname = word_text(step, 1);
        else
            carry_out(step);
    }
    open_streams(&streams, 0, &start);
    pod_init = (pid_t)syscall(SYS_clone, SIGCHLD | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC, 0, 0, 0, 0);
    if (pod_init < 0)
        fail_errno("can't make the pod's namespaces");
    if (pod_init == 0)
        become_init(hostname);
    close_inner(&streams);
}

static void take_start(const char *data, size_t length)
{
    if (started || length < sizeof start)
        return;
    memcpy(&start, data, sizeof start);
    if (length > sizeof start && length - sizeof start < sizeof term - 8)
        snprintf(term, sizeof term, "TERM=%.*s", (int)(length - sizeof start), data + sizeof start);
    start_pod();
}

static void take_signal(uint32_t channel, uint32_t number)
{
    if (channel != 0)
        command_signal(channel, (int)number);
    else if (pod_init > 0 && !init_ended && number < 65)
        kill(pod_init, (int)number);
}

static void handle_frame(const struct frame *frame, const char *data)
{
    uint32_t number = 0;
    struct window window;
    if (frame->length >= sizeof number)
        memcpy(&number, data, sizeof number);
    switch (frame->type) {
    case FRAME_FILE:
        take_file(data, frame->length);
        return;
    case FRAME_START:
        take_start(data, frame->length);
        return;
    case FRAME_OPEN:
        open_requested(frame->channel, data, frame->length);
        return;
    case FRAME_CLOSE:
        close_requested(frame->channel);
        return;
    case FRAME_SIGNAL:
        take_signal(frame->channel, number);
        return;
    case FRAME_RESIZE:
        if (frame->length < sizeof window)
            return;
        memcpy(&window, data, sizeof window);
        if (frame->channel == 0)
            resize_terminal(streams.terminal, &window);
        else
            command_resize(frame->channel, &window);
        return;
    case FRAME_POWER_OFF:
        switch_off();
    }
}

static void reap(void)
{
    struct signalfd_siginfo info;
    int status;
    while (read(signals, &info, sizeof info) == (ssize_t)sizeof info)
        ;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
        if (pid == pod_init) {
            init_ended = true;
            init_signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
            init_status = (uint32_t)(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
        } else
            command_process_ended(pid, status);
    }
}

static void pump(int wait)
{
    static struct pollfd fds[MOST_POLLED];
    size_t used = 0;
    fds[used++] = (struct pollfd){ .fd = signals, .events = POLLIN };
    used = files_poll(fds, used, MOST_POLLED);
    used = mux_poll(fds, used, MOST_POLLED);
    if (poll(fds, used, wait) < 0 && errno != EINTR)
        fail_errno("can't wait");
    if (fds[0].revents)
        reap();
    files_ready();
    mux_ready();
    finish_commands();
}

/* All that the pod's processes wrote: they are dead, so each stream has an end. */
static bool output_has_ended(void)
{
    for (uint32_t id = CHANNEL_OUT; id < CHANNELS_OF_COMMAND; id++) {
        struct channel *channel = mux_find(id);
        if (channel && !channel_is_read(channel))
            return false;
    }
    return true;
}

/* What reboot(2) in a process namespace does to its first process is in pid_namespaces(7). */
static _Noreturn void tell_end(void)
{
    char text[64];
    if (init_signal == SIGHUP)
        fail("an app restarted it");
    if (init_signal == SIGINT)
        fail("an app switched it off");
    snprintf(text, sizeof text, "the pod's init was killed by signal %d", init_signal);
    end(init_status, init_signal ? text : "");
}

_Noreturn void run_guest(void)
{
    uint32_t version = MUX_VERSION;
    unsigned rounds = 0;
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    if (access("/modules/order", R_OK) < 0) {
        /* Somebody wants to know whether machines start here. */
        dprintf(STDERR_FILENO, "tspod: this machine works\n");
        switch_off();
    }
    set_up_machine();
    signals = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
    mux_start(open_port(), handle_frame);
    has_port = true;
    bring_up("lo");
    mux_send(FRAME_HELLO, 0, &version, sizeof version);
    for (;;) {
        pump(init_ended || commands_wait() ? 50 : -1);
        /* Who is attached gets what was for him, unless he reads too slowly. */
        if (init_ended && output_has_ended() && (mux_is_read() || rounds++ > LAST_MS / 100)) {
            flush_files();
            tell_end();
        }
        if (mux_has_ended())
            switch_off();
    }
}
