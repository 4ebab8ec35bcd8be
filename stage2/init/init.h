/*
 * stage2 as a pod's init (docs/stage2-init.md). One thread, one epoll loop: main.c has the loop and the signals,
 * plan.c reads what is to be done, apps.c is the life of the apps, streams.c their standard streams, status.c
 * the files that tell others, control.c the socket by which they ask. After the plan is read nothing in here
 * ends the process but the pod's end: what goes wrong for one app is told and counts as that app's failure.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/plan.h"

#define MOST_SOCKETS 1024

enum exit_policy { EXIT_FIRST_FAILURE, EXIT_ALL, EXIT_ANY, EXIT_NEVER };
enum restart { RESTART_NEVER, RESTART_ON_FAILURE, RESTART_ALWAYS };
enum mode { MODE_NULL, MODE_INHERIT, MODE_LOG, MODE_STREAM, MODE_TTY };

enum state {
    STATE_CREATED,  /* never started, or `manual` */
    STATE_RUNNING,  /* with its pre-start and post-stop */
    STATE_STOPPING, /* got its stop signal */
    STATE_WAITING,  /* for its restart */
    STATE_EXITED,
};

/* Which of an app's programs runs. */
enum phase { PHASE_NONE, PHASE_PRE_START, PHASE_APP, PHASE_POST_STOP };

/* In the order in which they matter. */
enum probe_kind { PROBE_STARTUP, PROBE_LIVENESS, PROBE_READINESS, PROBES };
enum probe_how { PROBE_EXEC, PROBE_TCP, PROBE_HTTP };

struct limit {
    const char *file, *value;
};

struct app {
    struct app *next;
    const char *name;
    const char *launch, *pre_start, *post_stop;
    bool first, manual;
    bool sockets; /* gets the descriptors that systemd handed to the pod */
    enum restart restart;
    int stop_signal;
    int64_t stop_timeout; /* ms */
    enum mode modes[3];
    const char *log_file; /* NULL: none */
    uint64_t log_bytes;
    unsigned log_kept;
    bool log_journal;
    char *journal_fields; /* of each of its lines, as the journal takes them */
    size_t journal_length;
    struct probe *probes[PROBES]; /* NULL: none */
    struct limit *limits;
    size_t limit_count;

    enum state state;
    enum phase phase;
    pid_t pid;
    int start_pipe;   /* says whether the program was executed; -1: none */
    int status;       /* of its last end: exit code, 128+n, 254; -1: none yet */
    bool asked;       /* it was stopped by request: not a failure */
    unsigned restarts;
    int64_t started;  /* ms, monotonic */
    int64_t delay;    /* ms, of the next restart */
    int64_t deadline; /* ms: SIGKILL, or restart; 0: none */
    uint64_t kills;   /* for want of memory, before its last start */
    int cgroup;       /* descriptor of its cgroup folder; -1: none */
    struct streams *streams;
};

struct pod {
    const char *uuid;
    enum exit_policy policy;
    int64_t stop_timeout;
    const char *hostname;
    bool loopback;
    const char *cgroups;
    unsigned listen; /* descriptors from 3 on, for socket activation */
    struct app *apps; /* in the plan's order */

    bool ending;
    int status; /* -1: not decided */
    bool ready;
    bool hurry; /* its end waits for nobody */
};
extern struct pod pod;

int64_t now_ms(void);

/* plan.c */
void read_init_plan(const char *path);
/* One app from a plan of its own, appended to the pod's; NULL with *error set. */
struct app *read_added_app(const char *path, const char *name, char error[256]);
/* Takes an app that does not run out of the pod's list; nothing may know it any more. */
void forget_app(struct app *app);
/* Between two rounds of events: the last round may have known them. */
void free_forgotten(void);

/* apps.c */
struct app *find_app(const char *name);
/* Starts what may be started now. */
void advance(void);
bool start_app_by_request(struct app *app, char error[256]);
void stop_app(struct app *app, int64_t timeout, bool by_request);
void signal_app(struct app *app, int number);
/* A process has ended; true when it was one of ours. */
bool app_process_ended(pid_t pid, int wait_status);
/* status -1: the pod ends with what its apps say. */
void end_pod(int status, int64_t timeout);
bool pod_has_ended(void);
/* Once every app that is started with the pod runs and is ready. */
void tell_when_ready(void);
/* ms until something is due; -1: nothing is. */
int64_t next_deadline(void);
void meet_deadlines(void);
const char *state_name(enum state state);
int pod_status(void);

/* probes.c */
struct watch {
    void (*ready)(struct watch *watch, uint32_t events);
    int fd;
};
struct probe_plan {
    enum probe_how how;
    const char *path; /* of a launch plan, or in a URL; from malloc, NULL: none */
    unsigned port;
    int64_t delay, period, timeout; /* ms */
    unsigned failures, successes;
    struct watch watch; /* fd -1 */
};
struct probe *make_probe(struct app *app, enum probe_kind kind, const struct probe_plan *plan);
void free_probe(struct probe *probe);
/* The app's own program runs, or does no more. */
void probes_started(struct app *app);
void probes_ended(struct app *app);
bool app_is_ready(const struct app *app);
/* True when it was one of ours. */
bool probe_process_ended(pid_t pid, bool good);
/* ms, monotonic; 0: nothing is due. */
int64_t next_probe(void);
void run_probes(void);

/* cgroups.c */
void prepare_cgroups(void);
int make_app_cgroup(const struct app *app);
void remove_app_cgroup(struct app *app);
void kill_app_cgroup(const struct app *app);
/* How many of the processes that ever were in the app's cgroup the kernel killed for want of memory. */
uint64_t kills_for_memory(const struct app *app);

/* status.c; failures are told, never fatal */
void write_status(const char *app, const char *suffix, const char *text);
void remove_status(const char *app, const char *suffix);
void write_ready(void);
/* For the pod's parent: "init-began", "init-ended". */
void tell_parent(const char *what);
/* Whether nobody listens at NOTIFY_SOCKET any more: systemd-nspawn does as long as it lives. */
bool parent_is_gone(void);

/* streams.c */
/* Before the fork; app->phase says for what. False with *error set. */
bool open_streams(struct app *app, char error[256]);
/* In the child, which has a session of its own: 0-2 become the app's. */
void take_streams(struct app *app);
/* After the fork, in init. */
void streams_started(struct app *app);
/* The app's process has ended: what it has written is read, and goes where it belongs as soon as that takes it. */
void finish_streams(struct app *app);
/* Everything of it is closed, what is still to be written is not. */
void free_streams(struct app *app);
/* Nothing waits to be written any more; by force: nothing waits any longer. */
bool streams_are_written(bool by_force);
void flush_streams(void);
bool resize_terminal(struct app *app, unsigned rows, unsigned columns, char error[256]);

/* journal.c */
/* The app's lines go to the journal. False: no memory, or too much. */
bool start_journal(struct app *app);
/* False too when `name` is no field's name that may be given. */
bool add_journal_field(struct app *app, const char *name, const char *value);
/* One line, without its end; not `whole`: a part of one. */
void write_journal(const struct app *app, const char *stream, const char *text, size_t length, bool whole);
/* Whether what is written to `fd` becomes lines of the journal anyway. */
bool leads_to_journal(int fd);

/* control.c */
void open_control(void);
void app_has_stopped(struct app *app);
void close_control(void);

/* main.c: who is told when a descriptor can be read or written */
void watch_add(struct watch *watch, uint32_t events);
void watch_change(struct watch *watch, uint32_t events);
void watch_remove(struct watch *watch);
/* In a child that is about to become something else. */
void reset_signals(void);
