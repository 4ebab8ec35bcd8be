/*
 * Control groups: a new one with limits, and those of a running process. Everything written is checked to
 * lie on a cgroup file system, so that a mount over it can't turn a limit into a no-op (CVE-2025-52881).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "common/die.h"
#include "common/process.h"
#include "launch.h"

#define CGROUP1_MAGIC 0x27e0eb
#define CGROUP2_MAGIC 0x63677270

static int open_cgroup(const char *folder)
{
    struct statfs fs;
    int fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fstatfs(fd, &fs) < 0)
        die_errno("can't open the cgroup %s", folder);
    if (fs.f_type != CGROUP1_MAGIC && fs.f_type != CGROUP2_MAGIC)
        die("can't use the cgroup %s: it is not on a cgroup file system", folder);
    return fd;
}

static void write_control(int cgroup, const char *folder, const char *file, const char *value)
{
    int fd = openat(cgroup, file, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        die_errno("can't set %s of the cgroup %s", file, folder);
    if (write(fd, value, strlen(value)) < 0)
        die_errno("can't set %s of the cgroup %s to \"%s\"", file, folder, value);
    close(fd);
}

static void move_into(int cgroup, const char *folder)
{
    /* "0" is the writer itself, in whatever pid namespace it is. */
    write_control(cgroup, folder, "cgroup.procs", "0");
}

void run_cgroup(const struct step *step)
{
    const char *folder = word_text(step, 1);
    if (mkdir(folder, 0755) < 0 && errno != EEXIST)
        die_errno("can't make the cgroup %s", folder);
    int cgroup = open_cgroup(folder);
    for (uint32_t i = 2; i + 1 < step->count; i += 2)
        write_control(cgroup, folder, word_text(step, i), word_text(step, i + 1));
    move_into(cgroup, folder);
    close(cgroup);
}

void run_cgroup_controllers(const struct step *step)
{
    const char *folder = word_text(step, 1);
    int cgroup = open_cgroup(folder);
    for (uint32_t i = 2; i < step->count; i++) {
        char request[64];
        snprintf(request, sizeof request, "+%s", word_text(step, i));
        write_control(cgroup, folder, "cgroup.subtree_control", request);
    }
    close(cgroup);
}

/* mountinfo writes space, tab, newline and backslash as \ooo. */
static void unescape(char *text)
{
    char *to = text;
    for (char *from = text; *from; from++) {
        if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] && from[3]) {
            *to++ = (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + (from[3] - '0'));
            from += 3;
        } else {
            *to++ = *from;
        }
    }
    *to = '\0';
}

static bool list_holds(char *list, const char *item)
{
    char *rest = NULL;
    for (char *part = strtok_r(list, ",", &rest); part; part = strtok_r(NULL, ",", &rest))
        if (strcmp(part, item) == 0)
            return true;
    return false;
}

/*
 * The folder of `path` in the hierarchy that `controllers` names ("" for cgroup v2; "cpu,cpuacct" or
 * "name=systemd" for v1). False when it is mounted nowhere.
 */
static bool find_folder(const char *controllers, const char *path, char *folder, size_t room)
{
    FILE *table = fopen("/proc/self/mountinfo", "re");
    if (!table)
        die_errno("can't read /proc/self/mountinfo");
    char *line = NULL;
    size_t size = 0;
    bool found = false;
    while (!found && getline(&line, &size, table) > 0) {
        char *root, *place, *type, *options, *rest = NULL;
        char *tail = strstr(line, " - ");
        if (!tail)
            continue;
        *tail = '\0';
        strtok_r(line, " ", &rest);
        strtok_r(NULL, " ", &rest);
        strtok_r(NULL, " ", &rest);
        root = strtok_r(NULL, " ", &rest);
        place = strtok_r(NULL, " ", &rest);
        type = strtok_r(tail + 3, " \n", &rest);
        strtok_r(NULL, " \n", &rest);
        options = strtok_r(NULL, " \n", &rest);
        if (!root || !place || !type || !options)
            continue;
        if (*controllers) {
            char first[64];
            snprintf(first, sizeof first, "%.*s", (int)strcspn(controllers, ","), controllers);
            if (strcmp(type, "cgroup") != 0 || !list_holds(options, first))
                continue;
        } else if (strcmp(type, "cgroup2") != 0) {
            continue;
        }
        unescape(root);
        unescape(place);
        size_t length = strcmp(root, "/") == 0 ? 0 : strlen(root);
        if (strncmp(path, root, length) != 0 || (path[length] != '/' && path[length] != '\0'))
            continue; /* another part of the hierarchy is mounted here */
        found = snprintf(folder, room, "%s%s", place, path + length) < (int)room;
    }
    free(line);
    fclose(table);
    return found;
}

/* `enter` without this would leave the app's limits behind (CVE-2019-10147). */
void run_join_cgroups(const struct step *step)
{
    pid_t number = 0;
    uint64_t ticks = 0, now;
    char name[64], pid[16], folder[PATH_MAX];
    parse_process(word_text(step, 1), &number, &ticks);
    snprintf(pid, sizeof pid, "%d", (int)number);
    snprintf(name, sizeof name, "/proc/%s/cgroup", pid);
    static char text[65536];
    if (read_small_file(AT_FDCWD, name, text, sizeof text) < 0)
        die_errno("can't enter: can't read the cgroups of process %s", pid);
    if (!process_start_time(pid, &now) || (ticks && now != ticks))
        die("can't enter: process %s has ended", pid);
    char *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        /* ID:CONTROLLERS:PATH (cgroups(7)) */
        char *controllers = strchr(line, ':');
        char *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path)
            continue;
        *path++ = '\0';
        controllers++;
        if (!find_folder(controllers, path, folder, sizeof folder))
            continue; /* a hierarchy that is not mounted holds nobody who could be limited by it */
        int cgroup = open_cgroup(folder);
        move_into(cgroup, folder);
        close(cgroup);
    }
}
