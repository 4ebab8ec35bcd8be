/*
 * The apps' standard streams. `inherit` costs nothing: the app writes where init would. Of the others init
 * holds the other end: `log` goes to the app's log and, the bytes as they are, to init's own stream; `stream`
 * and `tty` go to the log and to whoever is attached (attach.c). Whoever reads init's own stream slowly slows the
 * app down, as a pipe would; nothing piles up here, and nothing is lost.
 *
 * An app's end is not the end of its streams: what it wrote last may still wait for init's own stream to take it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "common/die.h"
#include "streams.h"

#define PIECE 32768
#define BLOCKING_PIECE 4096     /* PIPE_BUF: a pipe that is said to be writable takes so much at once */
#define LAST_READ (1024 * 1024) /* of what descendants still write when the app has ended */

enum { STDIN, STDOUT, STDERR, TERMINAL, PORTS };
static const char *const NAMES[PORTS] = { "stdin", "stdout", "stderr", "tty" };

/* Something that an app writes into, from its start until nothing more comes. */
struct source {
    struct source *next;
    struct watch watch;   /* our end; fd -1: not open */
    struct watch console; /* a copy of init's own stream, while that is full; -1 else */
    struct app *app;
    const char *name;  /* in the log */
    int number;        /* of init's own stream that gets it; -1: none */
    struct port *port; /* NULL: nobody can attach */
    bool watched;      /* not while `console` is: a closed pipe would be told over and over */
    bool ending;       /* the app has ended */
    size_t after_end;  /* bytes read since then */
    char *pending;     /* what init's own stream has not taken */
    size_t pending_at, pending_left;
    size_t filled; /* of `line` */
    char line[LINE];
};

struct streams {
    struct source *sources;
    struct log log;
    struct port ports[PORTS];
    int ends[3]; /* the app's, until the fork; the same one where it is a terminal */
    int master;  /* of its terminal, while it has one */
    struct winsize size;
};

/*
 * Sources that are over. They are used again and never freed: an event of this round may still name one.
 */
static struct source *spare;

/* Init's own output, as we write to it: never waiting, where that can be had without changing it for others. */
static struct console {
    bool known, gone, is_socket, waits;
    int fd;
} consoles[3];

static struct console *console_of(int number)
{
    struct console *console = &consoles[number];
    struct stat st;
    char path[32];
    if (console->known)
        return console;
    *console = (struct console){ .known = true, .fd = number, .waits = true };
    if (fstat(number, &st) < 0)
        return console;
    console->is_socket = S_ISSOCK(st.st_mode);
    if (console->is_socket) {
        console->waits = false;
    } else if (S_ISFIFO(st.st_mode) || isatty(number)) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", number);
        int own = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (own >= 0) {
            console->fd = own;
            console->waits = false;
        }
    }
    return console;
}

/* How much was taken; all where nobody takes it any more. */
static size_t write_console(int number, const char *bytes, size_t length)
{
    struct console *console = console_of(number);
    size_t done = 0;
    while (done < length && !console->gone) {
        size_t part = length - done;
        struct pollfd room = { .fd = console->fd, .events = POLLOUT };
        if (console->waits) {
            if (poll(&room, 1, 0) == 0)
                return done;
            if (part > BLOCKING_PIECE)
                part = BLOCKING_PIECE;
        }
        ssize_t written = console->is_socket ? send(console->fd, bytes + done, part, MSG_DONTWAIT | MSG_NOSIGNAL)
                                             : write(console->fd, bytes + done, part);
        if (written >= 0)
            done += (size_t)written;
        else if (errno == EAGAIN)
            return done;
        else if (errno != EINTR)
            console->gone = true;
    }
    return length;
}

static void take_lines(struct source *source, const char *bytes, size_t length)
{
    struct app *app = source->app;
    struct log *log = &app->streams->log;
    if (!app->log_file && !app->log_journal)
        return;
    while (length > 0) {
        const char *end = memchr(bytes, '\n', length);
        size_t part = end ? (size_t)(end - bytes) : length;
        if (source->filled == 0 && end && part <= LINE) {
            log_line(app, log, source->name, bytes, part, true);
            bytes += part + 1;
            length -= part + 1;
            continue;
        }
        size_t room = LINE - source->filled;
        size_t taken = part < room ? part : room;
        memcpy(source->line + source->filled, bytes, taken);
        source->filled += taken;
        bytes += taken;
        length -= taken;
        if (taken == part && end) {
            log_line(app, log, source->name, source->line, source->filled, true);
            source->filled = 0;
            bytes++;
            length--;
        } else if (source->filled == LINE && length > 0) {
            log_line(app, log, source->name, source->line, source->filled, false);
            source->filled = 0;
        }
    }
    log_flush(app, log);
}

static void forget_console(struct source *source)
{
    if (source->console.fd >= 0) {
        watch_remove(&source->console);
        close(source->console.fd);
        source->console.fd = -1;
    }
    source->pending_left = 0;
    free(source->pending);
    source->pending = NULL;
}

static void watch_source(struct source *source, bool watched)
{
    if (source->watch.fd < 0 || source->watched == watched)
        return;
    if (watched)
        watch_add(&source->watch, EPOLLIN);
    else
        watch_remove(&source->watch);
    source->watched = watched;
}

static void close_source(struct source *source)
{
    struct app *app = source->app;
    struct streams *streams = app->streams;
    if (source->watch.fd < 0)
        return;
    watch_source(source, false);
    if (source->watch.fd == streams->master)
        streams->master = -1;
    close(source->watch.fd);
    source->watch.fd = -1;
    if (source->filled > 0) {
        log_line(app, &streams->log, source->name, source->line, source->filled, true);
        log_flush(app, &streams->log);
    }
    source->filled = 0;
}

/* What is left of a source that is closed and whose last bytes are written. */
static void retire(struct source *source)
{
    struct source **at = &source->app->streams->sources;
    while (*at && *at != source)
        at = &(*at)->next;
    if (!*at)
        return;
    *at = source->next;
    source->next = spare;
    spare = source;
}

/* Keeps what init's own stream does not take now; until it has, nothing is read. */
static void wait_for_console(struct source *source, const char *rest, size_t length)
{
    source->pending = malloc(length);
    source->console.fd = fcntl(console_of(source->number)->fd, F_DUPFD_CLOEXEC, 3);
    if (!source->pending || source->console.fd < 0) {
        say("app \"%s\": output is lost: %s", source->app->name, strerror(errno));
        free(source->pending);
        source->pending = NULL;
        source->console.fd = -1;
        return;
    }
    memcpy(source->pending, rest, length);
    source->pending_at = 0;
    source->pending_left = length;
    watch_source(source, false);
    watch_add(&source->console, EPOLLOUT);
}

/* False when nothing more is to be read now. */
static bool read_piece(struct source *source)
{
    static char piece[PIECE];
    if (source->watch.fd < 0 || source->pending_left > 0)
        return false;
    ssize_t length = read(source->watch.fd, piece, sizeof piece);
    if (length < 0 && errno == EINTR)
        return true;
    /* EIO: a terminal that nobody has open any more. */
    if (length == 0 || (length < 0 && errno != EAGAIN)) {
        close_source(source);
        return false;
    }
    if (length < 0)
        return false;
    take_lines(source, piece, (size_t)length);
    if (source->port)
        port_output(source->port, piece, (size_t)length);
    if (source->number >= 0) {
        size_t taken = write_console(source->number, piece, (size_t)length);
        if (taken < (size_t)length)
            wait_for_console(source, piece + taken, (size_t)length - taken);
    }
    if (source->ending)
        source->after_end += (size_t)length;
    return true;
}

/* The app has ended: what is there now is read, what comes later is not. */
static void drain(struct source *source)
{
    while (read_piece(source) && source->after_end < LAST_READ)
        ;
    if (source->pending_left > 0)
        return;
    close_source(source);
    if (source->port)
        port_release(source->port);
    retire(source);
}

static void source_ready(struct watch *watch, uint32_t events)
{
    struct source *source = (struct source *)((char *)watch - offsetof(struct source, watch));
    (void)events;
    if (source->ending)
        drain(source);
    else
        read_piece(source);
}

static void console_ready(struct watch *watch, uint32_t events)
{
    struct source *source = (struct source *)((char *)watch - offsetof(struct source, console));
    (void)events;
    size_t taken = write_console(source->number, source->pending + source->pending_at, source->pending_left);
    source->pending_at += taken;
    source->pending_left -= taken;
    if (source->pending_left > 0)
        return;
    forget_console(source);
    if (source->ending)
        drain(source);
    else
        watch_source(source, true);
}

static struct streams *streams_of(struct app *app)
{
    if (app->streams)
        return app->streams;
    struct streams *streams = calloc(1, sizeof *streams);
    if (!streams)
        return NULL;
    streams->log.fd = -1;
    streams->master = -1;
    for (int i = 0; i < 3; i++)
        streams->ends[i] = -1;
    for (int i = 0; i < PORTS; i++)
        port_prepare(&streams->ports[i],
                     i == STDIN      ? PORT_INPUT
                     : i == TERMINAL ? PORT_TERMINAL
                                     : PORT_OUTPUT,
                     app, NAMES[i]);
    return app->streams = streams;
}

static bool has_terminal(const struct app *app)
{
    return app->modes[0] == MODE_TTY || app->modes[1] == MODE_TTY || app->modes[2] == MODE_TTY;
}

static bool open_ports(struct app *app, char error[256])
{
    struct port *ports = app->streams->ports;
    for (int i = 0; i < 3; i++)
        if (app->modes[i] == MODE_STREAM && !port_open(&ports[i], error))
            return false;
    return !has_terminal(app) || port_open(&ports[TERMINAL], error);
}

static bool add_source(struct app *app, int fd, int number)
{
    struct streams *streams = app->streams;
    struct source *source = spare;
    if (source)
        spare = source->next;
    else
        source = malloc(sizeof *source);
    if (!source)
        return false;
    bool terminal = number == TERMINAL, stream = !terminal && app->modes[number] == MODE_STREAM;
    source->next = streams->sources;
    source->watch = (struct watch){ source_ready, fd };
    source->console = (struct watch){ console_ready, -1 };
    source->app = app;
    source->name = NAMES[terminal ? STDOUT : number];
    /* Once in the journal is enough. */
    bool twice = app->log_journal && number <= STDERR && leads_to_journal(number);
    source->number = terminal || stream || twice ? -1 : number;
    source->port = terminal || stream ? &streams->ports[number] : NULL;
    source->ending = false;
    source->after_end = source->filled = source->pending_left = 0;
    source->pending = NULL;
    source->watched = false;
    streams->sources = source;
    watch_source(source, true);
    return true;
}

/* A pipe whose one end is the app's stream `number` and whose other is ours, never waiting. */
static bool open_pipe(struct app *app, int number, char error[256])
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0) {
        snprintf(error, 256, "can't make a pipe: %s", strerror(errno));
        return false;
    }
    int ours = number == STDIN ? ends[1] : ends[0];
    app->streams->ends[number] = number == STDIN ? ends[0] : ends[1];
    fcntl(ours, F_SETFL, O_NONBLOCK);
    if (number == STDIN) {
        port_start_input(&app->streams->ports[STDIN], ours);
    } else if (!add_source(app, ours, number)) {
        close(ours);
        snprintf(error, 256, "no memory");
        return false;
    }
    return true;
}

/* The app's end is opened through the master: no path can be put in between (CVE-2025-52565). */
static bool open_terminal(struct app *app, char error[256])
{
    struct streams *streams = app->streams;
    int unlock = 0, slave = -1, input = -1;
    int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (master >= 0 && ioctl(master, TIOCSPTLCK, &unlock) == 0)
        slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave >= 0)
        input = fcntl(master, F_DUPFD_CLOEXEC, 3);
    if (input < 0 || !add_source(app, master, TERMINAL)) {
        snprintf(error, 256, "can't make a terminal: %s", strerror(errno));
        if (input >= 0)
            close(input);
        if (slave >= 0)
            close(slave);
        if (master >= 0)
            close(master);
        return false;
    }
    if (streams->size.ws_row)
        ioctl(master, TIOCSWINSZ, &streams->size);
    streams->master = master;
    port_start_input(&streams->ports[TERMINAL], input);
    for (int i = 0; i < 3; i++)
        if (app->modes[i] == MODE_TTY)
            streams->ends[i] = slave;
    return true;
}

/* What runs before and after an app has its output, but neither its input nor its terminal. */
static enum mode mode_of(const struct app *app, int number)
{
    enum mode mode = app->modes[number];
    if (app->phase == PHASE_APP || (mode != MODE_TTY && number != STDIN))
        return mode;
    return number != STDIN && (app->log_file || app->log_journal) ? MODE_LOG : MODE_NULL;
}

bool open_streams(struct app *app, char error[256])
{
    if (!streams_of(app)) {
        snprintf(error, 256, "no memory");
        return false;
    }
    bool good = open_ports(app, error);
    for (int i = 0; i < 3 && good; i++) {
        enum mode mode = mode_of(app, i);
        if (mode == MODE_LOG || mode == MODE_STREAM)
            good = open_pipe(app, i, error);
        else if (mode == MODE_TTY && app->streams->ends[i] < 0)
            good = open_terminal(app, error);
    }
    if (!good)
        finish_streams(app);
    return good;
}

void take_streams(struct app *app)
{
    bool terminal = false;
    for (int i = 0; i < 3; i++) {
        enum mode mode = mode_of(app, i);
        int fd = app->streams->ends[i];
        if (mode == MODE_INHERIT)
            continue;
        if (mode == MODE_NULL)
            fd = open("/dev/null", (i == 0 ? O_RDONLY : O_WRONLY) | O_CLOEXEC);
        if (fd < 0 || dup2(fd, i) < 0)
            die_errno("can't start app \"%s\": can't open its standard streams", app->name);
        if (mode == MODE_TTY && !terminal && ioctl(i, TIOCSCTTY, 0) < 0)
            die_errno("can't start app \"%s\": can't give it its terminal", app->name);
        terminal = terminal || mode == MODE_TTY;
    }
    /* Init's own, which the flavor made for the pod; the app's session is to be the one that has it. */
    if (!terminal && mode_of(app, STDIN) == MODE_INHERIT && isatty(STDIN) && ioctl(STDIN, TIOCSCTTY, 1) < 0)
        say("app \"%s\": it has no job control: %s", app->name, strerror(errno));
}

void streams_started(struct app *app)
{
    int *ends = app->streams->ends;
    for (int i = 0; i < 3; i++) {
        for (int k = i + 1; k < 3; k++)
            if (ends[k] == ends[i])
                ends[k] = -1; /* the terminal */
        if (ends[i] >= 0)
            close(ends[i]);
        ends[i] = -1;
    }
}

void finish_streams(struct app *app)
{
    struct streams *streams = app->streams;
    if (!streams)
        return;
    streams_started(app);
    port_end_input(&streams->ports[STDIN]);
    port_end_input(&streams->ports[TERMINAL]);
    streams->master = -1;
    for (struct source *source = streams->sources, *next; source; source = next) {
        next = source->next;
        bool had_ended = source->ending;
        source->ending = true;
        if (!had_ended)
            drain(source);
    }
    if (app->phase == PHASE_APP)
        port_release(&streams->ports[STDIN]);
}

static void give_up_console(struct streams *streams)
{
    for (struct source *source = streams->sources, *next; source; source = next) {
        next = source->next;
        forget_console(source);
        source->number = -1;
        if (source->ending)
            drain(source);
    }
}

void free_streams(struct app *app)
{
    if (!app->streams)
        return;
    finish_streams(app);
    give_up_console(app->streams);
    for (int i = 0; i < PORTS; i++)
        port_close(&app->streams->ports[i]);
    log_close(&app->streams->log);
    free(app->streams);
    app->streams = NULL;
}

bool streams_are_written(bool by_force)
{
    bool written = true;
    for (struct app *app = pod.apps; app; app = app->next) {
        if (app->streams && by_force)
            give_up_console(app->streams);
        written = written && (!app->streams || !app->streams->sources);
    }
    return written;
}

bool resize_terminal(struct app *app, unsigned rows, unsigned columns, char error[256])
{
    if (!has_terminal(app)) {
        snprintf(error, 256, "it has no terminal");
        return false;
    }
    if (!streams_of(app)) {
        snprintf(error, 256, "no memory");
        return false;
    }
    app->streams->size = (struct winsize){ .ws_row = (unsigned short)rows, .ws_col = (unsigned short)columns };
    if (app->streams->master >= 0 && ioctl(app->streams->master, TIOCSWINSZ, &app->streams->size) < 0) {
        snprintf(error, 256, "can't resize its terminal: %s", strerror(errno));
        return false;
    }
    return true;
}

void flush_streams(void)
{
    for (struct app *app = pod.apps; app; app = app->next)
        free_streams(app);
}
