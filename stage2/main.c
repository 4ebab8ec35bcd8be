/*
 * stage2: what runs inside a pod for tspod. Its mode is its first word; `app` starts one app, `init` is PID 1 of a
 * pod of apps (docs/stage2-init.md).
 *
 *   stage2 app --plan-fd N [--keep-fd N]… [--status-fd N]
 *   stage2 init [PLAN]
 *
 * --keep-fd: a descriptor that the app gets. --status-fd: where the launcher's supervisor learns how far
 * the start came ('R': the app is executed now; 'F': it failed); never passed on.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "app.h"
#include "common/close-fds.h"
#include "common/die.h"
#include "common/numbers.h"
#include "init/run-init.h"

#define MAX_KEPT 4096

static int status_fd = -1;

static void report_failure(void)
{
    if (status_fd >= 0 && write(status_fd, "F", 1) < 0)
        return; /* the supervisor is gone, and this process ends anyway */
}

static int descriptor(const char *option, const char *text)
{
    uint64_t number;
    if (!text || !parse_number(text, 10, INT_MAX, &number))
        die("can't start: %s needs a descriptor", option);
    return (int)number;
}

static void start_app_from(int argc, char **argv)
{
    static int kept[MAX_KEPT + 2];
    size_t count = 0;
    int plan_fd = -1;
    for (int i = 2; i < argc; i += 2) {
        int fd = descriptor(argv[i], argv[i + 1]);
        if (strcmp(argv[i], "--plan-fd") == 0)
            plan_fd = fd;
        else if (strcmp(argv[i], "--status-fd") == 0)
            status_fd = fd;
        else if (strcmp(argv[i], "--keep-fd") == 0 && count < MAX_KEPT)
            kept[count++] = fd;
        else
            die("can't start: unknown option %s", argv[i]);
    }
    if (plan_fd < 0)
        die("can't start: --plan-fd is missing");
    before_death = report_failure;

    struct plan plan;
    struct app app;
    plan_load(&plan, plan_fd, "the app plan");
    close(plan_fd);
    if (!read_app_plan(&plan, &app))
        die("can't use the app plan: %s", plan.error);

    /* Closed now, not at exec: what is open while we are inside the root can be reached from there. */
    size_t passed = count;
    if (status_fd >= 0)
        kept[passed++] = status_fd;
    if (close_all_but(kept, passed) < 0)
        die_errno("can't close descriptors");
    for (size_t i = 0; i < passed; i++)
        if (fcntl(kept[i], F_SETFD, kept[i] == status_fd ? FD_CLOEXEC : 0) < 0)
            die_errno("can't keep descriptor %d", kept[i]);
    start_app(&app, status_fd);
}

int main(int argc, char **argv)
{
    program_name = "stage2";
    /* Nobody inside the pod may look into this process or stop it (CVE-2016-9962). */
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        die_errno("can't hide from tracers");
    if (argc >= 2 && strcmp(argv[1], "app") == 0)
        start_app_from(argc, argv);
    if (argc >= 2 && argc <= 3 && strcmp(argv[1], "init") == 0)
        run_init(argc == 3 ? argv[2] : "/rkt/init-plan");
    die("can't start: usage: stage2 app --plan-fd N [--keep-fd N]... [--status-fd N] | stage2 init [PLAN]");
}
