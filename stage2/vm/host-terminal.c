/* The caller's own terminal, where he has one. */
#define _GNU_SOURCE
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "host.h"

static struct termios before;
static int raw = -1;

bool terminal_window(int fd, struct window *window)
{
    struct winsize size;
    if (ioctl(fd, TIOCGWINSZ, &size) < 0)
        return false;
    *window = (struct window){ .rows = size.ws_row, .columns = size.ws_col };
    return true;
}

/* The bits of the standard streams that are terminals, and the size of the first. */
uint32_t own_terminals(struct window *window)
{
    uint32_t found = 0;
    for (int fd = 2; fd >= 0; fd--)
        if (isatty(fd) && terminal_window(fd, window))
            found |= 1u << fd;
    return found;
}

void raw_terminal(void)
{
    struct termios mode;
    if (tcgetattr(STDIN_FILENO, &before) < 0)
        return;
    mode = before;
    cfmakeraw(&mode);
    if (tcsetattr(STDIN_FILENO, TCSANOW, &mode) == 0)
        raw = STDIN_FILENO;
}

void restore_terminal(void)
{
    if (raw >= 0)
        tcsetattr(raw, TCSADRAIN, &before);
    raw = -1;
}
