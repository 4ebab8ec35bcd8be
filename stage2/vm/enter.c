/* `vm enter APP PLAN-FD`: the caller's end of a command that the machine executes in an app. */
#define _GNU_SOURCE
#include "enter.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/die.h"
#include "common/numbers.h"
#include "host.h"
#include "run-vm.h"

/* How long a machine may take to boot. */
#define BOOT_MS 60000
#define STEP_MS 50

static int keeper;

static void connect_to_keeper(void)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = COMMAND_SOCKET };
    keeper = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (keeper < 0)
        die_errno("can't enter the pod");
    for (int tries = 0; connect(keeper, (struct sockaddr *)&address, sizeof address) < 0; tries++) {
        bool boots = (errno == ENOENT || errno == ECONNREFUSED) && access(POD_FILES "/init-ended", F_OK) < 0 &&
                     access(POD_FILES "/machine-failed", F_OK) < 0;
        if (!boots || tries == BOOT_MS / STEP_MS)
            die("can't enter the pod: its machine does not answer");
        usleep(STEP_MS * 1000);
    }
}

static void ask(const struct open_request *request, const int fds[4])
{
    char room[CMSG_SPACE(4 * sizeof(int))] = { 0 };
    struct iovec part = { .iov_base = (void *)request, .iov_len = sizeof *request };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room };
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(4 * sizeof(int));
    memcpy(CMSG_DATA(rights), fds, 4 * sizeof(int));
    if (sendmsg(keeper, &message, MSG_NOSIGNAL) != (ssize_t)sizeof *request)
        die_errno("can't enter the pod: its machine does not answer");
}

static void say_to_keeper(struct command_message message)
{
    if (send(keeper, &message, sizeof message, MSG_NOSIGNAL) < 0)
        return; /* it ends, and so do we */
}

static bool write_all(int fd, const char *data, size_t length)
{
    for (size_t done = 0; done < length;) {
        ssize_t part = write(fd, data + done, length - done);
        if (part < 0 && errno == EINTR)
            continue;
        if (part <= 0)
            return false;
        done += (size_t)part;
    }
    return true;
}

/* Of its own, so that input that nobody takes never stops the output. */
static void carry_input(int to)
{
    char data[8192];
    pid_t parent = getpid(), child = fork();
    if (child < 0)
        die_errno("can't enter the pod");
    if (child > 0)
        return;
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if (getppid() != parent)
        _exit(0);
    for (;;) {
        ssize_t got = read(STDIN_FILENO, data, sizeof data);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0 || !write_all(to, data, (size_t)got))
            _exit(0);
    }
}

static void take_signals(int signals)
{
    struct signalfd_siginfo info;
    while (read(signals, &info, sizeof info) == (ssize_t)sizeof info) {
        struct command_message message = { .type = FRAME_RESIZE };
        if (info.ssi_signo == SIGWINCH && own_terminals(&message.window))
            say_to_keeper(message);
        else if (info.ssi_signo != SIGWINCH && info.ssi_signo != SIGCHLD)
            say_to_keeper((struct command_message){ .type = FRAME_SIGNAL, .signal = info.ssi_signo });
    }
}

static void put_back(void)
{
    restore_terminal();
}

_Noreturn void run_enter(const char *app, const char *plan_fd)
{
    struct open_request request = { .kind = OPEN_COMMAND };
    uint64_t plan;
    uint32_t status;
    int pair[2] = { -1, -1 }, fds[4];
    sigset_t set;
    if (!parse_number(plan_fd, 10, 1 << 20, &plan) || strlen(app) >= sizeof request.name)
        die("can't enter the pod: usage: vm enter APP PLAN-FD");
    strcpy(request.name, app);
    connect_to_keeper();
    request.start.terminals = own_terminals(&request.start.window);
    if (request.start.terminals && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        die_errno("can't enter the pod");
    for (int fd = 0; fd < 3; fd++)
        fds[fd] = request.start.terminals & 1u << fd ? pair[1] : fd;
    fds[3] = (int)plan;
    sigemptyset(&set);
    for (const int *number = (const int[]){ SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH, 0 }; *number; number++)
        sigaddset(&set, *number);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    ask(&request, fds);
    if (pair[1] >= 0)
        close(pair[1]);
    before_death = put_back;
    if (request.start.terminals & 1) {
        raw_terminal();
        carry_input(pair[0]);
    }
    int terminal = pair[0];
    for (;;) {
        struct pollfd polled[3] = { { .fd = signals, .events = POLLIN },
                                    { .fd = terminal, .events = POLLIN },
                                    { .fd = keeper, .events = POLLIN } };
        if (poll(polled, 3, -1) < 0 && errno != EINTR)
            die_errno("can't enter the pod");
        if (polled[0].revents)
            take_signals(signals);
        if (polled[1].revents) {
            char data[8192];
            ssize_t got = read(terminal, data, sizeof data);
            if (got > 0)
                write_all(request.start.terminals & 2 ? STDOUT_FILENO : request.start.terminals & 4 ? STDERR_FILENO : STDIN_FILENO,
                          data, (size_t)got);
            else if (got == 0)
                terminal = -1;
            continue; /* all that is to be shown before the end */
        }
        if (polled[2].revents) {
            ssize_t got = recv(keeper, &status, sizeof status, MSG_WAITALL);
            restore_terminal();
            if (got != (ssize_t)sizeof status)
                die("can't go on in the pod: its machine has ended");
            exit((int)(status & 0xff));
        }
    }
}
