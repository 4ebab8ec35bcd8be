/*
 * The pod's sockets on the host. Who connects to one of the pod's init (control, attach) is connected with the same
 * one in the machine; who comes to the socket of commands brings his streams and what is to be executed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/die.h"
#include "enter.h"
#include "host.h"

#define MOST_LISTENERS 512
#define MOST_COMMANDS 32
#define FIRST_CHANNEL 64u

struct listener {
    const char *path, *inside; /* NULL: commands */
    int fd;
    bool opened;
    struct pollfd *polled;
};
static struct listener listeners[MOST_LISTENERS];
static size_t listener_count;

struct command {
    int socket; /* -1: this place is free */
    uint32_t channel;
    bool asked, has_status;
    uint32_t status;
    struct pollfd *polled;
};
static struct command commands[MOST_COMMANDS];
static uint32_t next_channel = FIRST_CHANNEL;

void listen_at(const char *path, const char *inside)
{
    if (listener_count == MOST_LISTENERS)
        die("can't listen at %s: too many sockets", path);
    listeners[listener_count++] = (struct listener){ .path = path, .inside = inside, .fd = -1 };
}

void listen_for_commands(const char *path)
{
    for (size_t i = 0; i < MOST_COMMANDS; i++)
        commands[i].socket = -1;
    listen_at(path, NULL);
}

void open_sockets(bool has_started)
{
    for (size_t i = 0; i < listener_count; i++) {
        if (listeners[i].opened || (!listeners[i].inside && !has_started))
            continue;
        listeners[i].opened = true;
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        if (strlen(listeners[i].path) >= sizeof address.sun_path) {
            say("can't listen at %s: the path is too long", listeners[i].path);
            continue;
        }
        strcpy(address.sun_path, listeners[i].path);
        unlink(address.sun_path);
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        /* Nobody else gets in between bind and chmod: connections are taken after listen. */
        if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || chmod(address.sun_path, 0600) < 0 ||
            listen(fd, 16) < 0)
            say("can't listen at %s: %s", listeners[i].path, strerror(errno));
        else
            listeners[i].fd = fd;
    }
}

void close_sockets(void)
{
    for (size_t i = 0; i < listener_count; i++)
        if (listeners[i].fd >= 0)
            unlink(listeners[i].path);
}

static void take_connection(struct listener *listener)
{
    int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    if (!listener->inside) {
        for (size_t i = 0; i < MOST_COMMANDS; i++)
            if (commands[i].socket < 0) {
                commands[i] = (struct command){ .socket = fd };
                return;
            }
        close(fd);
        return;
    }
    uint32_t id = next_channel;
    next_channel += CHANNELS_OF_COMMAND;
    if (!mux_open(id, fd, fd)) {
        close(fd);
        return;
    }
    struct open_request request = { .kind = OPEN_SOCKET };
    snprintf(request.name, sizeof request.name, "%s", listener->inside);
    mux_send(FRAME_OPEN, id, &request, sizeof request);
}

static void drop_command(struct command *command)
{
    if (command->asked && !command->has_status)
        mux_send(FRAME_CLOSE, command->channel, NULL, 0);
    for (uint32_t i = 0; command->asked && i < CHANNELS_OF_COMMAND; i++) {
        struct channel *channel = mux_find(command->channel + i);
        if (channel)
            mux_close(channel);
    }
    close(command->socket);
    command->socket = -1;
}

/* The whole of the app plan; the caller frees it. */
static char *read_plan(int fd, size_t *length)
{
    struct stat st;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > (off_t)(MUX_MOST_MESSAGE / 2))
        return NULL;
    char *bytes = malloc(sizeof(struct open_request) + (size_t)st.st_size);
    if (bytes && pread(fd, bytes + sizeof(struct open_request), (size_t)st.st_size, 0) != st.st_size) {
        free(bytes);
        return NULL;
    }
    *length = (size_t)st.st_size;
    return bytes;
}

static bool start_command(struct command *command)
{
    struct open_request request;
    char room[CMSG_SPACE(4 * sizeof(int))];
    struct iovec part = { .iov_base = &request, .iov_len = sizeof request };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room };
    int fds[4];
    if (recvmsg(command->socket, &message, MSG_CMSG_CLOEXEC) != (ssize_t)sizeof request)
        return false;
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    if (!rights || rights->cmsg_type != SCM_RIGHTS || rights->cmsg_len != CMSG_LEN(sizeof fds))
        return false;
    memcpy(fds, CMSG_DATA(rights), sizeof fds);
    command->channel = next_channel;
    next_channel += CHANNELS_OF_COMMAND;
    command->asked = true;
    size_t length = 0;
    char *plan = read_plan(fds[3], &length);
    close(fds[3]);
    request.kind = OPEN_COMMAND;
    request.name[sizeof request.name - 1] = '\0';
    bool terminal = false;
    for (int i = 0; i < 3; i++) {
        bool is_terminal = request.start.terminals & 1u << i;
        uint32_t id = command->channel + (is_terminal ? CHANNEL_TERMINAL : (uint32_t)i);
        /* All terminals are one. */
        if (is_terminal && terminal)
            close(fds[i]);
        else if (is_terminal)
            mux_open(id, fds[i], fds[i]);
        else
            mux_open(id, i == 0 ? fds[i] : -1, i == 0 ? -1 : fds[i]);
        terminal = terminal || is_terminal;
    }
    if (!plan)
        return false;
    memcpy(plan, &request, sizeof request);
    mux_send(FRAME_OPEN, command->channel, plan, sizeof request + length);
    free(plan);
    return true;
}

static void take_message(struct command *command)
{
    struct command_message message;
    if (!command->asked) {
        if (!start_command(command))
            drop_command(command);
        return;
    }
    ssize_t got = recv(command->socket, &message, sizeof message, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got != (ssize_t)sizeof message) {
        drop_command(command);
        return;
    }
    if (message.type == FRAME_RESIZE)
        mux_send(FRAME_RESIZE, command->channel, &message.window, sizeof message.window);
    else if (message.type == FRAME_SIGNAL)
        mux_send(FRAME_SIGNAL, command->channel, &message.signal, sizeof message.signal);
}

void command_ended(uint32_t channel, uint32_t status)
{
    for (size_t i = 0; i < MOST_COMMANDS; i++) {
        if (commands[i].socket < 0 || !commands[i].asked || commands[i].channel != channel)
            continue;
        commands[i].has_status = true;
        commands[i].status = status;
    }
}

/* Its status is the last thing that it hears. */
static void finish_command(struct command *command)
{
    for (uint32_t i = CHANNEL_OUT; i < CHANNELS_OF_COMMAND; i++) {
        struct channel *channel = mux_find(command->channel + i);
        if (channel && !channel_is_written(channel))
            return;
    }
    if (send(command->socket, &command->status, sizeof command->status, MSG_NOSIGNAL) < 0)
        say("can't tell how a command ended: %s", strerror(errno));
    drop_command(command);
}

void channel_closed(uint32_t id)
{
    struct channel *channel = mux_find(id);
    if (channel && id >= FIRST_CHANNEL)
        mux_close(channel);
}

size_t sockets_poll(struct pollfd *fds, size_t used, size_t most)
{
    for (size_t i = 0; i < listener_count; i++) {
        listeners[i].polled = NULL;
        if (listeners[i].fd < 0 || used == most)
            continue;
        listeners[i].polled = &fds[used];
        fds[used++] = (struct pollfd){ .fd = listeners[i].fd, .events = POLLIN };
    }
    for (size_t i = 0; i < MOST_COMMANDS; i++) {
        commands[i].polled = NULL;
        if (commands[i].socket < 0 || used == most)
            continue;
        commands[i].polled = &fds[used];
        fds[used++] = (struct pollfd){ .fd = commands[i].socket, .events = POLLIN };
    }
    return used;
}

void sockets_ready(void)
{
    for (size_t i = 0; i < listener_count; i++)
        if (listeners[i].polled && listeners[i].polled->revents)
            take_connection(&listeners[i]);
    for (size_t i = 0; i < MOST_COMMANDS; i++) {
        struct command *command = &commands[i];
        if (command->socket >= 0 && command->polled && command->polled->revents)
            take_message(command);
        if (command->socket >= 0 && command->has_status)
            finish_command(command);
    }
    /* A connection whose both directions have ended. */
    for (uint32_t id = FIRST_CHANNEL; id < next_channel; id += CHANNELS_OF_COMMAND) {
        struct channel *channel = mux_find(id);
        if (channel && channel->shared && channel_is_drained(channel)) {
            mux_send(FRAME_CLOSE, id, NULL, 0);
            mux_close(channel);
        }
    }
}
