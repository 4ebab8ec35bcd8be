/* Files and folders inside a root, and the pid file: all by descriptors below the root. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/die.h"
#include "common/in-root.h"
#include "common/numbers.h"
#include "common/process.h"
#include "launch.h"

/* An image's /proc, /sys or /dev that is a link would move what is mounted there (CVE-2019-19921,
 * CVE-2023-27561, CVE-2026-41579). */
void run_require_folder(const struct step *step)
{
    const char *name = word_text(step, 2);
    uint64_t mode = 0;
    parse_number(word_text(step, 3), 8, 07777, &mode);
    int root = open_root(word_text(step, 1));
    struct stat st;
    if (mkdirat(root, name, (mode_t)mode) == 0) {
        /* mkdir's mode goes through the umask; the name is ours, for nobody else runs in this root yet. */
        if (fchmodat(root, name, (mode_t)mode, 0) < 0)
            die_errno("can't make the folder \"/%s\"", name);
    } else if (errno != EEXIST) {
        die_errno("can't make the folder \"/%s\"", name);
    }
    if (fstatat(root, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        die_errno("can't use the folder \"/%s\"", name);
    if (!S_ISDIR(st.st_mode))
        die("can't use the image: its \"/%s\" is %s, not a folder", name,
            S_ISLNK(st.st_mode) ? "a symbolic link" : "a file");
    close(root);
}

void run_folder(const struct step *step)
{
    const char *target = word_text(step, 2);
    uint64_t mode = 0;
    parse_number(word_text(step, 3), 8, 07777, &mode);
    int root = open_root(word_text(step, 1));
    mode_t mask = umask(0);
    int folder = make_folders_in_root(root, target, (mode_t)mode);
    umask(mask);
    /* On a network file system a folder may let in its user only, and not root: the app will see. */
    if (folder < 0 && errno != EACCES)
        die_errno("can't make the folder \"%s\"", target);
    if (folder >= 0)
        close(folder);
    close(root);
}

static void write_all(int fd, const char *data, size_t length, const char *name)
{
    while (length > 0) {
        ssize_t written = write(fd, data, length);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            die_errno("can't write \"%s\"", name);
        data += written;
        length -= (size_t)written;
    }
}

void run_file(const struct step *step)
{
    const char *target = word_text(step, 2);
    const struct word *content = &step->words[4];
    bool replace = strcmp(word_text(step, 5), "replace") == 0;
    uint64_t mode = 0;
    parse_number(word_text(step, 3), 8, 07777, &mode);
    int root = open_root(word_text(step, 1));
    char name[256], aside[64];
    int parent = open_parent_in_root(root, target, name);
    if (parent < 0)
        die_errno("can't write \"%s\"", target);
    struct stat st;
    if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && !replace) {
        close(parent);
        close(root);
        return;
    }
    snprintf(aside, sizeof aside, ".tspod-%d", (int)getpid());
    int fd = openat(parent, aside, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        die_errno("can't write \"%s\"", target);
    write_all(fd, content->text, content->length, target);
    if (fchmod(fd, (mode_t)mode) < 0)
        die_errno("can't write \"%s\"", target);
    close(fd);
    /* rename replaces a link itself, never what it leads to. */
    if (renameat(parent, aside, parent, name) < 0) {
        int reason = errno;
        unlinkat(parent, aside, 0);
        errno = reason;
        die_errno("can't write \"%s\"", target);
    }
    close(parent);
    close(root);
}

void run_symlink(const struct step *step)
{
    const char *target = word_text(step, 2);
    int root = open_root(word_text(step, 1));
    char name[256];
    int parent = open_parent_in_root(root, target, name);
    if (parent < 0)
        die_errno("can't make the link \"%s\"", target);
    if (symlinkat(word_text(step, 3), parent, name) < 0 && errno != EEXIST)
        die_errno("can't make the link \"%s\"", target);
    close(parent);
    close(root);
}

/*
 * The pid as the host's /proc has it, which is not getpid() in a new pid namespace. The boot id tells a
 * process of this boot from one of an earlier boot with the same pid and start time.
 */
void run_pid_file(const struct step *step)
{
    const char *path = word_text(step, 1);
    char pid[32], boot[64], text[160], aside[4096];
    ssize_t length = readlink("/proc/self", pid, sizeof pid - 1);
    if (length <= 0)
        die_errno("can't write \"%s\": can't read /proc/self", path);
    pid[length] = '\0';
    uint64_t ticks;
    if (!process_start_time("self", &ticks))
        die_errno("can't write \"%s\": can't read /proc/self/stat", path);
    if (read_small_file(AT_FDCWD, "/proc/sys/kernel/random/boot_id", boot, sizeof boot) < 0)
        die_errno("can't write \"%s\": can't read the boot id", path);
    boot[strcspn(boot, "\n")] = '\0';
    snprintf(text, sizeof text, "%s %llu %s\n", pid, (unsigned long long)ticks, boot);
    if (snprintf(aside, sizeof aside, "%s.new", path) >= (int)sizeof aside)
        die("can't write \"%s\": the name is too long", path);
    int fd = open(aside, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0)
        die_errno("can't write \"%s\"", path);
    write_all(fd, text, strlen(text), path);
    close(fd);
    if (rename(aside, path) < 0)
        die_errno("can't write \"%s\"", path);
}
