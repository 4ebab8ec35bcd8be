/*
 * Mounts. Every one is made detached first (open_tree, fsmount), given its flags while nobody can see it,
 * and then put on a descriptor that the in-root resolver answered: no path from outside is ever resolved
 * by mount(2). Afterwards it is looked whether the mount is where the path leads (CVE-2021-30465).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "common/die.h"
#include "common/in-root.h"
#include "common/mount-api.h"
#include "common/numbers.h"
#include "launch.h"

#define SLOTS 1024

static int slots[SLOTS]; /* descriptor + 1; 0: empty */

struct mount_flags {
    uint64_t attributes;
    uint64_t propagation;
    bool must_be_shared;
};

static bool parse_mount_flag(const char *word, struct mount_flags *flags)
{
    if (strcmp(word, "ro") == 0)
        flags->attributes |= ATTR_READONLY;
    else if (strcmp(word, "nosuid") == 0)
        flags->attributes |= ATTR_NOSUID;
    else if (strcmp(word, "nodev") == 0)
        flags->attributes |= ATTR_NODEV;
    else if (strcmp(word, "noexec") == 0)
        flags->attributes |= ATTR_NOEXEC;
    else if (strcmp(word, "private") == 0)
        flags->propagation = MS_PRIVATE;
    else if (strcmp(word, "slave") == 0)
        flags->propagation = MS_SLAVE;
    else if (strcmp(word, "shared") == 0)
        flags->must_be_shared = true;
    else
        return false;
    return true;
}

bool check_mount_flags(struct plan *plan, const struct step *step, uint32_t first)
{
    struct mount_flags flags = { 0 };
    for (uint32_t i = first; i < step->count; i++)
        if (!parse_mount_flag(word_text(step, i), &flags))
            return plan_refuse(plan, "there is no flag \"%.64s\"", word_text(step, i));
    if (flags.must_be_shared && flags.propagation)
        return plan_refuse(plan, "shared contradicts private and slave");
    return true;
}

int open_root(const char *root)
{
    int fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        die_errno("can't open the root \"%s\"", root);
    return fd;
}

/* EINVAL and EPERM of these calls need words; an old kernel answers ENOSYS. */
static const char *mount_reason(int reason)
{
    return reason == ENOSYS ? "the kernel is too old (Linux 5.12 is needed)" : strerror(reason);
}

static int clone_tree(int fd, const char *path, bool recursive, const char *name)
{
    unsigned flags = TREE_CLONE | (recursive ? TREE_RECURSIVE : 0) | (path[0] ? 0 : TREE_EMPTY_PATH);
    int tree = open_tree_at(fd, path, flags);
    if (tree < 0) {
        if (errno == ENOENT)
            die("can't mount \"%s\": it does not exist", name);
        die("can't mount \"%s\": %s", name, mount_reason(errno));
    }
    return tree;
}

static bool same_mount(int a, int b)
{
    struct statx left, right;
    if (statx(a, "", AT_EMPTY_PATH, STATX_MNT_ID | STATX_INO, &left) < 0 ||
        statx(b, "", AT_EMPTY_PATH, STATX_MNT_ID | STATX_INO, &right) < 0)
        return false;
    return left.stx_mnt_id == right.stx_mnt_id && left.stx_ino == right.stx_ino &&
           left.stx_dev_major == right.stx_dev_major && left.stx_dev_minor == right.stx_dev_minor;
}

/*
 * Puts `tree` on `place`, which `target` led to in `root`. A place inside a shared mount would carry the
 * mount to the host or another pod: refused, but in a pod's namespace that was joined, whose mounts are shared
 * within the pod alone. Closes both.
 */
static void put_on(int tree, int place, int root, const char *target)
{
    if (!held.inside && mount_is_shared(place))
        die("can't mount on \"%s\": it lies in a shared mount, so the mount would appear outside the pod", target);
    if (attach_tree(tree, place) < 0)
        die("can't mount on \"%s\": %s", target, mount_reason(errno));
    int found = open_in_root(root, target, O_PATH, 0);
    if (found < 0 || !same_mount(found, tree))
        die("can't mount on \"%s\": it was moved meanwhile", target);
    close(found);
    close(place);
    close(tree);
}

/* The mount point for a folder or for a file; missing ones are made. */
static int make_place(int root, const char *target, bool folder)
{
    if (folder) {
        int place = make_folders_in_root(root, target, 0755);
        if (place < 0)
            die_errno("can't make the mount point \"%s\"", target);
        return place;
    }
    int place = open_in_root(root, target, O_PATH, 0);
    if (place < 0 && errno == ENOENT) {
        char name[256];
        int parent = open_parent_in_root(root, target, name);
        if (parent < 0)
            die_errno("can't make the mount point \"%s\"", target);
        int file = openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
        if (file < 0 && errno != EEXIST)
            die_errno("can't make the mount point \"%s\"", target);
        if (file >= 0)
            close(file);
        close(parent);
        place = open_in_root(root, target, O_PATH, 0);
    }
    if (place < 0)
        die_errno("can't open the mount point \"%s\"", target);
    struct stat st;
    if (fstat(place, &st) < 0 || S_ISDIR(st.st_mode))
        die("can't mount on \"%s\": it is a folder, and what is to be mounted is none", target);
    return place;
}

/* A changed copy of what is mounted on the host becomes a mount of the pod. */
static void attach(int tree, const char *source, const struct step *step)
{
    const char *target = word_text(step, 3);
    struct mount_flags flags = { 0 };
    for (uint32_t i = 4; i < step->count; i++)
        parse_mount_flag(word_text(step, i), &flags);
    struct mount_change change = { .set = flags.attributes, .propagation = flags.propagation };
    if ((change.set || change.propagation) && change_mount(tree, TREE_RECURSIVE, change) < 0)
        die("can't mount \"%s\" on \"%s\" with its flags: %s", source, target, mount_reason(errno));
    struct stat st;
    if (fstat(tree, &st) < 0)
        die_errno("can't mount \"%s\"", source);
    int root = open_root(word_text(step, 2));
    put_on(tree, make_place(root, target, S_ISDIR(st.st_mode)), root, target);
    if (flags.must_be_shared) {
        int there = open_in_root(root, target, O_PATH, 0);
        if (there < 0 || !mount_is_shared(there))
            die("can't share \"%s\": it lies in a mount that is not shared on the host; make it one with mount --make-shared",
                source);
        close(there);
    }
    close(root);
}

void run_hold(const struct step *step)
{
    uint64_t slot = 0;
    parse_number(word_text(step, 1), 10, SLOTS - 1, &slot);
    if (slots[slot])
        close(slots[slot] - 1);
    const char *source = word_text(step, 2);
    slots[slot] = clone_tree(AT_FDCWD, source, strcmp(word_text(step, 3), "recursive") == 0, source) + 1;
}

void run_attach(const struct step *step)
{
    uint64_t slot = 0;
    parse_number(word_text(step, 1), 10, SLOTS - 1, &slot);
    if (!slots[slot])
        die("can't mount on \"%s\": nothing is held in slot %s", word_text(step, 3), word_text(step, 1));
    int tree = slots[slot] - 1;
    slots[slot] = 0;
    attach(tree, "the held tree", step);
}

void run_bind(const struct step *step)
{
    const char *source = word_text(step, 1);
    attach(clone_tree(AT_FDCWD, source, true, source), source, step);
}

/*
 * Options as container runtimes choose them, for layers that come from strangers: redirects and metadata
 * copies are neither made nor followed, since a trusted.overlay.* attribute in a layer could lead to
 * another file of a lower layer (filesystems/overlayfs.rst, "Metadata only copy up"); index is off because an
 * upper folder may be mounted again after a crash; and never `userxattr`: overlay's own attributes stay
 * where only the host's root can write them. volatile, because without it the end of every pod writes all
 * that is dirty on the host's file system to the disk (ovl_sync_fs), and what a pod writes outside its
 * volumes is not promised to outlive a power failure: the pod does not either.
 */
#define OVERLAY_OPTIONS "redirect_dir=nofollow,metacopy=off,index=off,volatile"

static int open_layer(const char *path, const char *what)
{
    int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        die_errno("can't mount the overlay: can't open its %s \"%s\"", what, path);
    return fd;
}

/*
 * The layers are given as numbers of open descriptors, looked up in /proc/self/fd as working directory:
 * no character of a path can be taken for an option, and 500 layers fit into the one page that mount(2)
 * takes.
 */
void run_overlay(const struct step *step)
{
    const char *root = word_text(step, 1);
    if (mkdir(root, 0755) < 0 && errno != EEXIST)
        die_errno("can't make the root \"%s\"", root);
    int target = open_root(root);
    int upper = open_layer(word_text(step, 2), "upper folder");
    int work = open_layer(word_text(step, 3), "work folder");
    if (mount_is_shared(target))
        die("can't mount the overlay on \"%s\": it lies in a shared mount, so the mount would appear outside the pod", root);

    uint32_t count = step->count - 4;
    int *lower = calloc(count, sizeof *lower);
    char options[4096];
    size_t used = (size_t)snprintf(options, sizeof options, OVERLAY_OPTIONS ",upperdir=%d,workdir=%d,lowerdir=",
                                   upper, work);
    if (!lower)
        die("can't mount the overlay: no memory");
    /* The plan has the lowest first, the kernel wants the highest first. */
    for (uint32_t i = 0; i < count; i++) {
        lower[i] = open_layer(word_text(step, step->count - 1 - i), "layer");
        used += (size_t)snprintf(options + used, sizeof options - used, "%s%d", i ? ":" : "", lower[i]);
        if (used >= sizeof options)
            die("can't mount the overlay: %u layers do not fit", count);
    }
    char place[32];
    snprintf(place, sizeof place, "%d", target);
    if (chdir("/proc/self/fd") < 0)
        die_errno("can't mount the overlay: can't open /proc/self/fd");
    if (mount("overlay", place, "overlay", 0, options) < 0) {
        if (errno == ENODEV)
            die("can't mount the overlay on \"%s\": the kernel has no overlay file system", root);
        die_errno("can't mount the overlay on \"%s\" (%u layers)", root, count);
    }
    if (chdir(held.folder) < 0)
        die_errno("can't go back to \"%s\"", held.folder);
    for (uint32_t i = 0; i < count; i++)
        close(lower[i]);
    free(lower);
    close(work);
    close(upper);
    close(target);
}

void run_bind_root(const struct step *step)
{
    const char *root = word_text(step, 1);
    int place = open_root(root);
    int tree = clone_tree(place, "", false, root);
    struct mount_change change = { .propagation = MS_PRIVATE };
    if (change_mount(tree, 0, change) < 0)
        die("can't mount the root \"%s\": %s", root, mount_reason(errno));
    if (mount_is_shared(place))
        die("can't mount the root \"%s\": it lies in a shared mount, so the mount would appear outside the pod", root);
    if (attach_tree(tree, place) < 0)
        die("can't mount the root \"%s\": %s", root, mount_reason(errno));
    close(tree);
    close(place);
}

/*
 * ROOT becomes the root of this mount namespace, and what was there before is gone from it: unlike chroot(2)
 * nothing that a process can do leads back (pivot_root(2), "pivot_root(".", ".")").
 */
void run_pivot(const struct step *step)
{
    const char *root = word_text(step, 1);
    int place = open_root(root);
    if (fchdir(place) < 0 || syscall(SYS_pivot_root, ".", ".") < 0)
        die_errno("can't make \"%s\" the root", root);
    if (umount2(".", MNT_DETACH) < 0)
        die_errno("can't take the old root away from \"%s\"", root);
    if (chdir("/") < 0)
        die_errno("can't change to the root");
    strcpy(held.folder, "/");
    close(place);
}

/* --- tmpfs --- */

static const char *const TMPFS_OPTIONS[] = { "mode", "size", "uid", "gid", "nr_inodes", NULL };

/* The next "name[=value]" of a list; false at its end. */
static bool next_option(const char **at, char name[32], char value[64])
{
    if (!**at)
        return false;
    size_t length = strcspn(*at, ",");
    size_t name_length = strcspn(*at, ",=");
    size_t value_length = name_length < length ? length - name_length - 1 : 0;
    snprintf(name, 32, "%.*s", name_length < 32 ? (int)name_length : 31, *at);
    snprintf(value, 64, "%.*s", value_length < 64 ? (int)value_length : 63, *at + name_length + (value_length > 0));
    *at += length + ((*at)[length] == ',');
    return true;
}

bool check_tmpfs_options(struct plan *plan, const char *options)
{
    char name[32], value[64];
    while (next_option(&options, name, value)) {
        if ((strcmp(name, "ro") == 0 || strcmp(name, "noexec") == 0) && !*value)
            continue;
        bool known = false;
        for (size_t i = 0; TMPFS_OPTIONS[i]; i++)
            known = known || strcmp(TMPFS_OPTIONS[i], name) == 0;
        if (!known || !*value || strlen(value) > 32)
            return plan_refuse(plan, "there is no option \"%s=%s\"", name, value);
    }
    return true;
}

/* A detached tmpfs; `options` were checked. */
static int make_tmpfs(const char *options, const char *target)
{
    int context = (int)syscall(NR_FSOPEN, "tmpfs", 1u /* FSOPEN_CLOEXEC */);
    if (context < 0)
        die("can't make a tmpfs for \"%s\": %s", target, mount_reason(errno));
    /* What the mount table shows as its source. */
    if (syscall(NR_FSCONFIG, context, CONFIG_SET_STRING, "source", "tmpfs", 0) < 0)
        die_errno("can't make a tmpfs for \"%s\"", target);
    uint64_t attributes = ATTR_NOSUID | ATTR_NODEV;
    char name[32], value[64];
    bool read_only = false;
    while (next_option(&options, name, value)) {
        if (strcmp(name, "ro") == 0)
            read_only = true;
        else if (strcmp(name, "noexec") == 0)
            attributes |= ATTR_NOEXEC;
        else if (syscall(NR_FSCONFIG, context, CONFIG_SET_STRING, name, value, 0) < 0)
            die_errno("can't make a tmpfs for \"%s\" with %s=%s", target, name, value);
    }
    if (read_only)
        attributes |= ATTR_READONLY;
    if (syscall(NR_FSCONFIG, context, CONFIG_CREATE, NULL, NULL, 0) < 0)
        die_errno("can't make a tmpfs for \"%s\"", target);
    int tree = (int)syscall(NR_FSMOUNT, context, 1u /* FSMOUNT_CLOEXEC */, attributes);
    if (tree < 0)
        die_errno("can't make a tmpfs for \"%s\"", target);
    close(context);
    return tree;
}

void run_tmpfs(const struct step *step)
{
    const char *target = word_text(step, 2);
    int root = open_root(word_text(step, 1));
    put_on(make_tmpfs(word_text(step, 3), target), make_place(root, target, true), root, target);
    close(root);
}

/* --- hiding and write protection --- */

/* The host's /dev/null, by a descriptor that is checked to be it: the image's may be a link to anything
 * (CVE-2025-31133). */
static int clone_null(void)
{
    struct stat st;
    int null = open("/dev/null", O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (null < 0 || fstat(null, &st) < 0)
        die_errno("can't mask paths: can't open /dev/null");
    if (!S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3))
        die("can't mask paths: /dev/null of the host is not the null device");
    int tree = clone_tree(null, "", false, "/dev/null");
    struct mount_change change = { .set = ATTR_READONLY | ATTR_NOSUID | ATTR_NOEXEC, .propagation = MS_PRIVATE };
    if (change_mount(tree, 0, change) < 0)
        die("can't mask paths: %s", mount_reason(errno));
    close(null);
    return tree;
}

/* An existing place, or -1 when there is nothing to protect. */
static int find_place(int root, const char *target)
{
    int place = open_in_root(root, target, O_PATH, 0);
    if (place < 0 && errno != ENOENT && errno != ENOTDIR)
        die_errno("can't open \"%s\"", target);
    return place;
}

void run_mask(const struct step *step)
{
    const char *target = word_text(step, 2);
    int root = open_root(word_text(step, 1));
    int place = find_place(root, target);
    struct stat st;
    if (place >= 0) {
        if (fstat(place, &st) < 0)
            die_errno("can't mask \"%s\"", target);
        put_on(S_ISDIR(st.st_mode) ? make_tmpfs("mode=0,size=0,nr_inodes=2,ro,noexec", target) : clone_null(), place, root,
               target);
    }
    close(root);
}

void run_readonly(const struct step *step)
{
    const char *target = word_text(step, 2);
    int root = open_root(word_text(step, 1));
    int place = find_place(root, target);
    if (place >= 0) {
        int tree = clone_tree(place, "", true, target);
        struct mount_change change = { .set = ATTR_READONLY, .propagation = MS_PRIVATE };
        if (change_mount(tree, TREE_RECURSIVE, change) < 0)
            die("can't make \"%s\" read-only: %s", target, mount_reason(errno));
        put_on(tree, place, root, target);
    }
    close(root);
}

/* A mount of its own, so that readonly-root passes it over. */
void run_writable(const struct step *step)
{
    const char *target = word_text(step, 2);
    int root = open_root(word_text(step, 1));
    int place = make_place(root, target, true);
    int tree = clone_tree(place, "", false, target);
    struct mount_change change = { .propagation = MS_PRIVATE };
    if (change_mount(tree, 0, change) < 0)
        die("can't keep \"%s\" writable: %s", target, mount_reason(errno));
    put_on(tree, place, root, target);
    close(root);
}

void run_readonly_root(const struct step *step)
{
    const char *path = word_text(step, 1);
    int root = open_root(path);
    struct mount_change change = { .set = ATTR_READONLY };
    if (change_mount(root, 0, change) < 0)
        die("can't make the root \"%s\" read-only: %s", path,
            errno == EINVAL ? "it is not a mount of its own" : mount_reason(errno));
    close(root);
}
