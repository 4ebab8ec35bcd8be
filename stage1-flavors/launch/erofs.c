/*
 * Layers in EROFS form: a metadata image that points into the layer's tar as its external device. Since
 * Linux 6.12 both are mounted straight from the files; before, through loop devices that the kernel frees
 * with the mount. A layer is mounted where only the overlay needs it, and taken out of the pod's mount
 * table again: the overlay holds its own clone of it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/die.h"
#include "launch.h"

/* Others take free loop devices too: after so many lost races something else is wrong. */
#define LOOP_TRIES 64

static int open_part(const char *path, const char *layer)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        die_errno("can't mount the layer \"%s\": can't open \"%s\"", layer, path);
    struct stat st;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        die("can't mount the layer \"%s\": \"%s\" is no regular file", layer, path);
    return fd;
}

/* An open, read-only loop device on `file`; it is freed when the last that uses it is gone. */
static int attach_loop(int file, char name[32], const char *layer)
{
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    if (control < 0)
        die_errno("can't mount the layer \"%s\": can't open /dev/loop-control", layer);
    struct loop_config config = { .fd = (unsigned)file };
    config.info.lo_flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR;
    for (int tries = 0; tries < LOOP_TRIES; tries++) {
        int number = ioctl(control, LOOP_CTL_GET_FREE);
        if (number < 0)
            break;
        snprintf(name, 32, "/dev/loop%d", number);
        int device = open(name, O_RDONLY | O_CLOEXEC);
        if (device < 0)
            break;
        if (ioctl(device, LOOP_CONFIGURE, &config) == 0) {
            close(control);
            return device;
        }
        close(device);
        if (errno != EBUSY)
            break;
    }
    die_errno("can't mount the layer \"%s\": can't set up a loop device", layer);
}

/* As mount(2) has it: paths of descriptors, so that no character can be taken for an option. */
static int mount_erofs(const char *source, const char *device, const char *place)
{
    char options[64];
    snprintf(options, sizeof options, "device=%s", device);
    return mount(source, place, "erofs", MS_RDONLY | MS_NODEV, options);
}

void run_erofs(const struct step *step)
{
    const char *folder = word_text(step, 1);
    if (mkdir(folder, 0700) < 0 && errno != EEXIST)
        die_errno("can't make the mount point \"%s\"", folder);
    int target = open_root(folder);
    if (mount_is_shared(target))
        die("can't mount the layer on \"%s\": it lies in a shared mount, so the mount would appear outside the pod",
            folder);
    int meta = open_part(word_text(step, 2), folder);
    int tar = open_part(word_text(step, 3), folder);
    char place[40], source[40], device[40];
    snprintf(place, sizeof place, "/proc/self/fd/%d", target);
    if (strcmp(word_text(step, 4), "loop") == 0) {
        char name[32];
        int devices[2];
        devices[0] = attach_loop(meta, name, folder);
        snprintf(source, sizeof source, "%s", name);
        devices[1] = attach_loop(tar, name, folder);
        snprintf(device, sizeof device, "%s", name);
        if (mount_erofs(source, device, place) < 0)
            die_errno("can't mount the layer on \"%s\"", folder);
        close(devices[0]);
        close(devices[1]);
    } else {
        snprintf(source, sizeof source, "/proc/self/fd/%d", meta);
        snprintf(device, sizeof device, "/proc/self/fd/%d", tar);
        if (mount_erofs(source, device, place) < 0) {
            if (errno == ENODEV)
                die("can't mount the layer on \"%s\": the kernel has no EROFS", folder);
            if (errno == ENOTBLK)
                die("can't mount the layer on \"%s\": the kernel can't mount EROFS from files (Linux 6.12 is needed)",
                    folder);
            die_errno("can't mount the layer on \"%s\"", folder);
        }
    }
    close(tar);
    close(meta);
    close(target);
}

bool check_erofs(struct plan *plan, const struct step *step)
{
    const char *how = word_text(step, 4);
    return strcmp(how, "file") == 0 || strcmp(how, "loop") == 0 ||
           plan_refuse(plan, "\"%.64s\" is neither file nor loop", how);
}

/* Only what is mounted exactly there, in the launcher's own namespace. */
void run_unmount(const struct step *step)
{
    bool may_be_missing = step->count > 2;
    if (umount2(word_text(step, 1), MNT_DETACH | UMOUNT_NOFOLLOW) < 0 &&
        !(may_be_missing && (errno == EINVAL || errno == ENOENT)))
        die_errno("can't unmount \"%s\"", word_text(step, 1));
}
