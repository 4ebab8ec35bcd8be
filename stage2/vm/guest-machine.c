/* The machine's own file systems and modules, and the tree in which the pod's init finds itself. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/die.h"
#include "guest.h"

#define PORT "tspod.0"
/* A device appears when its driver has been loaded; this is long. */
#define WAIT_STEPS 200
#define WAIT_US 50000

static void mount_or_fail(const char *source, const char *target, const char *type, unsigned long flags, const char *options)
{
    if (mkdir(target, 0755) < 0 && errno != EEXIST)
        fail_errno("can't make %s", target);
    if (mount(source, target, type, flags, options) < 0)
        fail_errno("can't mount %s (%s) on %s", source, type, target);
}

static bool read_text(const char *path, char *text, size_t room)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, room - 1);
    if (fd >= 0)
        close(fd);
    if (got < 0)
        return false;
    text[got] = '\0';
    text[strcspn(text, "\n")] = '\0';
    return true;
}

static void write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    /* What a kernel does not have is missed where it is needed. */
    if (fd >= 0 && write(fd, text, strlen(text)) < 0)
        say("can't write \"%s\" to %s: %s", text, path, strerror(errno));
    if (fd >= 0)
        close(fd);
}

static void load_modules(void)
{
    char line[256];
    FILE *order = fopen("/modules/order", "re");
    while (order && fgets(line, sizeof line, order)) {
        line[strcspn(line, "\n")] = '\0';
        int fd = open(line, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST))
            say("can't load %s: %s", line, strerror(errno));
        if (fd >= 0)
            close(fd);
    }
    if (order)
        fclose(order);
}

void set_up_machine(void)
{
    struct rlimit files = { .rlim_cur = 1024, .rlim_max = 524288 };
    umask(022);
    mount_or_fail("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount_or_fail("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount_or_fail("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=755");
    mount_or_fail("cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount_or_fail("pod", POD, "tmpfs", MS_NODEV, "mode=755,size=90%");
    load_modules();
    if (setrlimit(RLIMIT_NOFILE, &files) < 0)
        fail_errno("can't set the limit of open files");
    for (const char *const *name = (const char *const[]){ "+cpu", "+memory", "+pids", "+io", "+cpuset", NULL }; *name; name++)
        write_text("/sys/fs/cgroup/cgroup.subtree_control", *name);
    if (mkdir("/sys/fs/cgroup/pod", 0755) < 0)
        fail_errno("can't make the pod's cgroup");
}

/* Of `/sys/class/CLASS`, the entry whose file `attribute` has this text; "" if there is none. */
static bool find_device(const char *class, const char *attribute, const char *text, char name[256])
{
    char path[512], found[256];
    struct dirent *entry;
    DIR *dir = opendir(class);
    bool is_found = false;
    while (dir && !is_found && (entry = readdir(dir))) {
        snprintf(path, sizeof path, "%s/%.200s/%s", class, entry->d_name, attribute);
        is_found = read_text(path, found, sizeof found) && strcmp(found, text) == 0;
        if (is_found)
            snprintf(name, 256, "/dev/%.200s", entry->d_name);
    }
    if (dir)
        closedir(dir);
    return is_found;
}

static void wait_for_device(const char *class, const char *attribute, const char *text, char name[256])
{
    for (int i = 0; i < WAIT_STEPS; i++) {
        if (find_device(class, attribute, text, name))
            return;
        usleep(WAIT_US);
    }
    fail("the machine has no device \"%s\"", text);
}

int open_port(void)
{
    char name[256];
    wait_for_device("/sys/class/virtio-ports", "name", PORT, name);
    int fd = open(name, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        fail_errno("can't open %s", name);
    return fd;
}

static void make_folders(char *path)
{
    for (char *at = path + 1; (at = strchr(at, '/')); *at++ = '/') {
        *at = '\0';
        if (mkdir(path, 0755) < 0 && errno != EEXIST)
            fail_errno("can't make %s", path);
    }
}

void take_file(const char *data, size_t length)
{
    char path[1024];
    size_t name = strnlen(data, length);
    if (name == length || snprintf(path, sizeof path, POD "/%s", data) >= (int)sizeof path)
        fail("a file of the pod has no good name");
    make_folders(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    size_t size = length - name - 1;
    if (fd < 0 || write(fd, data + name + 1, size) != (ssize_t)size)
        fail_errno("can't write %s", path);
    close(fd);
}

/* The launcher, with this process's own streams but what it says: that is the host's to hear. */
static void launch(const char *plan)
{
    char number[16];
    char path[512];
    snprintf(path, sizeof path, POD "/%.400s", plan);
    int status, fd = open(path, O_RDONLY);
    if (fd < 0)
        fail_errno("can't read %s", path);
    snprintf(number, sizeof number, "%d", fd);
    int said[2];
    char text[512] = "";
    if (pipe2(said, O_CLOEXEC) < 0)
        fail_errno("can't start the launcher");
    pid_t pid = fork();
    if (pid == 0) {
        dup2(said[1], STDERR_FILENO);
        if (chdir(POD) == 0)
            execl("/launch", "/launch", "--plan-fd", number, NULL);
        _exit(EXIT_FAILED);
    }
    close(fd);
    close(said[1]);
    /* A line that fits into a pipe. */
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    ssize_t got = read(said[0], text, sizeof text - 1);
    close(said[0]);
    if (pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return;
    text[got > 0 ? got : 0] = '\0';
    text[strcspn(text, "\n")] = '\0';
    size_t prefix = strlen(program_name);
    bool has_prefix = strncmp(text, program_name, prefix) == 0 && strncmp(text + prefix, ": ", 2) == 0;
    fail("%s", *text ? text + (has_prefix ? prefix + 2 : 0) : "the launcher failed");
}

void carry_out(const struct step *step)
{
    const char *verb = word_text(step, 0);
    const char *first = step->count > 1 ? word_text(step, 1) : "", *second = step->count > 2 ? word_text(step, 2) : "";
    char path[512], device[256];
    snprintf(path, sizeof path, POD "/%.400s/", second);
    if (strcmp(verb, "scratch") == 0) {
        wait_for_device("/sys/block", "serial", first, device);
        make_folders(path);
        if (mount(device, path, "ext4", MS_NODEV | MS_NOATIME, NULL) < 0)
            fail_errno("can't mount the disk %s", first);
    } else if (strcmp(verb, "layer") == 0) {
        char data[256], options[300] = "";
        snprintf(path, sizeof path, POD "/%.400s/", word_text(step, 3));
        wait_for_device("/sys/block", "serial", first, device);
        if (strcmp(second, "-") != 0) {
            wait_for_device("/sys/block", "serial", second, data);
            snprintf(options, sizeof options, "device=%s", data);
        }
        make_folders(path);
        if (mount(device, path, "erofs", MS_RDONLY | MS_NODEV, options) < 0)
            fail_errno("can't mount layer %s", first);
    } else if (strcmp(verb, "share") == 0) {
        make_folders(path);
        if (mount(first, path, "virtiofs", 0, NULL) < 0)
            fail_errno("can't mount the host's folders");
    } else if (strcmp(verb, "up") == 0)
        bring_up(first);
    else if (strcmp(verb, "interface") == 0)
        rename_interface(first, second);
    else if (strcmp(verb, "address") == 0)
        add_address(first, second);
    else if (strcmp(verb, "route") == 0)
        add_route(first, second, word_text(step, 3));
    else if (strcmp(verb, "log") == 0)
        watch_log(first);
    else if (strcmp(verb, "launch") == 0)
        launch(first);
}

static const struct {
    const char *name;
    unsigned major, minor;
} DEVICES[] = { { "null", 1, 3 }, { "zero", 1, 5 }, { "full", 1, 7 }, { "random", 1, 8 }, { "urandom", 1, 9 }, { "tty", 5, 0 } };

static void bind_program(const char *from, const char *to)
{
    int fd = open(to, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
    if (fd < 0 || close(fd) < 0 || mount(from, to, NULL, MS_BIND, NULL) < 0 ||
        mount(NULL, to, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID, NULL) < 0)
        fail_errno("can't give the pod its program %s", from);
}

void prepare_tree(void)
{
    static const char *const FOLDERS[] = { "", "/proc", "/sys", "/opt", "/etc", "/usr", "/tmp", "/rkt", "/rkt/status", "/rkt/logs",
                                           "/rkt/attach", "/rkt/apps" };
    char path[256];
    for (size_t i = 0; i < sizeof FOLDERS / sizeof *FOLDERS; i++) {
        snprintf(path, sizeof path, TREE "%s", FOLDERS[i]);
        if (mkdir(path, 0755) < 0 && errno != EEXIST)
            fail_errno("can't make %s", path);
    }
    if (mount(TREE, TREE, NULL, MS_BIND, NULL) < 0)
        fail_errno("can't make the pod's tree");
    mount_or_fail("dev", TREE "/dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=4m");
    for (size_t i = 0; i < sizeof DEVICES / sizeof *DEVICES; i++) {
        snprintf(path, sizeof path, TREE "/dev/%s", DEVICES[i].name);
        if (mknod(path, S_IFCHR | 0666, makedev(DEVICES[i].major, DEVICES[i].minor)) < 0 || chmod(path, 0666) < 0)
            fail_errno("can't make %s", path);
    }
    mount_or_fail("devpts", TREE "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5");
    mount_or_fail("shm", TREE "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
    bind_program("/stage2", TREE "/stage2");
    bind_program("/stage2", TREE "/init");
    bind_program("/launch", TREE "/launch");
}

void enter_tree(const char *hostname)
{
    write_text("/sys/fs/cgroup/pod/cgroup.procs", "0");
    if (unshare(CLONE_NEWCGROUP) < 0 || sethostname(hostname, strlen(hostname)) < 0)
        fail_errno("can't make the pod");
    mount_or_fail("proc", TREE "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount_or_fail("sysfs", TREE "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, NULL);
    mount_or_fail("cgroup2", TREE "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount_or_fail("mqueue", TREE "/dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    /* The initramfs can't be pivoted away from; what is moved over it can. */
    if (chdir(TREE) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
        fail_errno("can't enter the pod's tree");
}
