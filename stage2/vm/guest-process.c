/* Streams between a process in the machine and the host. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "guest.h"

/* Of the pod's devpts, so that its name means something to who has it. */
static int open_terminal(int *slave)
{
    int locked = 0, number;
    char path[64];
    int master = open(TREE "/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (master < 0 || ioctl(master, TIOCSPTLCK, &locked) < 0 || ioctl(master, TIOCGPTN, &number) < 0)
        fail_errno("can't make a terminal");
    snprintf(path, sizeof path, TREE "/dev/pts/%d", number);
    *slave = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (*slave < 0)
        fail_errno("can't open a terminal");
    return master;
}

void resize_terminal(int terminal, const struct window *window)
{
    struct winsize size = { .ws_row = window->rows, .ws_col = window->columns };
    if (terminal >= 0)
        ioctl(terminal, TIOCSWINSZ, &size);
}

void open_streams(struct streams *streams, uint32_t channel, const struct start_request *request)
{
    streams->terminal = -1;
    for (int i = 0; i < 3; i++) {
        int pair[2];
        if (request->terminals & 1u << i) {
            static int slave;
            if (streams->terminal < 0) {
                streams->terminal = open_terminal(&slave);
                resize_terminal(streams->terminal, &request->window);
                mux_open(channel + CHANNEL_TERMINAL, streams->terminal, streams->terminal);
                streams->inner[i] = slave;
            } else
                streams->inner[i] = fcntl(slave, F_DUPFD_CLOEXEC, 3);
            continue;
        }
        if (i == 0 && request->terminals & START_NO_INPUT) {
            streams->inner[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
            continue;
        }
        if (pipe2(pair, O_CLOEXEC) < 0)
            fail_errno("can't make a pipe");
        int ours = pair[i == 0 ? 1 : 0];
        fcntl(ours, F_SETFL, O_NONBLOCK);
        mux_open(channel + (uint32_t)i, i == 0 ? -1 : ours, i == 0 ? ours : -1);
        streams->inner[i] = pair[i == 0 ? 0 : 1];
    }
}

void close_inner(struct streams *streams)
{
    for (int i = 0; i < 3; i++)
        close(streams->inner[i]);
}

/* In the process itself. */
void use_streams(const struct streams *streams)
{
    for (int i = 0; i < 3; i++)
        if (dup2(streams->inner[i], i) < 0)
            _exit(254);
}
