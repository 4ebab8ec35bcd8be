#define _GNU_SOURCE
#include "die.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

const char *program_name = "tspod";
void (*before_death)(void);

/* One write(2), so that lines of several processes don't mix; names in it may come from an image, so no
 * control characters reach the terminal. */
static void print_line(const char *format, va_list args, const char *reason)
{
    char line[2048];
    size_t room = sizeof line - 1;
    int length = snprintf(line, room, "%s: ", program_name);
    size_t used = (size_t)length < room ? (size_t)length : room - 1;
    length = vsnprintf(line + used, room - used, format, args);
    if (length > 0)
        used = used + (size_t)length < room ? used + (size_t)length : room - 1;
    if (reason) {
        length = snprintf(line + used, room - used, ": %s", reason);
        if (length > 0)
            used = used + (size_t)length < room ? used + (size_t)length : room - 1;
    }
    for (size_t i = 0; i < used; i++)
        if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
            line[i] = '?';
    line[used++] = '\n';
    while (write(STDERR_FILENO, line, used) < 0 && errno == EINTR)
        ;
}

_Noreturn static void end(void)
{
    if (before_death)
        before_death();
    _exit(EXIT_FAILED);
}

void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_line(format, args, NULL);
    va_end(args);
    end();
}

void die_errno(const char *format, ...)
{
    const char *reason = strerror(errno);
    va_list args;
    va_start(args, format);
    print_line(format, args, reason);
    va_end(args);
    end();
}

void say(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_line(format, args, NULL);
    va_end(args);
}
