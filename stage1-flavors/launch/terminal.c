/*
 * `terminal`: who enters a pod from a terminal gets a terminal of the pod's own, and the caller's never comes in:
 * a program in the pod could type into it (TIOCSTI) or change it for good. The process that was started stays
 * outside with the caller's terminal in raw mode and carries bytes, window sizes and signals; a child goes on with
 * the plan. The child of `supervise`, which is in all of the pod's namespaces by then, opens the pair in the
 * pod's devpts, and its other end through the first one, so that no path can be put in between
 * (CVE-2025-52565), and sends the first one out.
 *
 * Of the caller's standard streams only those that are terminals are replaced: what goes to a file or a pipe goes
 * there byte for byte. Where none is, there is nothing to carry; only the session is a new one, so that
 * /dev/tty in the pod is not the caller's.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "common/close-fds.h"
#include "common/die.h"
#include "launch.h"

#define PIECE 4096
#define BEHIND_MS 200
#define LAST_READ (1024 * 1024) /* of what descendants still write when the command has ended */

/* Bytes on their way. */
struct way {
    char bytes[PIECE];
    size_t at, left;
};

static struct {
    pid_t child;
    int signals, channel, master; /* master -1: not here yet */
    int input, output;            /* of the caller's terminal; input -1: not a terminal, or over */
    bool raw;
    struct termios before;
    struct way in, out;
} relay;

/* ---- outside ---- */

static bool in_foreground(void)
{
    pid_t group = tcgetpgrp(relay.input);
    return group < 0 || group == getpgrp(); /* without job control there is no background */
}

static void make_raw(void)
{
    if (relay.raw || relay.input < 0 || relay.master < 0 || !in_foreground())
        return;
    struct termios raw = relay.before;
    cfmakeraw(&raw);
    relay.raw = tcsetattr(relay.input, TCSANOW, &raw) == 0;
}

static void restore(void)
{
    if (relay.raw)
        tcsetattr(relay.input, TCSANOW, &relay.before);
    relay.raw = false;
}

static void copy_size(int from, int to)
{
    struct winsize size;
    if (from >= 0 && to >= 0 && ioctl(from, TIOCGWINSZ, &size) == 0)
        ioctl(to, TIOCSWINSZ, &size);
}

/* An open file of our own, so that O_NONBLOCK is nobody else's. */
static int open_terminal_again(int fd)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int own = open(path, O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    return own >= 0 ? own : fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

static int receive_master(void)
{
    char byte;
    struct iovec data = { &byte, 1 };
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control };
    int fd = -1;
    if (recvmsg(relay.channel, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT) == 1) {
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        if (header && header->cmsg_type == SCM_RIGHTS && header->cmsg_len == CMSG_LEN(sizeof fd))
            memcpy(&fd, CMSG_DATA(header), sizeof fd);
    }
    close(relay.channel);
    relay.channel = -1;
    return fd;
}

/* False: nothing more can be read there. */
static bool fill(struct way *way, int fd)
{
    ssize_t length = read(fd, way->bytes, sizeof way->bytes);
    way->at = 0;
    way->left = length > 0 ? (size_t)length : 0;
    return length > 0 || (length < 0 && (errno == EAGAIN || errno == EINTR));
}

/* False: nobody takes it any more. */
static bool empty(struct way *way, int fd)
{
    ssize_t length = write(fd, way->bytes + way->at, way->left);
    if (length < 0)
        return errno == EAGAIN || errno == EINTR;
    way->at += (size_t)length;
    way->left -= (size_t)length;
    return true;
}

static bool ends_the_wait(int number)
{
    return number == SIGTERM || number == SIGHUP || number == SIGINT || number == SIGQUIT;
}

/* The command has ended: its last output is on its way to a terminal that may be slow, but not for ever. */
_Noreturn static void finish(int status)
{
    bool more = relay.master >= 0;
    for (size_t total = 0; more || relay.out.left > 0;) {
        if (relay.out.left == 0) {
            more = total < LAST_READ && fill(&relay.out, relay.master) && relay.out.left > 0;
            total += relay.out.left;
            continue;
        }
        struct pollfd wait[] = { { .fd = relay.output, .events = POLLOUT }, { .fd = relay.signals, .events = POLLIN } };
        struct signalfd_siginfo info;
        if (poll(wait, 2, -1) < 0 && errno != EINTR)
            break;
        if ((wait[1].revents & POLLIN) && read(relay.signals, &info, sizeof info) == sizeof info &&
            ends_the_wait((int)info.ssi_signo))
            break;
        if (wait[0].revents && !empty(&relay.out, relay.output))
            break;
    }
    restore();
    end_like_child(status);
}

static void take_signal(int number)
{
    int status;
    switch (number) {
    case SIGCHLD:
        if (waitpid(relay.child, &status, WNOHANG) == relay.child)
            finish(status);
        break;
    case SIGWINCH:
        copy_size(relay.input >= 0 ? relay.input : relay.output, relay.master);
        break;
    case SIGTSTP:
    case SIGTTIN:
    case SIGTTOU:
        restore();
        raise(SIGSTOP);
        /* fallthrough */
    case SIGCONT:
        make_raw();
        copy_size(relay.input >= 0 ? relay.input : relay.output, relay.master);
        break;
    default:
        kill(relay.child, number);
    }
}

_Noreturn static void carry(void)
{
    for (;;) {
        bool reads = relay.master >= 0 && relay.input >= 0 && relay.in.left == 0 && in_foreground();
        struct pollfd wait[] = {
            { .fd = relay.signals, .events = POLLIN },
            { .fd = relay.channel, .events = POLLIN },
            { .fd = relay.master,
              .events = (short)((relay.out.left == 0 ? POLLIN : 0) | (relay.in.left > 0 ? POLLOUT : 0)) },
            { .fd = reads ? relay.input : -1, .events = POLLIN },
            { .fd = relay.out.left > 0 ? relay.output : -1, .events = POLLOUT },
        };
        /* Its hang-up alone would be told over and over while its last output waits for the caller's terminal. */
        if (!wait[2].events)
            wait[2].fd = -1;
        /* A shell does not tell a job that runs that it is in the foreground again. */
        bool behind = relay.master >= 0 && relay.input >= 0 && !reads && relay.in.left == 0;
        if (poll(wait, 5, behind ? BEHIND_MS : -1) < 0 && errno != EINTR)
            die_errno("can't wait for the terminal");
        if (behind)
            make_raw();
        struct signalfd_siginfo info;
        if ((wait[0].revents & POLLIN) && read(relay.signals, &info, sizeof info) == sizeof info)
            take_signal((int)info.ssi_signo);
        if (wait[1].revents) {
            relay.master = receive_master();
            if (relay.master >= 0)
                fcntl(relay.master, F_SETFL, O_NONBLOCK);
            make_raw();
            continue;
        }
        if ((wait[2].revents & (POLLIN | POLLHUP | POLLERR)) && relay.out.left == 0 && !fill(&relay.out, relay.master)) {
            close(relay.master);
            relay.master = -1;
            relay.in.left = 0;
        }
        if (relay.master >= 0 && (wait[2].revents & POLLOUT) && !empty(&relay.in, relay.master))
            relay.in.left = 0;
        if (wait[3].revents && !fill(&relay.in, relay.input)) {
            /* It was hung up; the pod's end is, too, when we end. */
            relay.input = -1;
            relay.raw = false;
        }
        if (wait[4].revents && !empty(&relay.out, relay.output))
            relay.out.left = 0;
    }
}

static void restore_before_death(void)
{
    restore();
}

void run_terminal(const struct step *step)
{
    (void)step;
    held.apart = true;
    int output = isatty(1) ? 1 : isatty(2) ? 2 : isatty(0) ? 0 : -1;
    if (output < 0)
        return;
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        die_errno("can't make a terminal");
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    struct sigaction plain = { .sa_handler = SIG_DFL }, child_signal;
    sigaction(SIGCHLD, &plain, &child_signal);
    pid_t parent = getpid();
    relay.child = fork();
    if (relay.child < 0)
        die_errno("can't make a terminal");
    if (relay.child > 0) {
        close(ends[1]);
        relay.channel = ends[0];
        relay.master = -1;
        relay.signals = signalfd(-1, &all, SFD_CLOEXEC);
        relay.input = isatty(0) && tcgetattr(0, &relay.before) == 0 ? open_terminal_again(0) : -1;
        relay.output = open_terminal_again(output);
        if (relay.signals < 0 || relay.output < 0)
            die_errno("can't make a terminal");
        before_death = restore_before_death;
        /* The pod's lock above all, which the child lets go in time. */
        int kept[] = { relay.signals, relay.channel, relay.output, relay.input };
        if (close_all_but(kept, relay.input >= 0 ? 4 : 3) < 0)
            die_errno("can't make a terminal");
        carry();
    }
    close(ends[0]);
    held.relay = ends[1];
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
        die_errno("can't make a terminal");
    if (getppid() != parent)
        _exit(EXIT_FAILED);
    sigaction(SIGCHLD, &child_signal, NULL);
    sigprocmask(SIG_SETMASK, &before, NULL);
}

/* ---- inside ---- */

/* What lies at that path is the pod's to decide: only a multiplexer of a devpts will do. */
static int open_multiplexer(void)
{
    struct stat st;
    struct statfs fs;
    int master = open("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (master < 0)
        die_errno("can't make a terminal in the pod: can't open /dev/pts/ptmx");
    if (fstat(master, &st) < 0 || fstatfs(master, &fs) < 0)
        die_errno("can't make a terminal in the pod");
    if (!S_ISCHR(st.st_mode) || st.st_rdev != makedev(5, 2) || fs.f_type != DEVPTS_SUPER_MAGIC)
        die("can't make a terminal in the pod: its /dev/pts/ptmx is none of devpts");
    return master;
}

static void send_master(int master)
{
    char byte = 'M';
    struct iovec data = { &byte, 1 };
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = { 0 };
    struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control };
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof master);
    memcpy(CMSG_DATA(header), &master, sizeof master);
    if (sendmsg(held.relay, &message, MSG_NOSIGNAL) != 1)
        die_errno("can't make a terminal in the pod");
}

void take_terminal(void)
{
    if (!held.apart)
        return;
    if (setsid() < 0)
        die_errno("can't make a session");
    if (held.relay < 0)
        return;
    int unlock = 0, master = open_multiplexer();
    if (ioctl(master, TIOCSPTLCK, &unlock) < 0)
        die_errno("can't make a terminal in the pod");
    int slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0 || ioctl(slave, TIOCSCTTY, 0) < 0)
        die_errno("can't make a terminal in the pod");
    int callers = isatty(0) ? 0 : isatty(1) ? 1 : 2;
    struct termios mode;
    if (tcgetattr(callers, &mode) == 0) {
        /* Where the caller's terminal stays as it is, it adds the carriage returns itself. */
        if (callers != 0)
            mode.c_oflag &= ~(tcflag_t)OPOST;
        tcsetattr(slave, TCSANOW, &mode);
    }
    copy_size(callers, master);
    for (int fd = 0; fd < 3; fd++)
        if (isatty(fd) && dup2(slave, fd) < 0)
            die_errno("can't make a terminal in the pod");
    send_master(master);
    close(held.relay);
    close(master);
    close(slave);
}
