/*
 * From the words of an app plan to struct app. Everything is checked here, before the first step that
 * can't be taken back.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app.h"
#include "common/die.h"
#include "common/numbers.h"

static struct app *reading;

static bool once(struct plan *plan, const char **field, const struct step *step)
{
    if (*field)
        return plan_refuse(plan, "it is there twice");
    *field = word_text(step, 1);
    return true;
}

static bool read_program(struct plan *plan, const struct step *step)
{
    (void)plan;
    program_name = word_text(step, 1);
    return true;
}

static bool read_root(struct plan *plan, const struct step *step)
{
    return once(plan, &reading->root, step);
}

static bool is_account(const char *spec)
{
    uint64_t id;
    if (is_digits(spec))
        return parse_number(spec, 10, ID_MAX, &id);
    if (*spec == '/')
        return true;
    /* What can't be a name in /etc/passwd; "user:group" must have been taken apart before. */
    return *spec && *spec != '-' && *spec != '+' && strlen(spec) < 256 && !strpbrk(spec, ":, \t\n/");
}

static bool read_user(struct plan *plan, const struct step *step)
{
    if (!is_account(word_text(step, 1)))
        return plan_refuse(plan, "\"%.64s\" is no number from 0 to 4294967294, name or path", word_text(step, 1));
    return once(plan, &reading->user, step);
}

static bool read_group(struct plan *plan, const struct step *step)
{
    if (!is_account(word_text(step, 1)))
        return plan_refuse(plan, "\"%.64s\" is no number from 0 to 4294967294, name or path", word_text(step, 1));
    return once(plan, &reading->group, step);
}

static bool read_groups(struct plan *plan, const struct step *step)
{
    size_t count = step->count - 1;
    if (reading->group_count + count > MAX_GROUPS)
        return plan_refuse(plan, "there are more than %d", MAX_GROUPS);
    gid_t *groups = realloc(reading->groups, (reading->group_count + count + 1) * sizeof *groups);
    if (!groups)
        return plan_refuse(plan, "no memory");
    reading->groups = groups;
    for (uint32_t i = 1; i < step->count; i++) {
        uint64_t id;
        if (!parse_number(word_text(step, i), 10, ID_MAX, &id))
            return plan_refuse(plan, "\"%.64s\" is no group number", word_text(step, i));
        groups[reading->group_count++] = (gid_t)id;
    }
    return true;
}

static bool read_image_groups(struct plan *plan, const struct step *step)
{
    (void)plan, (void)step;
    reading->image_groups = true;
    return true;
}

static bool read_env(struct plan *plan, const struct step *step)
{
    const char *text = word_text(step, 1);
    const char *equals = strchr(text, '=');
    if (!equals || equals == text)
        return plan_refuse(plan, "\"%.64s\" is not NAME=VALUE", text);
    char *name = strndup(text, (size_t)(equals - text));
    if (!name)
        return plan_refuse(plan, "no memory");
    set_env(reading, name, equals + 1, true);
    free(name);
    return true;
}

static bool read_env_from_user(struct plan *plan, const struct step *step)
{
    (void)plan, (void)step;
    reading->env_from_user = true;
    return true;
}

static bool read_env_pass(struct plan *plan, const struct step *step)
{
    for (uint32_t i = 1; i < step->count; i++) {
        const char *name = word_text(step, i);
        if (!*name || strchr(name, '='))
            return plan_refuse(plan, "\"%.64s\" is no variable's name", name);
        const char *value = getenv(name);
        if (value)
            set_env(reading, name, value, true);
    }
    return true;
}

static bool read_capabilities(struct plan *plan, const struct step *step)
{
    struct capability_sets *sets = &reading->capabilities;
    uint64_t *const fields[] = { &sets->bounding, &sets->effective, &sets->inheritable, &sets->ambient };
    if (sets->given)
        return plan_refuse(plan, "it is there twice");
    sets->given = true;
    for (uint32_t i = 0; i < 4; i++)
        if (!parse_number(word_text(step, i + 1), 16, UINT64_MAX, fields[i]))
            return plan_refuse(plan, "\"%.64s\" is no hexadecimal mask", word_text(step, i + 1));
    /* The kernel refuses the first two; the last would be widened again by exec. */
    if (sets->ambient & ~sets->inheritable)
        return plan_refuse(plan, "ambient ones must be inheritable");
    if (sets->ambient & ~sets->effective)
        return plan_refuse(plan, "ambient ones must be effective");
    if ((sets->effective | sets->inheritable) & ~sets->bounding)
        return plan_refuse(plan, "effective and inheritable ones must be in the bounding set");
    return true;
}

static bool read_no_new_privs(struct plan *plan, const struct step *step)
{
    (void)plan, (void)step;
    reading->no_new_privs = true;
    return true;
}

static bool read_seccomp(struct plan *plan, const struct step *step)
{
    const struct word *program = &step->words[1];
    size_t count = program->length / sizeof(struct sock_filter);
    if (reading->seccomp.len)
        return plan_refuse(plan, "it is there twice");
    if (program->length % sizeof(struct sock_filter) != 0 || count == 0 || count > BPF_MAXINSNS)
        return plan_refuse(plan, "%u bytes are no program", program->length);
    /* Words are not aligned. */
    reading->seccomp.filter = malloc(program->length);
    if (!reading->seccomp.filter)
        return plan_refuse(plan, "no memory");
    memcpy(reading->seccomp.filter, program->text, program->length);
    reading->seccomp.len = (unsigned short)count;
    return true;
}

static bool read_bound(const char *text, bool *keep, uint64_t *value)
{
    if (strcmp(text, "-") == 0) {
        *keep = true;
        return true;
    }
    if (strcmp(text, "infinity") == 0) {
        *value = RLIM_INFINITY;
        return true;
    }
    return parse_number(text, 10, UINT64_MAX - 1, value);
}

static bool read_rlimit(struct plan *plan, const struct step *step)
{
    static const struct {
        const char *name;
        int resource;
    } names[] = {
        { "as", RLIMIT_AS },           { "core", RLIMIT_CORE },       { "cpu", RLIMIT_CPU },
        { "data", RLIMIT_DATA },       { "fsize", RLIMIT_FSIZE },     { "locks", RLIMIT_LOCKS },
        { "memlock", RLIMIT_MEMLOCK }, { "msgqueue", RLIMIT_MSGQUEUE }, { "nice", RLIMIT_NICE },
        { "nofile", RLIMIT_NOFILE },   { "nproc", RLIMIT_NPROC },     { "rss", RLIMIT_RSS },
        { "rtprio", RLIMIT_RTPRIO },   { "rttime", RLIMIT_RTTIME },   { "sigpending", RLIMIT_SIGPENDING },
        { "stack", RLIMIT_STACK },
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(names[i].name, word_text(step, 1)) != 0)
            continue;
        struct limit limit = { .resource = names[i].resource, .name = names[i].name };
        for (size_t k = 0; k < reading->limit_count; k++)
            if (reading->limits[k].resource == limit.resource)
                return plan_refuse(plan, "%s is there twice", limit.name);
        if (!read_bound(word_text(step, 2), &limit.keep_soft, &limit.soft) ||
            !read_bound(word_text(step, 3), &limit.keep_hard, &limit.hard))
            return plan_refuse(plan, "a bound of %s is no number, infinity or -", limit.name);
        if (!limit.keep_soft && !limit.keep_hard && limit.soft > limit.hard)
            return plan_refuse(plan, "the soft bound of %s is above the hard one", limit.name);
        reading->limits[reading->limit_count++] = limit;
        return true;
    }
    return plan_refuse(plan, "there is no limit \"%.64s\"", word_text(step, 1));
}

static bool read_oom_score_adj(struct plan *plan, const struct step *step)
{
    const char *text = word_text(step, 1);
    uint64_t value;
    if (!parse_number(*text == '-' ? text + 1 : text, 10, 1000, &value))
        return plan_refuse(plan, "\"%.64s\" is not from -1000 to 1000", text);
    return once(plan, &reading->oom_score_adj, step);
}

static bool read_umask(struct plan *plan, const struct step *step)
{
    uint64_t value;
    if (!parse_number(word_text(step, 1), 8, 0777, &value))
        return plan_refuse(plan, "\"%.64s\" is no octal mode", word_text(step, 1));
    reading->umask = (mode_t)value;
    reading->has_umask = true;
    return true;
}

static bool read_own_terminal(struct plan *plan, const struct step *step)
{
    (void)plan;
    (void)step;
    reading->own_terminal = true;
    return true;
}

static bool read_workdir(struct plan *plan, const struct step *step)
{
    if (*word_text(step, 1) != '/')
        return plan_refuse(plan, "\"%.64s\" is not absolute", word_text(step, 1));
    return once(plan, &reading->workdir, step);
}

static bool read_command(struct plan *plan, const struct step *step)
{
    if (reading->command)
        return plan_refuse(plan, "there is more than one command");
    if (!*word_text(step, 1))
        return plan_refuse(plan, "the program's name is empty");
    reading->command = step;
    reading->any_of = strcmp(word_text(step, 0), "exec-any") == 0;
    return true;
}

static const struct verb VERBS[] = {
    { .name = "program", .least = 1, .most = 1, .check = read_program },
    { .name = "root", .least = 1, .most = 1, .check = read_root },
    { .name = "user", .least = 1, .most = 1, .check = read_user },
    { .name = "group", .least = 1, .most = 1, .check = read_group },
    { .name = "groups", .least = 0, .most = ANY_NUMBER, .check = read_groups },
    { .name = "image-groups", .check = read_image_groups },
    { .name = "env", .least = 1, .most = 1, .check = read_env },
    { .name = "env-from-user", .check = read_env_from_user },
    { .name = "env-pass", .least = 1, .most = ANY_NUMBER, .check = read_env_pass },
    { .name = "capabilities", .least = 4, .most = 4, .check = read_capabilities },
    { .name = "no-new-privs", .check = read_no_new_privs },
    { .name = "seccomp", .least = 1, .most = 1, .binary = true, .check = read_seccomp },
    { .name = "rlimit", .least = 3, .most = 3, .check = read_rlimit },
    { .name = "oom-score-adj", .least = 1, .most = 1, .check = read_oom_score_adj },
    { .name = "umask", .least = 1, .most = 1, .check = read_umask },
    { .name = "own-terminal", .check = read_own_terminal },
    { .name = "workdir", .least = 1, .most = 1, .check = read_workdir },
    { .name = "exec", .least = 1, .most = ANY_NUMBER, .check = read_command },
    { .name = "exec-any", .least = 1, .most = ANY_NUMBER, .check = read_command },
    { .name = NULL },
};

bool read_app_plan(struct plan *plan, struct app *app)
{
    *app = (struct app){ 0 };
    app->env = calloc(1, sizeof *app->env);
    if (!app->env)
        return plan_refuse(plan, "no memory");
    reading = app;
    if (!plan_check(plan, VERBS))
        return false;
    if (!app->root)
        return plan_refuse(plan, "it names no root");
    if (!app->command)
        return plan_refuse(plan, "it has no command");
    return true;
}
