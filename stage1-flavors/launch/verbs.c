/* The table of verbs, with the checks of their words. What they mean: docs/launch-plan.md. */
#define _GNU_SOURCE
#include <string.h>

#include "common/numbers.h"
#include "common/process.h"
#include "launch.h"

static bool is_component(const char *name)
{
    return *name && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && strlen(name) < 256;
}

static bool check_mode(struct plan *plan, const char *text)
{
    uint64_t mode;
    return parse_number(text, 8, 07777, &mode) || plan_refuse(plan, "\"%.64s\" is no octal mode", text);
}

static bool check_namespaces(struct plan *plan, const struct step *step, uint32_t first)
{
    int flag;
    for (uint32_t i = first; i < step->count; i++)
        if (!parse_namespace(word_text(step, i), &flag))
            return plan_refuse(plan, "there is no namespace \"%.64s\"", word_text(step, i));
    return true;
}

static bool check_hold(struct plan *plan, const struct step *step)
{
    uint64_t slot;
    if (!parse_number(word_text(step, 1), 10, 1023, &slot))
        return plan_refuse(plan, "\"%.64s\" is no slot from 0 to 1023", word_text(step, 1));
    const char *depth = word_text(step, 3);
    return strcmp(depth, "recursive") == 0 || strcmp(depth, "single") == 0 ||
           plan_refuse(plan, "\"%.64s\" is neither recursive nor single", depth);
}

static bool check_unmount(struct plan *plan, const struct step *step)
{
    return step->count == 2 || strcmp(word_text(step, 2), "if-mounted") == 0 ||
           plan_refuse(plan, "\"%.64s\" is not if-mounted", word_text(step, 2));
}

static bool check_unshare(struct plan *plan, const struct step *step)
{
    return check_namespaces(plan, step, 1);
}

static bool check_propagation(struct plan *plan, const struct step *step)
{
    unsigned long flags;
    return parse_propagation(word_text(step, 2), &flags) ||
           plan_refuse(plan, "there is no mode \"%.64s\"", word_text(step, 2));
}

static bool check_require_folder(struct plan *plan, const struct step *step)
{
    if (!is_component(word_text(step, 2)))
        return plan_refuse(plan, "\"%.64s\" is not one name", word_text(step, 2));
    return check_mode(plan, word_text(step, 3));
}

static bool check_folder(struct plan *plan, const struct step *step)
{
    if (word_text(step, 2)[0] != '/')
        return plan_refuse(plan, "\"%.64s\" is not absolute", word_text(step, 2));
    return check_mode(plan, word_text(step, 3));
}

static bool check_tmpfs(struct plan *plan, const struct step *step)
{
    return check_tmpfs_options(plan, word_text(step, 3));
}

static bool check_bind(struct plan *plan, const struct step *step)
{
    return check_mount_flags(plan, step, 4);
}

static bool check_attach(struct plan *plan, const struct step *step)
{
    uint64_t slot;
    if (!parse_number(word_text(step, 1), 10, 1023, &slot))
        return plan_refuse(plan, "\"%.64s\" is no slot from 0 to 1023", word_text(step, 1));
    return check_mount_flags(plan, step, 4);
}

static bool check_file(struct plan *plan, const struct step *step)
{
    for (uint32_t i = 1; i < step->count; i++)
        if (i != 4 && strlen(word_text(step, i)) != step->words[i].length)
            return plan_refuse(plan, "a NUL byte in word %u", i);
    const char *how = word_text(step, 5);
    if (strcmp(how, "replace") != 0 && strcmp(how, "if-missing") != 0)
        return plan_refuse(plan, "\"%.64s\" is neither replace nor if-missing", how);
    return check_mode(plan, word_text(step, 3));
}

static bool check_symlink(struct plan *plan, const struct step *step)
{
    if (!*word_text(step, 3))
        return plan_refuse(plan, "the link leads nowhere");
    return strcmp(word_text(step, 4), "if-missing") == 0 ||
           plan_refuse(plan, "\"%.64s\" is not if-missing", word_text(step, 4));
}

static bool check_hostname(struct plan *plan, const struct step *step)
{
    size_t length = step->words[1].length;
    return (length > 0 && length <= 64) || plan_refuse(plan, "a name has 1 to 64 bytes");
}

static bool check_cgroup(struct plan *plan, const struct step *step)
{
    if (word_text(step, 1)[0] != '/')
        return plan_refuse(plan, "\"%.64s\" is not absolute", word_text(step, 1));
    if (step->count % 2 != 0)
        return plan_refuse(plan, "a file without a value");
    for (uint32_t i = 2; i < step->count; i += 2)
        if (!is_component(word_text(step, i)))
            return plan_refuse(plan, "\"%.64s\" is not one name", word_text(step, i));
    return true;
}

static bool check_controllers(struct plan *plan, const struct step *step)
{
    if (word_text(step, 1)[0] != '/')
        return plan_refuse(plan, "\"%.64s\" is not absolute", word_text(step, 1));
    for (uint32_t i = 2; i < step->count; i++)
        if (!is_component(word_text(step, i)) || strlen(word_text(step, i)) > 32)
            return plan_refuse(plan, "\"%.64s\" is no controller", word_text(step, i));
    return true;
}

static bool check_process(struct plan *plan, const struct step *step)
{
    pid_t pid;
    uint64_t ticks;
    return parse_process(word_text(step, 1), &pid, &ticks) ||
           plan_refuse(plan, "\"%.64s\" is not PID or PID:STARTTIME", word_text(step, 1));
}

static bool check_join_namespaces(struct plan *plan, const struct step *step)
{
    return check_process(plan, step) && check_namespaces(plan, step, 2);
}

static bool check_environment(struct plan *plan, const struct step *step)
{
    for (uint32_t i = 1; i < step->count; i++) {
        const char *equals = strchr(word_text(step, i), '=');
        if (!equals || equals == word_text(step, i))
            return plan_refuse(plan, "\"%.64s\" is not NAME=VALUE", word_text(step, i));
    }
    return true;
}

static bool check_supervise(struct plan *plan, const struct step *step)
{
    return is_component(word_text(step, 2)) ||
           plan_refuse(plan, "\"%.64s\" is not one name", word_text(step, 2));
}

const struct verb VERBS[] = {
    { "program", 1, 1, false, NULL, NULL },
    { "debug", 0, 0, false, NULL, NULL },
    { "environment", 1, ANY_NUMBER, false, check_environment, run_environment },
    { "hold", 3, 3, false, check_hold, run_hold },
    { "unshare", 1, 6, false, check_unshare, run_unshare },
    { "propagation", 2, 2, false, check_propagation, run_propagation },
    { "erofs", 4, 4, false, check_erofs, run_erofs },
    { "unmount", 1, 2, false, check_unmount, run_unmount },
    { "overlay", 4, 3 + 500, false, NULL, run_overlay }, /* OVL_MAX_STACK */
    { "bind-root", 1, 1, false, NULL, run_bind_root },
    { "pivot", 1, 1, false, NULL, run_pivot },
    { "require-folder", 3, 3, false, check_require_folder, run_require_folder },
    { "folder", 3, 3, false, check_folder, run_folder },
    { "tmpfs", 3, 3, false, check_tmpfs, run_tmpfs },
    { "bind", 3, 11, false, check_bind, run_bind },
    { "attach", 3, 11, false, check_attach, run_attach },
    { "file", 5, 5, true, check_file, run_file },
    { "symlink", 4, 4, false, check_symlink, run_symlink },
    { "mask", 2, 2, false, NULL, run_mask },
    { "readonly", 2, 2, false, NULL, run_readonly },
    { "writable", 2, 2, false, NULL, run_writable },
    { "readonly-root", 1, 1, false, NULL, run_readonly_root },
    { "hostname", 1, 1, false, check_hostname, run_hostname },
    { "cgroup", 1, 129, false, check_cgroup, run_cgroup },
    { "cgroup-controllers", 2, 17, false, check_controllers, run_cgroup_controllers },
    { "join-cgroups", 1, 1, false, check_process, run_join_cgroups },
    { "join-namespaces", 2, 8, false, check_join_namespaces, run_join_namespaces },
    { "init", 1, 1, false, NULL, run_init_folder },
    { "pid-file", 1, 1, false, NULL, run_pid_file },
    { "supervise", 2, ANY_NUMBER, false, check_supervise, run_supervise },
    { "terminal", 0, 0, false, NULL, run_terminal },
    { "start", 1, 1, false, NULL, run_start },
    { "exec", 1, ANY_NUMBER, false, NULL, run_exec },
    { "done", 0, 0, false, NULL, run_done },
    { NULL, 0, 0, false, NULL, NULL },
};
