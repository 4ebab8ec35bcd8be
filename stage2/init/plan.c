/* The init plan and the plans of apps that are added later: docs/stage2-init.md. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/die.h"
#include "common/numbers.h"
#include "init.h"

#define DEFAULT_STOP_MS 10000
#define MOST_SECONDS 86400u
#define MOST_APPS 256

static struct app *current; /* the app that verbs are about */
static unsigned app_count;
static bool adding;           /* to a pod that runs: a plan of one app */
static struct app *forgotten; /* until nobody can know them any more */

static bool number_word(struct plan *plan, const struct step *step, uint32_t index, uint64_t most, uint64_t *number)
{
    return parse_number(word_text(step, index), 10, most, number) ||
           plan_refuse(plan, "%.32s: \"%.64s\" is no number up to %llu", word_text(step, 0), word_text(step, index),
                       (unsigned long long)most);
}

static int word_index(const char *word, const char *const *words)
{
    for (int i = 0; words[i]; i++)
        if (strcmp(word, words[i]) == 0)
            return i;
    return -1;
}

static bool choice(struct plan *plan, const struct step *step, const char *const *words, int *found)
{
    *found = word_index(word_text(step, 1), words);
    return *found >= 0 || plan_refuse(plan, "%.32s: \"%.64s\" is none of its words", word_text(step, 0),
                                      word_text(step, 1));
}

static const char *const POLICIES[] = { "first-failure", "all", "any", "never", NULL };
static const char *const RESTARTS[] = { "never", "on-failure", "always", NULL };
static const char *const MODES[] = { "null", "inherit", "log", "stream", "tty", NULL };
static const char *const STREAMS[] = { "stdin", "stdout", "stderr", NULL };

static void *more(void *array, size_t count, size_t size)
{
    void *grown = reallocarray(array, count + 1, size);
    if (!grown)
        die("can't read the init plan: no memory");
    return grown;
}

static bool begin_app(struct plan *plan, const struct step *step)
{
    const char *name = word_text(step, 1);
    if (!*name || strlen(name) > 200 || strchr(name, '/') || name[0] == '.')
        return plan_refuse(plan, "\"%.64s\" is no app name", name);
    if (find_app(name))
        return plan_refuse(plan, "app \"%.64s\" is in it twice", name);
    if (++app_count > MOST_APPS)
        return plan_refuse(plan, "more than %d apps", MOST_APPS);
    struct app *app = calloc(1, sizeof *app);
    if (!app)
        return plan_refuse(plan, "no memory");
    app->name = strdup(name);
    app->stop_signal = SIGTERM;
    app->stop_timeout = pod.stop_timeout;
    app->modes[1] = app->modes[2] = MODE_INHERIT;
    app->status = -1;
    app->cgroup = -1;
    app->start_pipe = -1;
    struct app **last = &pod.apps;
    while (*last)
        last = &(*last)->next;
    *last = app;
    current = app;
    return true;
}

static bool app_verb(struct plan *plan, const struct step *step)
{
    const char *verb = word_text(step, 0);
    const char *value = step->count > 1 ? word_text(step, 1) : "";
    uint64_t number = 0;
    int found = 0;
    if (!current)
        return plan_refuse(plan, "%.32s before any app", verb);
    struct app *app = current;
    if (strcmp(verb, "launch") == 0)
        app->launch = strdup(value);
    else if (strcmp(verb, "pre-start") == 0)
        app->pre_start = strdup(value);
    else if (strcmp(verb, "post-stop") == 0)
        app->post_stop = strdup(value);
    else if (strcmp(verb, "first") == 0)
        app->first = true;
    else if (strcmp(verb, "manual") == 0)
        app->manual = true;
    else if (strcmp(verb, "sockets") == 0)
        app->sockets = true;
    else if (strcmp(verb, "restart") == 0) {
        if (!choice(plan, step, RESTARTS, &found))
            return false;
        app->restart = (enum restart)found;
    } else if (strcmp(verb, "stop-signal") == 0) {
        if (!number_word(plan, step, 1, 64, &number))
            return false;
        if (number == 0)
            return plan_refuse(plan, "stop-signal: 0 is no signal");
        app->stop_signal = (int)number;
    } else if (strcmp(verb, "limit") == 0) {
        if (strchr(value, '/') || !*value || value[0] == '.')
            return plan_refuse(plan, "limit: \"%.64s\" is not one file", value);
        app->limits = more(app->limits, app->limit_count, sizeof *app->limits);
        app->limits[app->limit_count++] = (struct limit){ strdup(value), strdup(word_text(step, 2)) };
    } else if ((found = word_index(verb, STREAMS)) >= 0) {
        int mode;
        if (!choice(plan, step, MODES, &mode))
            return false;
        if (found == 0 && mode == MODE_LOG)
            return plan_refuse(plan, "stdin can't be a log");
        app->modes[found] = (enum mode)mode;
    } else if (strcmp(verb, "log") == 0 && strcmp(value, "journal") == 0 && step->count == 2) {
        if (!app->log_journal && !start_journal(app))
            return plan_refuse(plan, "log journal: no memory");
    } else if (strcmp(verb, "log-field") == 0) {
        if (!add_journal_field(app, value, word_text(step, 2)))
            return plan_refuse(plan, "log-field: \"%.64s\" can't be one", value);
    } else if (strcmp(verb, "log") == 0) {
        if (strcmp(value, "file") != 0 || step->count != 5)
            return plan_refuse(plan, "log: the words are journal, or file PATH MAX-BYTES KEPT");
        app->log_file = strdup(word_text(step, 2));
        if (!number_word(plan, step, 3, UINT64_C(1) << 50, &app->log_bytes) ||
            !number_word(plan, step, 4, 100, &number))
            return false;
        app->log_kept = (unsigned)number;
    }
    return true;
}

/* KIND HOW ARGUMENT PATH DELAY PERIOD TIMEOUT FAILURES SUCCESSES */
static bool probe_verb(struct plan *plan, const struct step *step)
{
    static const char *const kinds[] = { "startup", "liveness", "readiness", NULL };
    static const char *const ways[] = { "exec", "tcp", "http", NULL };
    int kind = word_index(word_text(step, 1), kinds), how = word_index(word_text(step, 2), ways);
    uint64_t port = 0, numbers[5];
    if (!current)
        return plan_refuse(plan, "probe before any app");
    if (kind < 0 || how < 0 || current->probes[kind])
        return plan_refuse(plan, "probe: %.32s by %.32s is unknown, or there twice", word_text(step, 1),
                           word_text(step, 2));
    for (uint32_t i = 0; i < 5; i++)
        if (!number_word(plan, step, 5 + i, i < 3 ? MOST_SECONDS : 100000, &numbers[i]))
            return false;
    if (how != PROBE_EXEC && !number_word(plan, step, 3, 65535, &port))
        return false;
    const char *path = how == PROBE_EXEC ? word_text(step, 3) : word_text(step, 4);
    if (path[0] != '/' || strlen(path) > 1000 || strpbrk(path, " \r\n"))
        return plan_refuse(plan, "probe: \"%.64s\" is no path", path);
    if (numbers[1] == 0 || numbers[2] == 0 || numbers[3] == 0 || numbers[4] == 0)
        return plan_refuse(plan, "probe: period, time limit, failures and successes are at least 1");
    struct probe_plan found = { .how = (enum probe_how)how,
                                .path = strdup(path),
                                .port = (unsigned)port,
                                .delay = (int64_t)numbers[0] * 1000,
                                .period = (int64_t)numbers[1] * 1000,
                                .timeout = (int64_t)numbers[2] * 1000,
                                .failures = (unsigned)numbers[3],
                                .successes = (unsigned)numbers[4],
                                .watch = { NULL, -1 } };
    current->probes[kind] = found.path ? make_probe(current, (enum probe_kind)kind, &found) : NULL;
    return current->probes[kind] ? true : plan_refuse(plan, "no memory");
}

static bool stop_timeout(struct plan *plan, const struct step *step)
{
    uint64_t seconds = 0;
    if (!number_word(plan, step, 1, MOST_SECONDS, &seconds))
        return false;
    if (adding && !current)
        return plan_refuse(plan, "stop-timeout is about the pod");
    *(current ? &current->stop_timeout : &pod.stop_timeout) = (int64_t)seconds * 1000;
    return true;
}

static bool pod_verb(struct plan *plan, const struct step *step)
{
    const char *verb = word_text(step, 0);
    int found = 0;
    if (adding)
        return plan_refuse(plan, "%.32s is about the pod", verb);
    if (current)
        return plan_refuse(plan, "%.32s after an app", verb);
    if (strcmp(verb, "program") == 0)
        program_name = strdup(word_text(step, 1));
    else if (strcmp(verb, "pod") == 0)
        pod.uuid = strdup(word_text(step, 1));
    else if (strcmp(verb, "hostname") == 0)
        pod.hostname = strdup(word_text(step, 1));
    else if (strcmp(verb, "loopback") == 0)
        pod.loopback = true;
    else if (strcmp(verb, "cgroups") == 0)
        pod.cgroups = strdup(word_text(step, 1));
    else if (strcmp(verb, "exit-policy") == 0) {
        if (!choice(plan, step, POLICIES, &found))
            return false;
        pod.policy = (enum exit_policy)found;
    }
    return true;
}

/* `check` reads at once: the plan is refused as a whole before anything is done. */
static const struct verb VERBS[] = {
    { "program", 1, 1, false, pod_verb, NULL },
    { "pod", 1, 1, false, pod_verb, NULL },
    { "exit-policy", 1, 1, false, pod_verb, NULL },
    { "hostname", 1, 1, false, pod_verb, NULL },
    { "loopback", 0, 0, false, pod_verb, NULL },
    { "cgroups", 1, 1, false, pod_verb, NULL },
    { "stop-timeout", 1, 1, false, stop_timeout, NULL },
    { "app", 1, 1, false, begin_app, NULL },
    { "launch", 1, 1, false, app_verb, NULL },
    { "first", 0, 0, false, app_verb, NULL },
    { "manual", 0, 0, false, app_verb, NULL },
    { "sockets", 0, 0, false, app_verb, NULL },
    { "restart", 1, 1, false, app_verb, NULL },
    { "stop-signal", 1, 1, false, app_verb, NULL },
    { "limit", 2, 2, false, app_verb, NULL },
    { "probe", 9, 9, false, probe_verb, NULL },
    { "stdin", 1, 1, false, app_verb, NULL },
    { "stdout", 1, 1, false, app_verb, NULL },
    { "stderr", 1, 1, false, app_verb, NULL },
    { "log", 1, 4, false, app_verb, NULL },
    { "log-field", 2, 2, false, app_verb, NULL },
    { "pre-start", 1, 1, false, app_verb, NULL },
    { "post-stop", 1, 1, false, app_verb, NULL },
    { NULL, 0, 0, false, NULL, NULL },
};

static bool read_plan(struct plan *plan, const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return plan_refuse(plan, "it can't be opened");
    char *bytes = plan_read(plan, fd);
    close(fd);
    bool good = bytes && plan_check(plan, VERBS);
    /* What is kept of it was copied. */
    plan_free(plan);
    free(bytes);
    return good;
}

void read_init_plan(const char *path)
{
    struct plan plan = { 0 };
    pod.stop_timeout = DEFAULT_STOP_MS;
    pod.status = -1;
    if (!read_plan(&plan, path))
        die("can't use the init plan %s: %s", path, plan.error);
    for (struct app *app = pod.apps; app; app = app->next)
        if (!app->launch)
            die("can't use the init plan %s: app \"%s\" has no launch plan", path, app->name);
}

void forget_app(struct app *app)
{
    struct app **at = &pod.apps;
    while (*at && *at != app)
        at = &(*at)->next;
    if (!*at)
        return;
    *at = app->next;
    app->next = forgotten;
    forgotten = app;
    app_count--;
}

void free_forgotten(void)
{
    while (forgotten) {
        struct app *app = forgotten;
        forgotten = app->next;
        free_streams(app);
        for (size_t i = 0; i < app->limit_count; i++) {
            free((char *)app->limits[i].file);
            free((char *)app->limits[i].value);
        }
        for (int i = 0; i < PROBES; i++)
            free_probe(app->probes[i]);
        free(app->limits);
        free((char *)app->name);
        free((char *)app->launch);
        free((char *)app->pre_start);
        free((char *)app->post_stop);
        free((char *)app->log_file);
        free(app->journal_fields);
        free(app);
    }
}

struct app *read_added_app(const char *path, const char *name, char error[256])
{
    struct plan plan = { 0 };
    struct app *last = pod.apps;
    while (last && last->next)
        last = last->next;
    current = NULL;
    adding = true;
    bool good = read_plan(&plan, path);
    adding = false;
    struct app *added = last ? last->next : pod.apps;
    if (good && (!added || added->next || strcmp(added->name, name) != 0 || !added->launch))
        good = plan_refuse(&plan, "it is not about app \"%.64s\" alone", name);
    if (!good) {
        snprintf(error, 256, "%s", plan.error);
        /* The pod goes on as it was. */
        for (struct app *next; added; added = next) {
            next = added->next;
            forget_app(added);
        }
    }
    current = NULL;
    return good ? added : NULL;
}
