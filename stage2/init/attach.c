/*
 * The sockets where somebody attaches to a stream of an app: /rkt/attach/APP-{stdin,stdout,stderr,tty}, 0600,
 * outside every app's root, so only root of the host reaches them. What goes over them are the bytes themselves.
 *
 *   stdout, stderr  who is connected gets all output from then on
 *   stdin           one writer at a time; the next one is told `busy` and let go. When he ends his side
 *                   (shutdown), the app's input ends; when he goes away, the app waits for another
 *   tty             both; the input of all is one
 *
 * Everything that is held for somebody is held in his connection and goes with it (CVE-2025-64329). Who reads too
 * slowly is let go: an app is never kept waiting.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/die.h"
#include "streams.h"

#define FOLDER "/rkt/attach"
#define MOST 16              /* at one socket */
#define ROOM (1024 * 1024)   /* what one may be behind, beside what the kernel holds */
#define PIECE 4096

struct attached {
    struct watch watch; /* fd -1: it is over */
    struct port *port;
    struct attached *next;
    uint32_t events; /* that are watched */
    bool said_all;   /* he has ended his side */
    bool releasing;  /* gone when `out` is empty */
    char *out;       /* ROOM bytes; NULL: nothing waits */
    size_t out_at, out_left;
    size_t in_at, in_left;
    char in[PIECE];
};

/* Connections that are over: used again and never freed, for an event of this round may still name one. */
static struct attached *spare;

static void set_events(struct attached *client)
{
    bool input = !client->said_all && !client->releasing && client->in_left == 0 &&
                 (client->port->kind == PORT_OUTPUT || client->port->input >= 0);
    uint32_t events = (input ? EPOLLIN : 0u) | (client->out_left > 0 ? EPOLLOUT : 0u);
    if (events != client->events)
        watch_change(&client->watch, events);
    client->events = events;
}

static void let_go(struct attached *client)
{
    struct attached **at = &client->port->attached;
    if (client->watch.fd < 0)
        return;
    while (*at && *at != client)
        at = &(*at)->next;
    if (*at)
        *at = client->next;
    client->port->count--;
    watch_remove(&client->watch);
    close(client->watch.fd);
    free(client->out);
    client->out = NULL;
    client->watch.fd = -1;
    client->next = spare;
    spare = client;
}

/* False: he is gone. */
static bool send_rest(struct attached *client)
{
    while (client->out_left > 0) {
        ssize_t sent = send(client->watch.fd, client->out + client->out_at, client->out_left, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno == EAGAIN)
            return true;
        if (sent < 0) {
            let_go(client);
            return false;
        }
        client->out_at += (size_t)sent;
        client->out_left -= (size_t)sent;
    }
    free(client->out);
    client->out = NULL;
    if (client->releasing) {
        let_go(client);
        return false;
    }
    return true;
}

static void send_output(struct attached *client, const char *bytes, size_t length)
{
    if (client->releasing)
        return;
    while (client->out_left == 0 && length > 0) {
        ssize_t sent = send(client->watch.fd, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno == EAGAIN)
            break;
        if (sent < 0) {
            let_go(client);
            return;
        }
        bytes += sent;
        length -= (size_t)sent;
    }
    if (length == 0)
        return;
    if (!client->out) {
        client->out = malloc(ROOM);
        client->out_at = client->out_left = 0;
    }
    if (!client->out || client->out_left + length > ROOM) {
        let_go(client);
        return;
    }
    if (client->out_at + client->out_left + length > ROOM) {
        memmove(client->out, client->out + client->out_at, client->out_left);
        client->out_at = 0;
    }
    memcpy(client->out + client->out_at + client->out_left, bytes, length);
    client->out_left += length;
    set_events(client);
}

void port_output(struct port *port, const char *bytes, size_t length)
{
    for (struct attached *client = port->attached, *next; client; client = next) {
        next = client->next;
        send_output(client, bytes, length);
    }
}

static void forget_room(struct port *port)
{
    if (port->room.fd < 0)
        return;
    watch_remove(&port->room);
    close(port->room.fd);
    port->room.fd = -1;
}

static void close_input(struct port *port)
{
    forget_room(port);
    if (port->input >= 0)
        close(port->input);
    port->input = -1;
}

/* What he said goes to the app; the rest waits until the app has room. */
static void pass_input(struct attached *client)
{
    struct port *port = client->port;
    while (client->in_left > 0 && port->input >= 0) {
        ssize_t written = write(port->input, client->in + client->in_at, client->in_left);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0 && errno == EAGAIN) {
            if (port->room.fd < 0 && (port->room.fd = fcntl(port->input, F_DUPFD_CLOEXEC, 3)) >= 0)
                watch_add(&port->room, EPOLLOUT);
            break;
        }
        if (written < 0) {
            /* The app reads it no more. */
            close_input(port);
            let_go(client);
            return;
        }
        client->in_at += (size_t)written;
        client->in_left -= (size_t)written;
    }
    if (client->in_left == 0 && client->said_all && port->kind == PORT_INPUT) {
        close_input(port);
        let_go(client);
        return;
    }
    set_events(client);
}

static void room_ready(struct watch *watch, uint32_t events)
{
    struct port *port = (struct port *)((char *)watch - offsetof(struct port, room));
    (void)events;
    forget_room(port);
    for (struct attached *client = port->attached, *next; client; client = next) {
        next = client->next;
        pass_input(client);
    }
}

/* Both sides are closed. Asked anew: an event may be about who had this place before. */
static bool has_gone(const struct attached *client)
{
    struct pollfd state = { .fd = client->watch.fd };
    return poll(&state, 1, 0) > 0 && (state.revents & (POLLHUP | POLLERR));
}

static void hear(struct attached *client)
{
    ssize_t length = recv(client->watch.fd, client->in, sizeof client->in, MSG_DONTWAIT);
    if (length < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (length < 0 || (length == 0 && has_gone(client))) {
        let_go(client);
        return;
    }
    if (length == 0)
        client->said_all = true;
    else if (client->port->kind != PORT_OUTPUT) {
        client->in_at = 0;
        client->in_left = (size_t)length;
    }
    pass_input(client);
}

static void client_ready(struct watch *watch, uint32_t events)
{
    struct attached *client = (struct attached *)watch;
    if ((events & EPOLLOUT) && !send_rest(client))
        return;
    if ((events & EPOLLIN) && (client->events & EPOLLIN))
        hear(client);
    /* Gone, and nothing that he said is still to be read. */
    else if ((events & (EPOLLHUP | EPOLLERR)) && has_gone(client))
        let_go(client);
    else
        set_events(client);
}

/* Nothing is said where output is expected. */
static void refuse(int fd, bool busy)
{
    if (busy && send(fd, "busy\n", 5, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        say("can't tell who attaches that somebody else does: %s", strerror(errno));
    close(fd);
}

static void listener_ready(struct watch *watch, uint32_t events)
{
    struct port *port = (struct port *)((char *)watch - offsetof(struct port, listener));
    (void)events;
    int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    if (port->count >= (port->kind == PORT_INPUT ? 1 : MOST)) {
        refuse(fd, port->kind == PORT_INPUT);
        return;
    }
    struct attached *client = spare;
    if (client)
        spare = client->next;
    else
        client = malloc(sizeof *client);
    if (!client) {
        refuse(fd, false);
        return;
    }
    client->watch = (struct watch){ client_ready, fd };
    client->port = port;
    client->next = port->attached;
    client->events = 0;
    client->said_all = client->releasing = false;
    client->out = NULL;
    client->out_at = client->out_left = client->in_at = client->in_left = 0;
    port->attached = client;
    port->count++;
    watch_add(&client->watch, 0);
    set_events(client);
}

void port_prepare(struct port *port, enum port_kind kind, struct app *app, const char *name)
{
    *port = (struct port){
        .listener = { listener_ready, -1 },
        .kind = kind,
        .app = app,
        .name = name,
        .input = -1,
        .room = { room_ready, -1 },
    };
}

/* Made under a short name, for sun_path ends after 107 bytes; an app's name may be longer. */
bool port_open(struct port *port, char error[256])
{
    struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = FOLDER "/.new" };
    char path[512];
    if (port->listener.fd >= 0)
        return true;
    snprintf(path, sizeof path, FOLDER "/%s-%s", port->app->name, port->name);
    if (mkdir(FOLDER, 0700) < 0 && errno != EEXIST) {
        snprintf(error, 256, "can't make " FOLDER ": %s", strerror(errno));
        return false;
    }
    unlink(address.sun_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    mode_t mask = umask(0177);
    bool made = fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0 && listen(fd, MOST) == 0 &&
                rename(address.sun_path, path) == 0;
    umask(mask);
    if (!made) {
        snprintf(error, 256, "can't make its socket for %s: %s", port->name, strerror(errno));
        if (fd >= 0)
            close(fd);
        return false;
    }
    port->listener.fd = fd;
    watch_add(&port->listener, EPOLLIN);
    return true;
}

void port_start_input(struct port *port, int input)
{
    close_input(port);
    port->input = input;
    for (struct attached *client = port->attached, *next; client; client = next) {
        next = client->next;
        pass_input(client);
    }
}

void port_end_input(struct port *port)
{
    close_input(port);
    for (struct attached *client = port->attached; client; client = client->next) {
        client->in_left = 0;
        set_events(client);
    }
}

void port_release(struct port *port)
{
    for (struct attached *client = port->attached, *next; client; client = next) {
        next = client->next;
        client->releasing = true;
        if (send_rest(client))
            set_events(client);
    }
}

void port_close(struct port *port)
{
    char path[512];
    port_release(port);
    while (port->attached)
        let_go(port->attached);
    close_input(port);
    if (port->listener.fd < 0)
        return;
    watch_remove(&port->listener);
    close(port->listener.fd);
    port->listener.fd = -1;
    snprintf(path, sizeof path, FOLDER "/%s-%s", port->app->name, port->name);
    unlink(path);
}
