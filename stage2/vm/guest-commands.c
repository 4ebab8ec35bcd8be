/* Connections with the sockets of the pod's init, and commands in its apps. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/close-fds.h"
#include "common/die.h"
#include "guest.h"

#define MOST_COMMANDS 32

struct command {
    pid_t pid; /* 0: this place is free */
    uint32_t channel;
    bool ended;
    uint32_t status;
    int terminal;
};
static struct command commands[MOST_COMMANDS];
pid_t pod_init;

/* Commands for an app that is about to start. */
#define WAIT_MS 10000
static struct waiting {
    struct waiting *next;
    uint32_t channel;
    int64_t until;
    size_t length;
    char data[];
} *waiting;

static void connect_socket(uint32_t channel, const char *name)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool fits = snprintf(address.sun_path, sizeof address.sun_path, TREE "/%s", name) < (int)sizeof address.sun_path;
    if (fd < 0 || !fits || connect(fd, (struct sockaddr *)&address, sizeof address) < 0 || !mux_open(channel, fd, fd)) {
        if (fd >= 0)
            close(fd);
        mux_send(FRAME_CLOSE, channel, NULL, 0);
    }
}

static bool read_small(const char *path, char *text, size_t room)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t got = fd < 0 ? -1 : read(fd, text, room - 1);
    if (fd >= 0)
        close(fd);
    text[got > 0 ? got : 0] = '\0';
    return got > 0;
}

/* Between its fork and its own root an app is in the pod's. */
static bool has_own_root(const char *pid)
{
    char path[64];
    struct stat own, pods;
    snprintf(path, sizeof path, "/proc/%d/root", pod_init);
    if (stat(path, &pods) < 0)
        return false;
    snprintf(path, sizeof path, "/proc/%.20s/root", pid);
    return stat(path, &own) == 0 && (own.st_dev != pods.st_dev || own.st_ino != pods.st_ino);
}

/* `PID:STARTTIME` of the child of the pod's init that has this number inside. */
static bool find_app(const char *app, char target[64])
{
    char path[512], inside[32], children[8192], text[4096];
    /* Until then it is not in its own root. */
    snprintf(path, sizeof path, TREE "/rkt/status/%s-started", app);
    if (access(path, F_OK) < 0)
        return false;
    snprintf(path, sizeof path, TREE "/rkt/status/%s-pid", app);
    if (strchr(app, '/') || !read_small(path, inside, sizeof inside))
        return false;
    inside[strcspn(inside, "\n")] = '\0';
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", pod_init, pod_init);
    if (!read_small(path, children, sizeof children))
        return false;
    for (char *save = NULL, *word = strtok_r(children, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
        snprintf(path, sizeof path, "/proc/%.20s/status", word);
        if (!read_small(path, text, sizeof text))
            continue;
        char *line = strstr(text, "\nNSpid:");
        if (!line)
            continue;
        line[1 + strcspn(line + 1, "\n")] = '\0';
        const char *last = strrchr(line, '\t');
        if (!last || strcmp(last + 1, inside) != 0)
            continue;
        if (!has_own_root(word))
            return false;
        snprintf(path, sizeof path, "/proc/%.20s/stat", word);
        if (!read_small(path, text, sizeof text))
            continue;
        /* Field 22, counted from behind the name, which may hold anything. */
        char *at = strrchr(text, ')');
        for (int field = 2; at && field < 22; field++)
            at = strchr(at + 1, ' ');
        if (!at)
            continue;
        at[1 + strcspn(at + 1, " \n")] = '\0';
        snprintf(target, 64, "%.20s:%.30s", word, at + 1);
        return true;
    }
    return false;
}

static void put_step(int fd, const char *const *words)
{
    uint32_t count = 0;
    while (words[count])
        count++;
    if (write(fd, &count, sizeof count) < 0)
        return;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t length = (uint32_t)strlen(words[i]);
        if (write(fd, &length, sizeof length) < 0 || write(fd, words[i], length + 1) < 0)
            return;
    }
}
#define STEP(fd, ...) put_step(fd, (const char *const[]){ __VA_ARGS__, NULL })

/* What nspawn's enter does on a host, here: into the app's cgroups and namespaces, then stage2 with the app plan. */
static int write_launch_plan(const char *app, const char *target, int app_plan)
{
    char start[64];
    int fd = memfd_create("launch-plan", 0);
    if (fd < 0 || write(fd, "TSPLAN1\n", 8) != 8)
        return -1;
    snprintf(start, sizeof start, "/proc/self/fd/%d", app_plan);
    STEP(fd, "program", program_name);
    STEP(fd, "join-cgroups", target);
    STEP(fd, "join-namespaces", target, "mount", "pid", "net", "uts", "ipc", "cgroup");
    STEP(fd, "supervise", "-", app);
    STEP(fd, "start", start);
    lseek(fd, 0, SEEK_SET);
    return fd;
}

static _Noreturn void become_command(const struct streams *streams, uint32_t terminals, int launch_plan, int app_plan)
{
    char number[16];
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setsid();
    use_streams(streams);
    for (int fd = 0; fd < 3; fd++)
        if (terminals & 1u << fd && ioctl(fd, TIOCSCTTY, 0) == 0)
            break;
    snprintf(number, sizeof number, "%d", launch_plan);
    if (keep_fds_at_exec((const int[]){ launch_plan, app_plan }, 2) == -1 && chdir("/") == 0)
        execl("/launch", "/launch", "--plan-fd", number, NULL);
    die_errno("can't enter the app");
}

static void refuse(uint32_t channel, const struct streams *streams, const char *app, const char *why)
{
    uint32_t status = EXIT_FAILED;
    dprintf(streams->inner[2], "%s: enter: app \"%s\" of the pod %s\n", program_name, app, why);
    for (size_t i = 0; i < MOST_COMMANDS; i++) {
        if (commands[i].pid != 0)
            continue;
        /* As one that has ended, so that what was said arrives before the status. */
        commands[i] = (struct command){ .pid = -1, .channel = channel, .ended = true, .status = status, .terminal = -1 };
        return;
    }
    mux_send(FRAME_STATUS, channel, &status, sizeof status);
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* False for one that has ended, or will not come. */
static bool wait_for_app(uint32_t channel, const struct open_request *request, const char *plan, size_t length)
{
    char path[512];
    snprintf(path, sizeof path, TREE "/rkt/status/%s", request->name);
    if (access(path, F_OK) == 0)
        return false;
    snprintf(path, sizeof path, TREE "/rkt/apps/%s", request->name);
    struct waiting *one = access(path, F_OK) < 0 ? NULL : malloc(sizeof *one + sizeof *request + length);
    if (!one)
        return false;
    *one = (struct waiting){ .next = waiting, .channel = channel, .until = now_ms() + WAIT_MS, .length = length };
    memcpy(one->data, request, sizeof *request);
    memcpy(one->data + sizeof *request, plan, length);
    waiting = one;
    return true;
}

bool commands_wait(void)
{
    return waiting != NULL;
}

static void start_command(uint32_t channel, const struct open_request *request, const char *plan, size_t length, bool is_late)
{
    struct streams streams;
    struct command *command = NULL;
    char target[64];
    bool is_there = find_app(request->name, target);
    if (!is_there && !is_late && wait_for_app(channel, request, plan, length))
        return;
    open_streams(&streams, channel, &request->start);
    for (size_t i = 0; i < MOST_COMMANDS && !command; i++)
        if (commands[i].pid == 0)
            command = &commands[i];
    if (!command || !is_there) {
        refuse(channel, &streams, request->name, command ? "does not run" : "can't be entered: too many commands");
        close_inner(&streams);
        return;
    }
    int app_plan = memfd_create("app-plan", 0);
    int launch_plan = app_plan < 0 ? -1 : write_launch_plan(request->name, target, app_plan);
    if (launch_plan < 0 || write(app_plan, plan, length) != (ssize_t)length || lseek(app_plan, 0, SEEK_SET) != 0)
        fail_errno("can't start a command");
    pid_t pid = fork();
    if (pid == 0)
        become_command(&streams, request->start.terminals, launch_plan, app_plan);
    close(app_plan);
    close(launch_plan);
    close_inner(&streams);
    if (pid < 0)
        fail_errno("can't start a command");
    *command = (struct command){ .pid = pid, .channel = channel, .terminal = streams.terminal };
}

void open_requested(uint32_t channel, const char *data, size_t length)
{
    struct open_request request;
    if (length < sizeof request)
        return;
    memcpy(&request, data, sizeof request);
    request.name[sizeof request.name - 1] = '\0';
    if (request.kind == OPEN_COMMAND)
        start_command(channel, &request, data + sizeof request, length - sizeof request, false);
    else
        connect_socket(channel, request.name);
}

static struct command *command_of(uint32_t channel)
{
    for (size_t i = 0; i < MOST_COMMANDS; i++)
        if (commands[i].pid != 0 && commands[i].channel == channel)
            return &commands[i];
    return NULL;
}

static void drop(struct command *command)
{
    for (uint32_t i = 0; i < CHANNELS_OF_COMMAND; i++) {
        struct channel *channel = mux_find(command->channel + i);
        if (channel)
            mux_close(channel);
    }
    command->pid = 0;
}

void close_requested(uint32_t id)
{
    struct command *command = command_of(id);
    struct channel *channel = mux_find(id);
    for (struct waiting **at = &waiting; *at; at = &(*at)->next)
        if ((*at)->channel == id) {
            struct waiting *gone = *at;
            *at = gone->next;
            free(gone);
            return;
        }
    if (command) {
        if (!command->ended)
            kill(command->pid, SIGKILL);
        drop(command);
    } else if (channel)
        mux_close(channel);
}

bool command_process_ended(pid_t pid, int status)
{
    for (size_t i = 0; i < MOST_COMMANDS; i++) {
        if (commands[i].pid != pid)
            continue;
        commands[i].ended = true;
        commands[i].status = (uint32_t)(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
        return true;
    }
    return false;
}

void command_signal(uint32_t channel, int number)
{
    struct command *command = command_of(channel);
    if (command && command->pid > 0 && !command->ended && number > 0 && number < 65)
        kill(command->pid, number);
}

void command_resize(uint32_t channel, const struct window *window)
{
    struct command *command = command_of(channel);
    if (command)
        resize_terminal(command->terminal, window);
}

static void try_again(void)
{
    struct waiting *list = waiting;
    waiting = NULL;
    while (list) {
        struct waiting *next = list->next;
        struct open_request request;
        memcpy(&request, list->data, sizeof request);
        char target[64];
        bool is_over = now_ms() > list->until;
        if (is_over || find_app(request.name, target)) {
            start_command(list->channel, &request, list->data + sizeof request, list->length, is_over);
            free(list);
        } else {
            list->next = waiting;
            waiting = list;
        }
        list = next;
    }
}

/* What it wrote goes first; who it left behind may hold its streams for as long as he likes. */
void finish_commands(void)
{
    try_again();
    for (size_t i = 0; i < MOST_COMMANDS; i++) {
        struct command *command = &commands[i];
        bool more = false;
        if (command->pid == 0 || !command->ended)
            continue;
        for (uint32_t c = CHANNEL_OUT; c < CHANNELS_OF_COMMAND; c++) {
            struct channel *channel = mux_find(command->channel + c);
            if (!channel || channel->in < 0)
                continue;
            struct pollfd polled = { .fd = channel->in, .events = POLLIN };
            if (poll(&polled, 1, 0) > 0 && polled.revents & POLLIN)
                more = true;
        }
        if (more)
            continue;
        mux_send(FRAME_STATUS, command->channel, &command->status, sizeof command->status);
        drop(command);
    }
}
