/*
 * Asking apps how they are. A startup probe comes first, and holds the others back until it has succeeded; readiness
 * is told to others; liveness and startup that fail stop the app, and its restart policy decides what follows. One
 * question at a time per probe, each with a time limit.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/close-fds.h"
#include "common/die.h"
#include "init.h"

#define ANSWER 64 /* more than a status line needs */

struct probe {
    enum probe_kind kind;
    struct app *app;
    struct probe_plan plan;
    int64_t due;      /* ms: when it is asked next; 0: not while it is */
    int64_t deadline; /* ms: when the question has failed; 0: none is open */
    unsigned good, bad;
    bool passed;
    pid_t pid;
    bool asked; /* the request was sent */
    char answer[ANSWER];
    size_t got;
};

static const char *const NAMES[] = { "startup", "liveness", "readiness" };

static void answer(struct probe *probe, bool good);

static struct probe *of(const struct app *app, enum probe_kind kind)
{
    return app->probes[kind];
}

struct probe *make_probe(struct app *app, enum probe_kind kind, const struct probe_plan *plan)
{
    struct probe *probe = calloc(1, sizeof *probe);
    if (!probe)
        return NULL;
    probe->kind = kind;
    probe->app = app;
    probe->plan = *plan;
    return probe;
}

void free_probe(struct probe *probe)
{
    if (!probe)
        return;
    free((char *)probe->plan.path);
    free(probe);
}

/* The open question, if any, is dropped. */
static void drop(struct probe *probe)
{
    if (probe->plan.watch.fd >= 0) {
        watch_remove(&probe->plan.watch);
        close(probe->plan.watch.fd);
        probe->plan.watch.fd = -1;
    }
    if (probe->pid > 0) {
        kill(-probe->pid, SIGKILL);
        kill(probe->pid, SIGKILL);
        probe->pid = 0;
    }
    probe->deadline = 0;
}

void probes_started(struct app *app)
{
    for (int kind = 0; kind < PROBES; kind++) {
        struct probe *probe = app->probes[kind];
        if (!probe)
            continue;
        drop(probe);
        probe->good = probe->bad = 0;
        probe->passed = false;
        probe->due = now_ms() + probe->plan.delay;
    }
}

void probes_ended(struct app *app)
{
    for (int kind = 0; kind < PROBES; kind++)
        if (app->probes[kind]) {
            drop(app->probes[kind]);
            app->probes[kind]->due = 0;
            app->probes[kind]->passed = false;
        }
}

static bool has_started(const struct app *app)
{
    const struct probe *startup = of(app, PROBE_STARTUP);
    return !startup || startup->passed;
}

bool app_is_ready(const struct app *app)
{
    const struct probe *readiness = of(app, PROBE_READINESS);
    return app->state == STATE_RUNNING && app->phase == PHASE_APP && has_started(app) &&
           (!readiness || readiness->passed);
}

static _Noreturn void become(const struct probe *probe)
{
    reset_signals();
    setsid();
    int null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd <= 2; fd++)
        if (null < 0 || dup2(null, fd) < 0)
            _exit(EXIT_FAILED);
    int cgroup = probe->app->cgroup;
    int procs = cgroup < 0 ? -1 : openat(cgroup, "cgroup.procs", O_WRONLY | O_CLOEXEC);
    if (cgroup >= 0 && (procs < 0 || write(procs, "0", 1) != 1))
        _exit(EXIT_FAILED);
    int plan = open(probe->plan.path, O_RDONLY | O_NOFOLLOW);
    if (plan < 0 || keep_fds_at_exec(&plan, 1) >= 0)
        _exit(EXIT_FAILED);
    char number[16];
    snprintf(number, sizeof number, "%d", plan);
    char *argv[] = { (char *)"launch", (char *)"--plan-fd", number, NULL };
    execv("/launch", argv);
    _exit(EXIT_FAILED);
}

static void read_answer(struct probe *probe)
{
    ssize_t length = read(probe->plan.watch.fd, probe->answer + probe->got, ANSWER - 1 - probe->got);
    if (length < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (length > 0)
        probe->got += (size_t)length;
    probe->answer[probe->got] = '\0';
    bool whole = length <= 0 || probe->got == ANSWER - 1 || strchr(probe->answer, '\n');
    int status = 0;
    if (whole)
        answer(probe, sscanf(probe->answer, "HTTP/%*1[12].%*1[01] %3d", &status) == 1 && status >= 200 &&
                          status < 400);
}

static void socket_ready(struct watch *watch, uint32_t events)
{
    struct probe *probe = (struct probe *)((char *)watch - offsetof(struct probe, plan.watch));
    if (probe->asked) {
        read_answer(probe);
        return;
    }
    int error = 0;
    socklen_t size = sizeof error;
    (void)events;
    if (getsockopt(watch->fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0 || error) {
        answer(probe, false);
        return;
    }
    if (probe->plan.how == PROBE_TCP) {
        answer(probe, true);
        return;
    }
    char request[1200];
    int length = snprintf(request, sizeof request,
                          "GET %s HTTP/1.1\r\nHost: localhost:%u\r\nUser-Agent: tspod\r\nConnection: close\r\n\r\n",
                          probe->plan.path, probe->plan.port);
    if (length >= (int)sizeof request || send(watch->fd, request, (size_t)length, MSG_NOSIGNAL) != length) {
        answer(probe, false);
        return;
    }
    probe->asked = true;
    watch_change(watch, EPOLLIN);
}

static void ask(struct probe *probe)
{
    probe->due = 0;
    probe->deadline = now_ms() + probe->plan.timeout;
    probe->asked = false;
    probe->got = 0;
    if (probe->plan.how == PROBE_EXEC) {
        pid_t pid = fork();
        if (pid == 0)
            become(probe);
        probe->pid = pid < 0 ? 0 : pid;
        if (pid < 0)
            answer(probe, false);
        return;
    }
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_port = htons((uint16_t)probe->plan.port),
                                   .sin_addr = { htonl(INADDR_LOOPBACK) } };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        answer(probe, false);
        return;
    }
    probe->plan.watch = (struct watch){ socket_ready, fd };
    watch_add(&probe->plan.watch, EPOLLOUT);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS)
        answer(probe, false);
}

static void answer(struct probe *probe, bool good)
{
    struct app *app = probe->app;
    drop(probe);
    probe->due = now_ms() + probe->plan.period;
    probe->good = good ? probe->good + 1 : 0;
    probe->bad = good ? 0 : probe->bad + 1;
    if (good && probe->good >= probe->plan.successes && !probe->passed) {
        probe->passed = true;
        if (probe->kind == PROBE_STARTUP)
            probe->due = 0;
        tell_when_ready();
    } else if (!good && probe->bad >= probe->plan.failures) {
        probe->passed = false;
        if (probe->kind == PROBE_READINESS)
            return;
        say("app \"%s\": its %s probe failed %u times, it is stopped", app->name, NAMES[probe->kind], probe->bad);
        probe->due = 0;
        stop_app(app, -1, false);
    }
}

bool probe_process_ended(pid_t pid, bool good)
{
    for (struct app *app = pod.apps; app; app = app->next)
        for (int kind = 0; kind < PROBES; kind++)
            if (app->probes[kind] && app->probes[kind]->pid == pid) {
                app->probes[kind]->pid = 0;
                answer(app->probes[kind], good);
                return true;
            }
    return false;
}

/* Whether the others may ask already. */
static bool may_ask(const struct probe *probe)
{
    const struct app *app = probe->app;
    return app->state == STATE_RUNNING && app->phase == PHASE_APP &&
           (probe->kind == PROBE_STARTUP || has_started(app));
}

int64_t next_probe(void)
{
    int64_t first = 0;
    for (struct app *app = pod.apps; app; app = app->next)
        for (int kind = 0; kind < PROBES; kind++) {
            const struct probe *probe = app->probes[kind];
            if (!probe || !may_ask(probe))
                continue;
            int64_t at = probe->deadline ? probe->deadline : probe->due;
            if (at && (!first || at < first))
                first = at;
        }
    return first;
}

void run_probes(void)
{
    int64_t now = now_ms();
    for (struct app *app = pod.apps; app; app = app->next)
        for (int kind = 0; kind < PROBES; kind++) {
            struct probe *probe = app->probes[kind];
            if (!probe || !may_ask(probe))
                continue;
            if (probe->deadline && probe->deadline <= now)
                answer(probe, false);
            else if (!probe->deadline && probe->due && probe->due <= now)
                ask(probe);
        }
}
