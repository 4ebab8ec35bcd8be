/*
 * QEMU and the file server of the pod's volumes. They die with this process, have no terminal and none of its signals,
 * and get by descriptor what they could not open by name as the user that they run as.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/close-fds.h"
#include "common/die.h"
#include "common/numbers.h"
#include "host.h"

#define MOST_WORDS 512
#define MOST_PASSED 64
#define SHARE_SOCKET "machine-share"

static uint64_t user, group;
static int passed[MOST_PASSED];
static size_t passed_count;

static int pass(int fd)
{
    if (fd < 0 || passed_count == MOST_PASSED)
        die_errno("can't start the machine: no descriptor");
    return passed[passed_count++] = fd;
}

static void become_child(const int *keep, size_t count)
{
    sigset_t none;
    sigemptyset(&none);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 || setsid() < 0 || sigprocmask(SIG_SETMASK, &none, NULL) < 0)
        die_errno("can't start the machine");
    if (keep_fds_at_exec(keep, count) != -1)
        die_errno("can't pass descriptors to the machine");
}

static void nothing_as_input(void)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0)
        die_errno("can't start the machine");
}

/* `text` with every `mark` replaced. */
static char *replaced(const char *text, const char *mark, const char *with)
{
    char *result = strdup(text), *at, *next;
    while (result && (at = strstr(result, mark))) {
        if (asprintf(&next, "%.*s%s%s", (int)(at - result), result, with, at + strlen(mark)) < 0)
            next = NULL;
        free(result);
        result = next;
    }
    if (!result)
        die("can't start the machine: no memory");
    return result;
}

static char *with_numbers(const char *text, const char *const *names, const int *numbers, size_t count)
{
    char *result = strdup(text);
    for (size_t i = 0; i < count && result; i++) {
        char mark[64], number[16];
        snprintf(mark, sizeof mark, "@%s@", names[i]);
        snprintf(number, sizeof number, "%d", numbers[i]);
        char *next = replaced(result, mark, number);
        free(result);
        result = next;
    }
    if (!result)
        die("can't start the machine: no memory");
    return result;
}

/* virtiofsd listens; QEMU gets the connection. Its name is gone before anything of the machine runs. */
static int start_server(const struct step *step, int errors)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = SHARE_SOCKET };
    char *words[MOST_WORDS], option[32], folder[4096];
    uint32_t used = 0;
    if (!getcwd(folder, sizeof folder))
        die_errno("can't start the machine: the pod's folder has no name");
    int listener = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
    unlink(SHARE_SOCKET);
    if (listener < 0 || client < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(listener, 1) < 0 || connect(client, (struct sockaddr *)&address, sizeof address) < 0)
        die_errno("can't start the file server of the machine's volumes");
    unlink(SHARE_SOCKET);
    snprintf(option, sizeof option, "--fd=%d", listener);
    for (uint32_t i = 1; i < step->count && used < MOST_WORDS - 2; i++)
        words[used++] = replaced(word_text(step, i), "@folder@", folder);
    words[used++] = option;
    words[used] = NULL;
    pid_t parent = getpid();
    machine.server = fork();
    if (machine.server < 0)
        die_errno("can't start the file server of the machine's volumes");
    if (machine.server == 0) {
        become_child(&listener, 1);
        if (getppid() != parent)
            _exit(EXIT_FAILED);
        nothing_as_input();
        dup2(errors, STDERR_FILENO);
        execv(words[0], words);
        die_errno("can't execute %s", words[0]);
    }
    close(listener);
    return pass(client);
}

static int open_tap(const char *name)
{
    struct ifreq request = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &request) < 0)
        die_errno("can't give the machine its network: %s", name);
    return pass(fd);
}

static void join_network(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, CLONE_NEWNET) < 0)
        die_errno("can't enter the pod's network %s", path);
    close(fd);
}

static void pair(int sockets[2], int type)
{
    if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, sockets) < 0)
        die_errno("can't start the machine");
}

void start_machine(struct plan *plan, int *port, int *console, int *errors)
{
    const char *names[MOST_PASSED];
    int numbers[MOST_PASSED], ports[2], consoles[2], said[2];
    size_t count = 0;
    const struct step *qemu = NULL;
    pair(ports, SOCK_STREAM);
    pair(consoles, SOCK_STREAM);
    if (pipe2(said, O_CLOEXEC) < 0)
        die_errno("can't start the machine");
    names[count] = "port", numbers[count++] = pass(ports[1]);
    names[count] = "console", numbers[count++] = pass(consoles[1]);
    for (size_t i = 0; i < plan->count; i++) {
        const struct step *step = &plan->steps[i];
        const char *verb = word_text(step, 0);
        if (count == MOST_PASSED)
            die("can't start the machine: too many descriptors");
        if (strcmp(verb, "user") == 0) {
            if (!parse_number(word_text(step, 1), 10, ID_MAX, &user) || !parse_number(word_text(step, 2), 10, ID_MAX, &group))
                die("can't start the machine: who it runs as is no number");
        } else if (strcmp(verb, "network-namespace") == 0)
            join_network(word_text(step, 1));
        else if (strcmp(verb, "tap") == 0)
            names[count] = word_text(step, 1), numbers[count++] = open_tap(word_text(step, 1));
        else if (strcmp(verb, "open") == 0) {
            bool writes = strcmp(word_text(step, 2), "rw") == 0;
            int fd = open(word_text(step, 3), (writes ? O_RDWR : O_RDONLY) | O_CLOEXEC);
            if (fd < 0)
                die_errno("can't give the machine %s", word_text(step, 3));
            names[count] = word_text(step, 1), numbers[count++] = pass(fd);
        } else if (strcmp(verb, "share") == 0)
            names[count] = "share", numbers[count++] = start_server(step, said[1]);
        else if (strcmp(verb, "qemu") == 0)
            qemu = step;
    }
    if (!qemu || qemu->count > MOST_WORDS)
        die("can't start the machine: its plan does not say how");
    char *words[MOST_WORDS];
    for (uint32_t i = 1; i < qemu->count; i++)
        words[i - 1] = with_numbers(word_text(qemu, i), names, numbers, count);
    words[qemu->count - 1] = NULL;
    pid_t parent = getpid();
    machine.qemu = fork();
    if (machine.qemu < 0)
        die_errno("can't start the machine");
    if (machine.qemu == 0) {
        gid_t groups[1] = { (gid_t)group };
        nothing_as_input();
        dup2(said[1], STDERR_FILENO);
        become_child(passed, passed_count);
        if (user != 0 && (setgroups(1, groups) < 0 || setresgid((gid_t)user, (gid_t)user, (gid_t)user) < 0 ||
                          setresuid((uid_t)user, (uid_t)user, (uid_t)user) < 0))
            die_errno("can't start the machine as an unprivileged user");
        /* A change of user forgets it. */
        if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
            die_errno("can't start the machine");
        if (getppid() != parent)
            _exit(EXIT_FAILED);
        execv(words[0], words);
        die_errno("can't execute %s", words[0]);
    }
    for (size_t i = 0; i < passed_count; i++)
        close(passed[i]);
    close(said[1]);
    *port = ports[0];
    *console = consoles[0];
    *errors = said[0];
}

void end_machine(void)
{
    if (machine.qemu > 0 && !machine.qemu_ended) {
        kill(machine.qemu, SIGKILL);
        while (waitpid(machine.qemu, &machine.qemu_status, 0) < 0 && errno == EINTR)
            ;
        machine.qemu_ended = true;
    }
    if (machine.server > 0 && !machine.server_ended) {
        kill(machine.server, SIGKILL);
        while (waitpid(machine.server, &machine.server_status, 0) < 0 && errno == EINTR)
            ;
        machine.server_ended = true;
    }
}
