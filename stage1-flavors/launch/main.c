/*
 * launch POD-FOLDER          starts the pod in that folder
 * launch --plan-fd N         executes the plan on that descriptor in the current folder
 * launch --check FILE        says whether a plan can be understood; does nothing
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/die.h"
#include "common/numbers.h"
#include "common/process.h"
#include "launch.h"

struct held held = { .lock = -1, .status = -1, .relay = -1, .app_plan = -1, .stage2 = -1 };

static bool debug;

/* What the table of verbs can't say: which step may come where. */
static bool check_order(struct plan *plan)
{
    bool forks = false, leaves_pid_namespace = false;
    for (size_t i = 0; i < plan->count; i++) {
        const struct step *step = &plan->steps[i];
        const char *verb = word_text(step, 0);
        bool ends = strcmp(verb, "start") == 0 || strcmp(verb, "exec") == 0 || strcmp(verb, "done") == 0;
        if (ends != (i == plan->count - 1))
            return plan_refuse(plan, ends ? "step %zu: nothing may follow %s" : "its last step must be start, exec or done",
                               i + 1, verb);
        if (strcmp(verb, "supervise") == 0) {
            if (forks)
                return plan_refuse(plan, "step %zu: supervise is there twice", i + 1);
            forks = true;
        }
        if (strcmp(verb, "terminal") == 0 && i > 1)
            return plan_refuse(plan, "step %zu: terminal must come before what enters or makes anything", i + 1);
        bool unshares = strcmp(verb, "unshare") == 0, joins = strcmp(verb, "join-namespaces") == 0;
        for (uint32_t w = 1; (unshares || joins) && w < step->count; w++)
            if (strcmp(word_text(step, w), "pid") == 0) {
                if (forks)
                    return plan_refuse(plan, "step %zu: a pid namespace must come before supervise", i + 1);
                leaves_pid_namespace = true;
            }
    }
    /* Only a child gets into the new pid namespace. */
    if (leaves_pid_namespace && !forks)
        return plan_refuse(plan, "a pid namespace needs supervise");
    return true;
}

static void check_plan(struct plan *plan, const char *name)
{
    if (!plan_check(plan, VERBS) || !check_order(plan))
        die("can't use %s: %s", name, plan->error);
}

static void print_step(const struct step *step)
{
    char line[1024] = "";
    size_t used = 0;
    for (uint32_t i = 0; i < step->count && used < sizeof line; i++)
        used += (size_t)snprintf(line + used, sizeof line - used, "%s%.200s", i ? " " : "", word_text(step, i));
    say("%s", line);
}

static void execute(struct plan *plan)
{
    const struct step *last = &plan->steps[plan->count - 1];
    if (strcmp(word_text(last, 0), "start") == 0)
        prepare_start(word_text(last, 1));
    for (size_t i = 0; i < plan->count; i++) {
        const struct step *step = &plan->steps[i];
        const struct verb *verb = plan_verb(plan, i, VERBS);
        char point[32];
        if (strcmp(verb->name, "program") == 0)
            program_name = word_text(step, 1);
        else if (strcmp(verb->name, "debug") == 0)
            debug = true;
        if (debug)
            print_step(step);
        if (i == plan->count - 1)
            fault_point("before-exec");
        if (verb->run)
            verb->run(step);
        snprintf(point, sizeof point, "step-%zu", i + 1);
        fault_point(point);
    }
    die("can't start: the plan ended without a program");
}

/* To a supervisor other than our own: a pod's init. */
static void report_failure(void)
{
    if (write(held.status, "F", 1) < 0)
        return; /* it is gone; we end anyway */
}

int main(int argc, char **argv)
{
    struct plan plan;
    uint64_t fd;
    program_name = "launch";
    if (argc == 3 && strcmp(argv[1], "--check") == 0) {
        int file = open(argv[2], O_RDONLY | O_CLOEXEC);
        if (file < 0)
            die_errno("can't read %s", argv[2]);
        plan_load(&plan, file, argv[2]);
        check_plan(&plan, argv[2]);
        return 0;
    }
    uint64_t status;
    if (argc == 5 && strcmp(argv[3], "--status-fd") == 0 && parse_number(argv[4], 10, INT_MAX, &status)) {
        held.status = (int)status;
        before_death = report_failure;
        argc = 3;
    }
    if (argc == 3 && strcmp(argv[1], "--plan-fd") == 0 && parse_number(argv[2], 10, INT_MAX, &fd)) {
        /* A pod's init hands on what the pod was given. */
        if (held.status >= 0)
            take_socket_activation();
        plan_load(&plan, (int)fd, "the launch plan");
        close((int)fd);
    } else if (argc == 2 && argv[1][0] != '-') {
        take_socket_activation();
        take_pod(argv[1]);
        fault_point("lock-taken");
        int file = open("launch-plan", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (file < 0)
            die_errno("can't start the pod: can't read its launch-plan");
        plan_load(&plan, file, "the pod's launch-plan");
        close(file);
    } else {
        die("can't start: usage: launch POD-FOLDER | launch --plan-fd N [--status-fd N] | launch --check FILE");
    }
    if (!getcwd(held.folder, sizeof held.folder))
        die_errno("can't start: the current folder has no name");
    check_plan(&plan, "the launch plan");
    execute(&plan);
}
