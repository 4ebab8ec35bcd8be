/* Mount propagation: what the pod mounts must never reach the host unless the plan says so. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "common/die.h"
#include "launch.h"

bool parse_propagation(const char *mode, unsigned long *flags)
{
    static const struct {
        const char *name;
        unsigned long flags;
    } modes[] = {
        { "private", MS_PRIVATE },           { "slave", MS_SLAVE },           { "shared", MS_SHARED },
        { "rprivate", MS_PRIVATE | MS_REC }, { "rslave", MS_SLAVE | MS_REC }, { "rshared", MS_SHARED | MS_REC },
    };
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++)
        if (strcmp(modes[i].name, mode) == 0) {
            *flags = modes[i].flags;
            return true;
        }
    return false;
}

void run_propagation(const struct step *step)
{
    unsigned long flags = 0;
    parse_propagation(word_text(step, 2), &flags);
    if (mount(NULL, word_text(step, 1), NULL, flags, NULL) < 0)
        die_errno("can't make the mounts at \"%s\" %s", word_text(step, 1), word_text(step, 2));
}

/* Whether the mount that `fd` lies in has peers. Only mountinfo says so on kernels before 6.8. */
bool mount_is_shared(int fd)
{
    struct statx st;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &st) < 0 || !(st.stx_mask & STATX_MNT_ID))
        die_errno("can't find out about a mount");
    FILE *table = fopen("/proc/self/mountinfo", "re");
    if (!table)
        die_errno("can't read /proc/self/mountinfo");
    char *line = NULL;
    size_t room = 0;
    bool found = false, shared = false;
    while (!found && getline(&line, &room, table) > 0) {
        if (strtoull(line, NULL, 10) != st.stx_mnt_id)
            continue;
        found = true;
        /* The optional fields end with " - "; spaces in paths are written \040. */
        char *end = strstr(line, " - ");
        char *field = strstr(line, " shared:");
        shared = field && (!end || field < end);
    }
    free(line);
    fclose(table);
    return shared;
}
