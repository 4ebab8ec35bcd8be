/*
 * cgroup v2 below the folder that is the pod's own. Controllers are handed down, so the folder itself may hold no
 * process (the rule of "no internal processes", Documentation/admin-guide/cgroup-v2.rst): init moves out of it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/die.h"
#include "common/process.h"
#include "init.h"

static int root = -1;

static bool put(int folder, const char *file, const char *value)
{
    int fd = openat(folder, file, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    bool good = fd >= 0 && write(fd, value, strlen(value)) == (ssize_t)strlen(value);
    int reason = errno;
    if (fd >= 0)
        close(fd);
    errno = reason;
    return good;
}

void prepare_cgroups(void)
{
    if (!pod.cgroups)
        return;
    root = open(pod.cgroups, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        die_errno("can't open the pod's cgroup %s", pod.cgroups);
    if (mkdirat(root, "init", 0755) < 0 && errno != EEXIST)
        die_errno("can't make a cgroup in %s", pod.cgroups);
    int own = openat(root, "init", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (own < 0 || !put(own, "cgroup.procs", "0"))
        die_errno("can't move to a cgroup below %s", pod.cgroups);
    close(own);
    char controllers[512];
    if (read_small_file(root, "cgroup.controllers", controllers, sizeof controllers) < 0)
        die_errno("can't read the controllers of %s", pod.cgroups);
    for (char *save = NULL, *word = strtok_r(controllers, " \n", &save); word; word = strtok_r(NULL, " \n", &save)) {
        char request[64];
        snprintf(request, sizeof request, "+%s", word);
        /* One that can't be handed down is missed only by a limit that needs it. */
        put(root, "cgroup.subtree_control", request);
    }
}

int make_app_cgroup(const struct app *app)
{
    char name[256];
    snprintf(name, sizeof name, "app-%s", app->name);
    if (mkdirat(root, name, 0755) < 0 && errno != EEXIST) {
        say("can't start app \"%s\": can't make its cgroup: %s", app->name, strerror(errno));
        return -1;
    }
    int folder = openat(root, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) {
        say("can't start app \"%s\": can't open its cgroup: %s", app->name, strerror(errno));
        return -1;
    }
    for (size_t i = 0; i < app->limit_count; i++)
        if (!put(folder, app->limits[i].file, app->limits[i].value)) {
            say("can't start app \"%s\": can't set %s to %s: %s", app->name, app->limits[i].file,
                app->limits[i].value, strerror(errno));
            close(folder);
            return -1;
        }
    return folder;
}

uint64_t kills_for_memory(const struct app *app)
{
    char text[1024];
    if (app->cgroup < 0 || read_small_file(app->cgroup, "memory.events", text, sizeof text) < 0)
        return 0;
    const char *line = strstr(text, "\noom_kill ");
    return line ? strtoull(line + strlen("\noom_kill "), NULL, 10) : 0;
}

void kill_app_cgroup(const struct app *app)
{
    if (app->cgroup >= 0)
        put(app->cgroup, "cgroup.kill", "1"); /* Linux 5.14; before, the process group has to do */
}

void remove_app_cgroup(struct app *app)
{
    char name[256];
    snprintf(name, sizeof name, "app-%s", app->name);
    if (app->cgroup < 0)
        return;
    close(app->cgroup);
    app->cgroup = -1;
    unlinkat(root, name, AT_REMOVEDIR);
}
