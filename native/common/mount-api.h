/*
 * The file-descriptor mount API (Linux 5.2, mount_setattr 5.12), declared here so that the programs build
 * with any libc: <sys/mount.h> and <linux/mount.h> contradict each other in some. All of these answer -1
 * with errno.
 */
#pragma once
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The numbers are the same on every architecture. */
#define NR_OPEN_TREE 428
#define NR_MOVE_MOUNT 429
#define NR_FSOPEN 430
#define NR_FSCONFIG 431
#define NR_FSMOUNT 432
#define NR_MOUNT_SETATTR 442

#define TREE_CLONE 1u
#define TREE_CLOEXEC 02000000u /* O_CLOEXEC */
#define TREE_RECURSIVE 0x8000u /* AT_RECURSIVE */
#define TREE_EMPTY_PATH 0x1000u

#define MOVE_FROM_EMPTY_PATH 0x04u
#define MOVE_TO_EMPTY_PATH 0x40u

#define CONFIG_SET_FLAG 0u
#define CONFIG_SET_STRING 1u
#define CONFIG_CREATE 6u

#define ATTR_READONLY 0x01u
#define ATTR_NOSUID 0x02u
#define ATTR_NODEV 0x04u
#define ATTR_NOEXEC 0x08u

struct mount_change {
    uint64_t set, clear, propagation, user_namespace;
};

static inline int open_tree_at(int fd, const char *path, unsigned flags)
{
    return (int)syscall(NR_OPEN_TREE, fd, path, flags | TREE_CLOEXEC);
}

/* The tree on `tree` becomes a mount on the place that `target` is open on. */
static inline int attach_tree(int tree, int target)
{
    return (int)syscall(NR_MOVE_MOUNT, tree, "", target, "", MOVE_FROM_EMPTY_PATH | MOVE_TO_EMPTY_PATH);
}

static inline int change_mount(int fd, unsigned flags, struct mount_change change)
{
    return (int)syscall(NR_MOUNT_SETATTR, fd, "", flags | TREE_EMPTY_PATH, &change, sizeof change);
}
