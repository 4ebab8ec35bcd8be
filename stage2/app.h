/*
 * What an app plan says (docs/launch-plan.md, "stage2 as app starter"), and the parts that carry it out.
 * The order of execution is app.c's, not the plan's.
 */
#pragma once
#include <linux/filter.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "common/plan.h"

#define MAX_GROUPS 65536 /* NGROUPS_MAX */
#define MAX_RLIMITS 16

struct limit {
    int resource;
    const char *name;
    bool keep_soft, keep_hard;
    uint64_t soft, hard;
};

struct capability_sets {
    bool given;
    uint64_t bounding, effective, inheritable, ambient;
};

struct app {
    const char *root;
    const char *user, *group; /* NULL: 0, the user's primary group */
    gid_t *groups;
    size_t group_count;
    bool image_groups;
    char **env; /* NULL-terminated */
    size_t env_count;
    bool env_from_user;
    struct capability_sets capabilities;
    bool no_new_privs;
    struct sock_fprog seccomp; /* len 0: none */
    struct limit limits[MAX_RLIMITS];
    size_t limit_count;
    const char *oom_score_adj;
    bool has_umask;
    mode_t umask;
    bool own_terminal;
    const char *workdir;
    const struct step *command; /* exec or exec-any */
    bool any_of;
};

/* Who the app runs as, from the image's own files. */
struct identity {
    uid_t uid;
    gid_t gid;
    gid_t *groups;
    size_t group_count;
    bool has_entry; /* the texts below are set; from /etc/passwd */
    char name[256], home[4096], shell[4096];
};

/* Takes a plan into `app`; false with plan->error. */
bool read_app_plan(struct plan *plan, struct app *app);

/* Called inside the root. Dies on anything ambiguous. */
void find_identity(const struct app *app, struct identity *identity);

/* Before the user changes: bounding set; after it: the others. */
void drop_bounding(const struct capability_sets *sets);
void set_capabilities(const struct capability_sets *sets, bool keep_admin_until_exec);
uint64_t all_capabilities(void);

void set_env(struct app *app, const char *name, const char *value, bool replace);
const char *get_env(const struct app *app, const char *name);

/* The file to execute for `name`, by the app's PATH; dies with the reason in words. */
const char *find_program(const struct app *app, const char *name, bool may_be_missing);
_Noreturn void die_of_exec(const char *program, int reason);

_Noreturn void start_app(struct app *app, int status_fd);
