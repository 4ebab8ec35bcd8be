/*
 * The life of the apps. Every way in which one can end comes together in app_ended(), which alone decides
 * about restarts and about the pod.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/close-fds.h"
#include "common/die.h"
#include "init.h"

#define LAUNCH "/launch"
#define FIRST_DELAY_MS 100
#define LONGEST_DELAY_MS 30000
#define STEADY_MS 10000

struct pod pod;

const char *state_name(enum state state)
{
    static const char *const names[] = { "created", "running", "stopping", "waiting", "exited" };
    return names[state];
}

struct app *find_app(const char *name)
{
    for (struct app *app = pod.apps; app; app = app->next)
        if (strcmp(app->name, name) == 0)
            return app;
    return NULL;
}

static bool is_over(const struct app *app)
{
    return app->state == STATE_EXITED || app->state == STATE_CREATED;
}

static void app_ended(struct app *app, int status);

/* The child: from here on nothing returns. */
static _Noreturn void become(struct app *app, const char *plan, int cgroup_procs, int start_pipe)
{
    reset_signals();
    setsid();
    take_streams(app);
    if (cgroup_procs >= 0 && write(cgroup_procs, "0", 1) != 1)
        die_errno("can't start app \"%s\": can't join its cgroup", app->name);
    int fd = open(plan, O_RDONLY | O_NOFOLLOW);
    if (fd < 0)
        die_errno("can't start app \"%s\": can't read %s", app->name, plan);
    int kept[2 + MOST_SOCKETS] = { fd, start_pipe };
    size_t count = 2;
    if (app->sockets && pod.listen > 0) {
        char own[16];
        snprintf(own, sizeof own, "%d", (int)getpid());
        setenv("LISTEN_PID", own, 1);
        for (unsigned i = 0; i < pod.listen; i++)
            kept[count++] = 3 + (int)i;
    }
    if (keep_fds_at_exec(kept, count) >= 0)
        die_errno("can't start app \"%s\": can't arrange its descriptors", app->name);
    char number[16], status[16];
    snprintf(number, sizeof number, "%d", fd);
    snprintf(status, sizeof status, "%d", start_pipe);
    char *argv[] = { (char *)"launch", (char *)"--plan-fd", number, (char *)"--status-fd", status, NULL };
    execv(LAUNCH, argv);
    die_errno("can't start app \"%s\": can't execute " LAUNCH, app->name);
}

/* False: it could not be started, and that was told. */
static bool run_phase(struct app *app, enum phase phase, const char *plan)
{
    char error[256];
    app->phase = phase;
    if (!open_streams(app, error)) {
        say("can't start app \"%s\": %s", app->name, error);
        return false;
    }
    int procs = app->cgroup < 0 ? -1 : openat(app->cgroup, "cgroup.procs", O_WRONLY | O_CLOEXEC);
    if (app->cgroup >= 0 && procs < 0) {
        say("can't start app \"%s\": can't open its cgroup: %s", app->name, strerror(errno));
        finish_streams(app);
        return false;
    }
    int ends[2] = { -1, -1 };
    pid_t pid = pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0 ? -1 : fork();
    if (pid == 0)
        become(app, plan, procs, ends[1]);
    if (procs >= 0)
        close(procs);
    if (ends[1] >= 0)
        close(ends[1]);
    if (pid < 0 && ends[0] >= 0)
        close(ends[0]);
    if (pid < 0) {
        say("can't start app \"%s\": %s", app->name, strerror(errno));
        finish_streams(app);
        return false;
    }
    streams_started(app);
    app->start_pipe = ends[0];
    app->pid = pid;
    if (phase == PHASE_APP) {
        char text[16];
        snprintf(text, sizeof text, "%d", (int)pid);
        write_status(app->name, "-pid", text);
        probes_started(app);
    }
    return true;
}

static void start_app(struct app *app)
{
    if (app->cgroup < 0 && pod.cgroups) {
        app->cgroup = make_app_cgroup(app);
        if (app->cgroup < 0) {
            app_ended(app, EXIT_FAILED);
            return;
        }
    }
    app->asked = false;
    app->deadline = 0;
    app->started = now_ms();
    app->kills = kills_for_memory(app);
    app->state = STATE_RUNNING;
    /* What it ended with before would be taken for its end now. */
    remove_status(app->name, "");
    remove_status(app->name, "-failed");
    remove_status(app->name, "-oom");
    write_status(app->name, "-started", "");
    bool started = app->pre_start ? run_phase(app, PHASE_PRE_START, app->pre_start)
                                  : run_phase(app, PHASE_APP, app->launch);
    if (!started)
        app_ended(app, EXIT_FAILED);
}

static bool has_probes(const struct app *app)
{
    return app->probes[PROBE_STARTUP] || app->probes[PROBE_READINESS];
}

void tell_when_ready(void)
{
    if (pod.ready)
        return;
    for (struct app *app = pod.apps; app; app = app->next)
        if (!app->manual &&
            (app->state == STATE_CREATED || (app->first && app->state != STATE_EXITED) ||
             (has_probes(app) && app->state != STATE_EXITED && !app_is_ready(app))))
            return;
    pod.ready = true;
    write_ready();
}

void advance(void)
{
    for (struct app *app = pod.apps; app && !pod.ending; app = app->next) {
        if (app->manual)
            continue;
        if (app->state == STATE_CREATED)
            start_app(app);
        if (app->first && app->state != STATE_EXITED)
            return;
    }
    if (!pod.ending)
        tell_when_ready();
}

bool start_app_by_request(struct app *app, char error[256])
{
    if (pod.ending) {
        snprintf(error, 256, "the pod is ending");
        return false;
    }
    if (app->state == STATE_RUNNING || app->state == STATE_STOPPING) {
        snprintf(error, 256, "it is %s", state_name(app->state));
        return false;
    }
    app->delay = 0;
    start_app(app);
    tell_when_ready();
    if (app->state == STATE_RUNNING)
        return true;
    snprintf(error, 256, "it could not be started");
    return false;
}

/* The app's own process group is not all: with a cgroup everything in it gets the SIGKILL. */
void signal_app(struct app *app, int number)
{
    if (app->pid <= 0)
        return;
    if (number == SIGKILL) {
        kill_app_cgroup(app);
        kill(-app->pid, SIGKILL);
    }
    kill(app->pid, number);
}

void stop_app(struct app *app, int64_t timeout, bool by_request)
{
    app->asked = app->asked || by_request;
    if (app->state == STATE_WAITING) {
        app->state = STATE_EXITED;
        app->deadline = 0;
        app_has_stopped(app);
    } else if (app->state == STATE_RUNNING) {
        app->state = STATE_STOPPING;
        app->deadline = now_ms() + (timeout < 0 ? app->stop_timeout : timeout);
        signal_app(app, timeout == 0 ? SIGKILL : app->stop_signal);
    } else if (app->state == STATE_STOPPING && timeout >= 0) {
        app->deadline = now_ms() + timeout;
    }
}

static bool all_over(void)
{
    for (struct app *app = pod.apps; app; app = app->next)
        if (!is_over(app))
            return false;
    return true;
}

static int first_failure(void)
{
    for (struct app *app = pod.apps; app; app = app->next)
        if (!app->asked && app->status > 0)
            return app->status;
    return 0;
}

static void apply_policy(struct app *app, int status)
{
    bool failed = status != 0 && !app->asked;
    if (app->first) {
        if (failed)
            end_pod(status, -1);
        return;
    }
    switch (pod.policy) {
    case EXIT_NEVER:
        return;
    case EXIT_ANY:
        if (!app->asked)
            end_pod(status, -1);
        break;
    case EXIT_FIRST_FAILURE:
        if (failed)
            end_pod(status, -1);
        break;
    case EXIT_ALL:
        break;
    }
    if (!pod.ending && all_over())
        end_pod(first_failure(), -1);
}

static bool wants_restart(const struct app *app, int status)
{
    if (pod.ending || app->asked)
        return false;
    return app->restart == RESTART_ALWAYS ? !app->first || status != 0
                                          : app->restart == RESTART_ON_FAILURE && status != 0;
}

static void app_ended(struct app *app, int status)
{
    char text[16];
    snprintf(text, sizeof text, "%d", status);
    app->pid = 0;
    app->phase = PHASE_NONE;
    app->status = status;
    app->deadline = 0;
    if (kills_for_memory(app) > app->kills) {
        say("app \"%s\": it ran out of memory, the kernel killed a process of it", app->name);
        write_status(app->name, "-oom", "");
    }
    write_status(app->name, "", text);
    if (wants_restart(app, status)) {
        bool steady = now_ms() - app->started >= STEADY_MS;
        app->delay = steady || app->delay == 0 ? FIRST_DELAY_MS : app->delay * 2;
        if (app->delay > LONGEST_DELAY_MS)
            app->delay = LONGEST_DELAY_MS;
        app->restarts++;
        app->state = STATE_WAITING;
        app->deadline = now_ms() + app->delay;
        return;
    }
    app->state = STATE_EXITED;
    /* What it left behind must not outlive it where that can be told apart. */
    kill_app_cgroup(app);
    app_has_stopped(app);
    if (pod.ending)
        return;
    apply_policy(app, status);
    if (app->first && !pod.ending)
        advance();
}

/* What the launcher and stage2 said: 'R' last of all when the app's own program was executed. */
static bool was_executed(struct app *app)
{
    char bytes[8];
    ssize_t length = app->start_pipe < 0 ? 0 : read(app->start_pipe, bytes, sizeof bytes);
    if (app->start_pipe >= 0)
        close(app->start_pipe);
    app->start_pipe = -1;
    return length > 0 && bytes[length - 1] == 'R';
}

bool app_process_ended(pid_t pid, int wait_status)
{
    for (struct app *app = pod.apps; app; app = app->next) {
        if (app->pid != pid)
            continue;
        int status = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 128 + WTERMSIG(wait_status);
        finish_streams(app);
        probes_ended(app);
        enum phase phase = app->phase;
        bool executed = was_executed(app);
        if (phase == PHASE_APP && !executed)
            write_status(app->name, "-failed", "");
        if (phase == PHASE_PRE_START && status == 0 && app->state == STATE_RUNNING) {
            if (!run_phase(app, PHASE_APP, app->launch))
                app_ended(app, EXIT_FAILED);
            return true;
        }
        if (phase == PHASE_POST_STOP) {
            if (status != 0)
                say("app \"%s\": its post-stop ended with %d", app->name, status);
            app_ended(app, app->status);
            return true;
        }
        if (phase == PHASE_PRE_START)
            say("app \"%s\": its pre-start ended with %d", app->name, status);
        app->status = status;
        if (!app->post_stop || !run_phase(app, PHASE_POST_STOP, app->post_stop))
            app_ended(app, status);
        return true;
    }
    return probe_process_ended(pid, WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0);
}

void end_pod(int status, int64_t timeout)
{
    if (pod.status < 0 && status >= 0)
        pod.status = status;
    pod.hurry = pod.hurry || timeout == 0;
    if (pod.ending && timeout < 0)
        return;
    pod.ending = true;
    /* The reverse of the start order. */
    struct app *order[256];
    size_t count = 0;
    for (struct app *app = pod.apps; app && count < 256; app = app->next)
        order[count++] = app;
    while (count > 0)
        stop_app(order[--count], timeout, false);
}

/* Stopped from outside: what the apps ended with, the first that failed before the others. */
int pod_status(void)
{
    if (pod.status >= 0)
        return pod.status;
    for (struct app *app = pod.apps; app; app = app->next)
        if (app->status > 0)
            return app->status;
    return 0;
}

bool pod_has_ended(void)
{
    return pod.ending && all_over();
}

int64_t next_deadline(void)
{
    int64_t first = -1;
    for (struct app *app = pod.apps; app; app = app->next)
        if (app->deadline && (first < 0 || app->deadline < first))
            first = app->deadline;
    int64_t probe = next_probe();
    if (probe && (first < 0 || probe < first))
        first = probe;
    if (first < 0)
        return -1;
    int64_t left = first - now_ms();
    return left < 0 ? 0 : left;
}

void meet_deadlines(void)
{
    run_probes();
    int64_t now = now_ms();
    for (struct app *app = pod.apps; app; app = app->next) {
        if (!app->deadline || app->deadline > now)
            continue;
        app->deadline = 0;
        if (app->state == STATE_WAITING)
            start_app(app);
        else if (app->state == STATE_STOPPING)
            signal_app(app, SIGKILL);
    }
}
