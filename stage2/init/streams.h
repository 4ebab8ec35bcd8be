/* What streams.c, log.c and attach.c share: an app's streams, its log, and the sockets where one attaches. */
#pragma once
#include "init.h"

#define LINE 16384 /* a longer line is written in parts, marked P */

/* log.c */
struct log {
    int fd; /* -1: not open */
    uint64_t size;
    bool failing; /* it was told */
};
/* One line (whole) or a part of one; kept back until log_flush, which comes after each piece of output. */
void log_line(struct app *app, struct log *log, const char *stream, const char *text, size_t length, bool whole);
void log_flush(struct app *app, struct log *log);
void log_close(struct log *log);

/* attach.c */
enum port_kind { PORT_INPUT, PORT_OUTPUT, PORT_TERMINAL };

/* One socket in /rkt/attach and who is connected to it. */
struct port {
    struct watch listener; /* fd -1: not open */
    enum port_kind kind;
    struct app *app;
    const char *name; /* stdin, stdout, stderr, tty */
    struct attached *attached;
    unsigned count;
    int input;         /* where the app reads from: our end of its pipe or terminal; -1: it does not run */
    struct watch room; /* a copy of `input`, while that is full; -1 else */
};
void port_prepare(struct port *port, enum port_kind kind, struct app *app, const char *name);
/* Makes the socket where it is not there yet. False with *error set. */
bool port_open(struct port *port, char error[256]);
void port_close(struct port *port);
/* `input` is the port's from now on. */
void port_start_input(struct port *port, int input);
void port_end_input(struct port *port);
void port_output(struct port *port, const char *bytes, size_t length);
/* The app has ended: everybody gets what is still to be sent, then his connection is closed. */
void port_release(struct port *port);
