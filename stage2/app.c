/*
 * Starts an app: the steps between a prepared root and the app's own first instruction, in the one order
 * in which each is still possible and none can be abused. The process can't be traced from inside the
 * root until exec (CVE-2016-9962), and by then holds no descriptor but the app's (CVE-2024-21626).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <termios.h>
#include <unistd.h>

#include "app.h"
#include "common/die.h"

#define PROC_MAGIC 0x9fa0

/* By a descriptor that is checked to be procfs: what lies at /proc may be something else. */
static void set_oom_score(const char *value)
{
    struct statfs fs;
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || fstatfs(fd, &fs) < 0)
        die_errno("can't set oom_score_adj");
    if (fs.f_type != PROC_MAGIC)
        die("can't set oom_score_adj: /proc is no procfs");
    if (write(fd, value, strlen(value)) < 0)
        die_errno("can't set oom_score_adj to %s", value);
    close(fd);
}

static void enter_root(const char *root)
{
    int fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fchdir(fd) < 0)
        die_errno("can't enter the root \"%s\"", root);
    if (chroot(".") < 0 || chdir("/") < 0)
        die_errno("can't change the root to \"%s\"", root);
    close(fd);
}

static void set_limits(const struct app *app)
{
    for (size_t i = 0; i < app->limit_count; i++) {
        const struct limit *limit = &app->limits[i];
        struct rlimit values;
        if (getrlimit((__rlimit_resource_t)limit->resource, &values) < 0)
            die_errno("can't read the limit %s", limit->name);
        if (!limit->keep_hard)
            values.rlim_max = limit->hard;
        if (!limit->keep_soft)
            values.rlim_cur = limit->soft;
        if (values.rlim_cur > values.rlim_max) {
            if (!limit->keep_soft)
                die("can't set the limit %s: the soft bound is above the hard one", limit->name);
            values.rlim_cur = values.rlim_max; /* a kept soft bound follows a lowered hard one */
        }
        if (setrlimit((__rlimit_resource_t)limit->resource, &values) < 0)
            die_errno("can't set the limit %s", limit->name);
    }
}

static void take_identity(const struct identity *identity)
{
    if (setgroups(identity->group_count, identity->groups) < 0)
        die_errno("can't set the supplementary groups");
    if (setresgid(identity->gid, identity->gid, identity->gid) < 0)
        die_errno("can't become group %u", identity->gid);
    if (setresuid(identity->uid, identity->uid, identity->uid) < 0)
        die_errno("can't become user %u", identity->uid);
    uid_t uids[3];
    gid_t gids[3];
    if (getresuid(&uids[0], &uids[1], &uids[2]) < 0 || getresgid(&gids[0], &gids[1], &gids[2]) < 0)
        die_errno("can't read the own user");
    for (int i = 0; i < 3; i++)
        if (uids[i] != identity->uid || gids[i] != identity->gid)
            die("can't become user %u: the kernel did not change every id", identity->uid);
}

static bool enter_workdir(const char *path)
{
    if (chdir(path) < 0)
        return false;
    /* "/proc/self/fd/N" and the like: the kernel marks a folder outside the root by its name. */
    char cwd[8192];
    long length = syscall(SYS_getcwd, cwd, sizeof cwd);
    if (length < 0)
        die_errno("can't change to the working directory \"%s\"", path);
    if (cwd[0] != '/')
        die("can't change to the working directory \"%s\": it is outside the app's root", path);
    return true;
}

static void fill_env_from_user(struct app *app, const struct identity *identity)
{
    if (!identity->has_entry)
        return;
    set_env(app, "HOME", *identity->home ? identity->home : "/", false);
    set_env(app, "USER", identity->name, false);
    set_env(app, "LOGNAME", identity->name, false);
    set_env(app, "SHELL", *identity->shell ? identity->shell : "/bin/sh", false);
}

static const char *choose_program(const struct app *app, char **argv)
{
    if (!app->any_of)
        return find_program(app, argv[0], false);
    for (uint32_t i = 1; i < app->command->count; i++) {
        const char *program = find_program(app, word_text(app->command, i), true);
        if (!program)
            continue;
        if (i > 1)
            say("the image has no \"%s\", using \"%s\"", word_text(app->command, 1), program);
        argv[0] = (char *)word_text(app->command, i);
        argv[1] = NULL;
        return program;
    }
    die("exec \"%s\": no such file in the image, nor any other shell", word_text(app->command, 1));
}

static void load_seccomp(const struct sock_fprog *program)
{
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, program) < 0)
        die_errno("can't load the seccomp filter");
}

/*
 * The terminal that was made for this session; another one, which the caller of a pod has, is left as it is.
 * Its user opens it by name, as mesg(1) and screen(1) do.
 */
static void take_terminal(uid_t uid)
{
    for (int fd = 0; fd < 3; fd++)
        if (isatty(fd) && tcgetsid(fd) == getsid(0)) {
            if (fchown(fd, uid, (gid_t)-1) < 0)
                die_errno("can't give the terminal to the user");
            return;
        }
}

_Noreturn void start_app(struct app *app, int status_fd)
{
    /* Before the root and the user change, while /proc is the host's. */
    if (app->oom_score_adj)
        set_oom_score(app->oom_score_adj);

    /* From here on every path is the image's. */
    enter_root(app->root);
    struct identity identity;
    find_identity(app, &identity);
    if (app->env_from_user)
        fill_env_from_user(app, &identity);
    if (app->own_terminal)
        take_terminal(identity.uid);

    /* Raising a hard limit takes CAP_SYS_RESOURCE. */
    set_limits(app);
    if (app->has_umask)
        umask(app->umask);

    struct capability_sets sets = app->capabilities;
    if (!sets.given)
        sets.bounding = sets.effective = all_capabilities();
    /* Takes CAP_SETPCAP, so before the user changes. */
    drop_bounding(&sets);

    /* A folder only root may enter is a legal working directory; one on NFS may let in only the user. */
    const char *workdir = app->workdir ? app->workdir : "/";
    bool there = enter_workdir(workdir);
    if (!there && errno != EACCES)
        die_errno("can't change to the working directory \"%s\"", workdir);

    /* The death signal is lost with a change of credentials; its sender may be gone by then, too. */
    int death_signal = 0;
    pid_t parent = getppid();
    prctl(PR_GET_PDEATHSIG, &death_signal, 0, 0, 0);

    /* Keeps the permitted set over setresuid, for ambient capabilities. */
    if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
        die_errno("can't keep capabilities over the change of user");
    take_identity(&identity);
    /*
     * setresuid made the process dumpable or not by the system's setting. Its capabilities, which the app has
     * not, still keep the app's own processes off; they are given up only after this (CVE-2016-9962).
     */
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        die_errno("can't hide from tracers");
    bool admin_for_filter = app->seccomp.len > 0 && !app->no_new_privs;
    set_capabilities(&sets, admin_for_filter);

    if (death_signal && (prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0) < 0 || getppid() != parent))
        die("can't start: the process that started it is gone");
    if (!there && !enter_workdir(workdir))
        die_errno("can't change to the working directory \"%s\"", workdir);
    if (app->no_new_privs && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        die_errno("can't set no_new_privs");

    /* Looked up as the app's user, and complained about before a filter may forbid it. */
    char **argv = calloc(app->command->count, sizeof *argv);
    if (!argv)
        die("can't start: no memory");
    for (uint32_t i = 1; i < app->command->count; i++)
        argv[i - 1] = (char *)word_text(app->command, i);
    const char *program = choose_program(app, argv);

    /* Tells the launcher's supervisor that what happens from here on is the app's own. */
    if (status_fd >= 0 && write(status_fd, "R", 1) != 1)
        die_errno("can't report to the supervisor");

    if (app->seccomp.len > 0)
        load_seccomp(&app->seccomp);
    execve(program, argv, app->env);
    die_of_exec(program, errno);
}
