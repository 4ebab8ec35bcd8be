/*
 * The launcher: executes a launch plan (docs/launch-plan.md) and becomes the app. main.c makes the pod its
 * own and walks the plan; the other files are the verbs, by what they touch. Nothing is undone by hand on
 * failure: mounts live in a namespace that ends with the process, the lock is the kernel's.
 */
#pragma once
#include <stdbool.h>
#include <sys/types.h>

#include "common/plan.h"

extern const struct verb VERBS[];

/* What the process that is to become the app still holds, besides 0-2. */
struct held {
    int lock;          /* the pod's lock file; -1: none */
    unsigned listen;   /* descriptors of socket activation, from 3 on */
    bool watchdog;     /* WATCHDOG_PID named this process */
    int status;        /* to the supervisor; -1: none */
    bool apart;        /* what is started gets a session of its own */
    int relay;         /* to the process that has the caller's terminal; -1: none */
    int app_plan;      /* opened before anything was done; -1: the plan ends in exec */
    int stage2;        /* sealed copy; -1 likewise */
    char folder[4096]; /* where relative paths start */
    const char *init;  /* where a pod's init tells that it began and that it ended; NULL: there is none */
    bool inside;       /* in a pod's mount namespace, joined */
};
extern struct held held;

/* pod.c */
void take_pod(const char *folder);
void take_socket_activation(void);

/* mounts.c; a root is a path relative to the pod's folder, a target a path inside it from outside */
void run_hold(const struct step *step);
void run_attach(const struct step *step);
void run_bind(const struct step *step);
void run_overlay(const struct step *step);
void run_bind_root(const struct step *step);
void run_pivot(const struct step *step);
void run_tmpfs(const struct step *step);
void run_mask(const struct step *step);
void run_readonly(const struct step *step);
void run_writable(const struct step *step);
void run_readonly_root(const struct step *step);
int open_root(const char *root);
bool check_mount_flags(struct plan *plan, const struct step *step, uint32_t first);
bool check_tmpfs_options(struct plan *plan, const char *options);

/* erofs.c */
void run_erofs(const struct step *step);
void run_unmount(const struct step *step);
bool check_erofs(struct plan *plan, const struct step *step);

/* propagation.c */
bool mount_is_shared(int fd);
void run_propagation(const struct step *step);
bool parse_propagation(const char *mode, unsigned long *flags);

/* files.c */
void run_require_folder(const struct step *step);
void run_folder(const struct step *step);
void run_file(const struct step *step);
void run_symlink(const struct step *step);
void run_init_folder(const struct step *step);
void run_pid_file(const struct step *step);

/* namespaces.c */
bool parse_namespace(const char *name, int *flag);
void run_unshare(const struct step *step);
void run_hostname(const struct step *step);
void run_join_namespaces(const struct step *step);

/* cgroups.c */
void run_cgroup(const struct step *step);
void run_cgroup_controllers(const struct step *step);
void run_join_cgroups(const struct step *step);

/* supervise.c: returns in the child */
void run_supervise(const struct step *step);
/* Ends this process as a child of it ended: with the same status, or by the same signal. */
_Noreturn void end_like_child(int wait_status);

/* terminal.c: returns in the child, too */
void run_terminal(const struct step *step);
/* In the child of `supervise`: its own session, and with the caller's terminal one of the pod's. */
void take_terminal(void);

/* start.c */
void run_environment(const struct step *step);
void prepare_start(const char *app_plan);
void run_start(const struct step *step);
void run_exec(const struct step *step);
void run_done(const struct step *step);
