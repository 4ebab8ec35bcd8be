/* PID 1 of a pod: signals, waiting, the loop. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/die.h"
#include "common/numbers.h"
#include "init.h"
#include "run-init.h"

#define EVENTS 64

static int loop = -1;
static sigset_t before;
static bool stop_asked;

int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void control_loop(int operation, struct watch *watch, uint32_t events)
{
    struct epoll_event event = { .events = events, .data.ptr = watch };
    if (epoll_ctl(loop, operation, watch->fd, &event) < 0)
        say("can't watch a descriptor: %s", strerror(errno));
}

void watch_add(struct watch *watch, uint32_t events)
{
    control_loop(EPOLL_CTL_ADD, watch, events);
}

void watch_change(struct watch *watch, uint32_t events)
{
    control_loop(EPOLL_CTL_MOD, watch, events);
}

void watch_remove(struct watch *watch)
{
    control_loop(EPOLL_CTL_DEL, watch, 0);
}

void reset_signals(void)
{
    sigprocmask(SIG_SETMASK, &before, NULL);
}

static void reap(void)
{
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        app_process_ended(pid, status);
}

/* The only app of the pod gets what is meant for it. */
static void pass_on(int number)
{
    struct app *only = NULL;
    for (struct app *app = pod.apps; app; app = app->next) {
        if (only)
            return;
        only = app;
    }
    if (only)
        signal_app(only, number);
}

static void take_signal(int number)
{
    if (number == SIGCHLD)
        return; /* reaped after every round */
    if (number == SIGTERM || number == SIGINT || number == SIGRTMIN + 3 ||
        number == SIGRTMIN + 4 /* machinectl poweroff */ || number == SIGPWR) {
        pod.hurry = pod.hurry || pod_has_ended();
        end_pod(-1, stop_asked ? 0 : -1);
        stop_asked = true;
    } else if (number == SIGQUIT)
        end_pod(-1, 0);
    else if (number == SIGHUP || number == SIGUSR1 || number == SIGUSR2 || number == SIGWINCH)
        pass_on(number);
}

static void signals_ready(struct watch *watch, uint32_t events)
{
    struct signalfd_siginfo info;
    (void)events;
    while (read(watch->fd, &info, sizeof info) == (ssize_t)sizeof info)
        take_signal((int)info.ssi_signo);
}

static struct watch signals = { .ready = signals_ready };

static void bring_up_loopback(void)
{
    struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) < 0)
        die_errno("can't bring up the loopback interface");
    close(fd);
}

/* sd_listen_fds(3): systemd-nspawn handed them on. Nothing else has been opened yet. */
static void take_sockets(void)
{
    const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
    uint64_t number;
    if (!pid || !count || atoi(pid) != (int)getpid() || !parse_number(count, 10, MOST_SOCKETS, &number))
        return;
    for (uint64_t i = 0; i < number; i++)
        if (fcntl(3 + (int)i, F_SETFD, FD_CLOEXEC) < 0)
            die_errno("can't pass sockets on: descriptor %d is not open", 3 + (int)i);
    pod.listen = (unsigned)number;
}

static void set_up(void)
{
    sigset_t all;
    sigfillset(&all);
    if (sigprocmask(SIG_BLOCK, &all, &before) < 0)
        die_errno("can't block signals");
    sigemptyset(&before);
    loop = epoll_create1(EPOLL_CLOEXEC);
    signals.fd = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
    if (loop < 0 || signals.fd < 0)
        die_errno("can't wait for signals");
    watch_add(&signals, EPOLLIN);
    /* systemd-nspawn killed must not leave the pod behind. Its helper that forked us has ended by now. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
        die_errno("can't end with the pod's parent");
    /* What died before that sent no signal, and from in here its number can't be seen: its socket tells. */
    if (parent_is_gone())
        _exit(128 + SIGKILL);
    if (getpid() != 1 && prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
        die_errno("can't adopt orphans");
    if (pod.hostname && sethostname(pod.hostname, strlen(pod.hostname)) < 0)
        die_errno("can't set the hostname");
    if (pod.loopback)
        bring_up_loopback();
    prepare_cgroups();
    open_control();
}

static _Noreturn void leave(void)
{
    flush_streams();
    close_control();
    for (struct app *app = pod.apps; app; app = app->next)
        remove_app_cgroup(app);
    tell_parent("init-ended");
    _exit(pod_status());
}

_Noreturn void run_init(const char *plan)
{
    struct epoll_event events[EVENTS];
    take_sockets();
    tell_parent("init-began");
    read_init_plan(plan);
    set_up();
    for (struct app *app = pod.apps; app; app = app->next)
        write_status(app->name, "-created", "");
    advance();
    for (;;) {
        free_forgotten();
        reap();
        meet_deadlines();
        if (pod_has_ended() && streams_are_written(pod.hurry))
            leave();
        int64_t wait = next_deadline();
        int count = epoll_wait(loop, events, EVENTS, wait < 0 ? -1 : wait > 60000 ? 60000 : (int)wait);
        for (int i = 0; i < count; i++) {
            struct watch *watch = events[i].data.ptr;
            if (watch->fd >= 0)
                watch->ready(watch, events[i].events);
        }
    }
}
