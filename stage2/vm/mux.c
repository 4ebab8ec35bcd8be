#define _GNU_SOURCE
#include "mux.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/die.h"

/* A queue over this is somebody's fault: streams are bounded by credit, and what else is sent is small. */
#define MOST_QUEUED (64u * 1024 * 1024)
#define FULL (512u * 1024)
/* A write of this size to a pipe that poll() calls ready does not block. */
#define PIECE 4096u

static int port = -1;
static bool ended;
static frame_handler *handle;
static struct pollfd *port_poll;
static struct channel *channels;
static unsigned channel_count;

/* What is to be sent. */
static char *queue;
static size_t queue_start, queue_length, queue_room;

/* What has come of a frame. */
static char *incoming;
static size_t incoming_length, incoming_room;

void mux_start(int fd, frame_handler *handler)
{
    port = fd;
    handle = handler;
}

static void append(const void *data, size_t length)
{
    if (queue_start > 0 && queue_start + queue_length + length > queue_room) {
        memmove(queue, queue + queue_start, queue_length);
        queue_start = 0;
    }
    if (queue_length + length > queue_room) {
        size_t room = (queue_length + length) * 2;
        if (queue_length + length > MOST_QUEUED || !(queue = realloc(queue, room)))
            die("can't talk to the other side of the machine: it does not read");
        queue_room = room;
    }
    memcpy(queue + queue_start + queue_length, data, length);
    queue_length += length;
}

static void send_parts(uint32_t type, uint32_t channel, const void *first, size_t first_length, const void *second,
                       size_t second_length)
{
    struct frame frame = { .channel = channel, .type = type, .length = (uint32_t)(first_length + second_length) };
    if (ended || first_length + second_length > MUX_MOST_MESSAGE)
        return;
    append(&frame, sizeof frame);
    if (first_length > 0)
        append(first, first_length);
    if (second_length > 0)
        append(second, second_length);
}

void mux_send(uint32_t type, uint32_t channel, const void *data, size_t length)
{
    send_parts(type, channel, data, length, NULL, 0);
}

void mux_send_named(uint32_t type, const char *name, const void *data, size_t length)
{
    send_parts(type, 0, name, strlen(name) + 1, data, length);
}

bool mux_is_full(void)
{
    return queue_length > FULL;
}

bool mux_is_flushed(void)
{
    return ended || queue_length == 0;
}

bool mux_has_ended(void)
{
    return ended;
}

struct channel *mux_find(uint32_t id)
{
    for (struct channel *channel = channels; channel; channel = channel->next)
        if (channel->id == id)
            return channel;
    return NULL;
}

struct channel *mux_open(uint32_t id, int in, int out)
{
    struct channel *channel = channel_count < MUX_MOST_CHANNELS && !mux_find(id) ? calloc(1, sizeof *channel) : NULL;
    if (!channel)
        return NULL;
    *channel = (struct channel){
        .next = channels, .id = id, .in = in, .out = out, .shared = in == out, .credit = MUX_WINDOW,
        .in_ended = in < 0, .out_ended = out < 0,
    };
    channels = channel;
    channel_count++;
    return channel;
}

static void end_in(struct channel *channel)
{
    if (channel->in >= 0 && (!channel->shared || channel->out < 0))
        close(channel->in);
    channel->in = -1;
    channel->in_ended = true;
}

static void end_out(struct channel *channel)
{
    if (channel->out >= 0) {
        if (!channel->shared || channel->in < 0)
            close(channel->out);
        else
            shutdown(channel->out, SHUT_WR);
    }
    channel->out = -1;
    channel->out_ended = true;
    channel->length = 0;
}

void mux_close(struct channel *channel)
{
    for (struct channel **at = &channels; *at; at = &(*at)->next) {
        if (*at != channel)
            continue;
        *at = channel->next;
        break;
    }
    end_in(channel);
    end_out(channel);
    free(channel->held);
    free(channel);
    channel_count--;
}

bool channel_is_read(const struct channel *channel)
{
    return channel->in_ended;
}

bool channel_is_written(const struct channel *channel)
{
    return channel->length == 0;
}

bool channel_is_drained(const struct channel *channel)
{
    return channel->in_ended && channel->out_ended && channel->length == 0;
}

bool mux_is_read(void)
{
    for (const struct channel *channel = channels; channel; channel = channel->next)
        if (channel->in >= 0)
            return false;
    return true;
}

bool mux_is_written(void)
{
    for (const struct channel *channel = channels; channel; channel = channel->next)
        if (channel->length > 0)
            return false;
    return true;
}

static void give_credit(struct channel *channel, uint32_t count)
{
    channel->owed += count;
    if (channel->owed < MUX_WINDOW / 4 && channel->length > 0)
        return;
    mux_send(FRAME_CREDIT, channel->id, &channel->owed, sizeof channel->owed);
    channel->owed = 0;
}

static void take_data(struct channel *channel, const char *data, size_t length)
{
    if (channel->out < 0) {
        give_credit(channel, (uint32_t)length);
        return;
    }
    if (!channel->held && !(channel->held = malloc(MUX_WINDOW)))
        die("can't keep what the machine's streams carry: no memory");
    /* More than it has credit for: it has broken the protocol, and loses that. */
    if (length > MUX_WINDOW - channel->length)
        length = MUX_WINDOW - channel->length;
    for (size_t done = 0; done < length;) {
        size_t at = (channel->start + channel->length) % MUX_WINDOW;
        size_t part = length - done < MUX_WINDOW - at ? length - done : MUX_WINDOW - at;
        memcpy(channel->held + at, data + done, part);
        channel->length += part;
        done += part;
    }
}

static void take_frame(const struct frame *frame, const char *data)
{
    struct channel *channel = mux_find(frame->channel);
    uint32_t number = 0;
    if (frame->length >= sizeof number)
        memcpy(&number, data, sizeof number);
    switch (frame->type) {
    case FRAME_DATA:
        if (channel)
            take_data(channel, data, frame->length);
        return;
    case FRAME_EOF:
        if (channel && channel->length > 0)
            channel->out_ended = true;
        else if (channel)
            end_out(channel);
        return;
    case FRAME_CREDIT:
        if (channel && frame->length == sizeof number)
            channel->credit = number > MUX_WINDOW - channel->credit ? MUX_WINDOW : channel->credit + number;
        return;
    case FRAME_STOP:
        if (channel)
            end_in(channel);
        return;
    default:
        handle(frame, data);
    }
}

/* Takes apart what has come. */
static void take_incoming(void)
{
    size_t at = 0;
    while (incoming_length - at >= sizeof(struct frame)) {
        struct frame frame;
        memcpy(&frame, incoming + at, sizeof frame);
        if (frame.length > MUX_MOST_MESSAGE)
            die("can't understand the other side of the machine: a message of %u bytes", frame.length);
        if (incoming_length - at - sizeof frame < frame.length)
            break;
        /* A NUL after it, so that text ends. */
        char *data = incoming + at + sizeof frame, after = data[frame.length];
        data[frame.length] = '\0';
        take_frame(&frame, data);
        data[frame.length] = after;
        at += sizeof frame + frame.length;
    }
    memmove(incoming, incoming + at, incoming_length - at);
    incoming_length -= at;
}

static void read_port(void)
{
    if (incoming_room - incoming_length < MUX_MOST_DATA * 2) {
        size_t room = incoming_room * 2 + MUX_MOST_DATA * 4;
        if (!(incoming = realloc(incoming, room)))
            die("can't take a message of the machine: no memory");
        incoming_room = room;
    }
    /* One byte stays free for the NUL. */
    ssize_t got = read(port, incoming + incoming_length, incoming_room - incoming_length - 1);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        ended = true;
        return;
    }
    incoming_length += (size_t)got;
    take_incoming();
}

static void write_port(void)
{
    ssize_t done = write(port, queue + queue_start, queue_length);
    if (done < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (done < 0) {
        ended = true;
        return;
    }
    queue_start += (size_t)done;
    queue_length -= (size_t)done;
}

static void read_channel(struct channel *channel)
{
    char data[MUX_MOST_DATA];
    size_t most = channel->credit < sizeof data ? channel->credit : sizeof data;
    ssize_t got = read(channel->in, data, most);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) { /* a terminal whose last user is gone says EIO */
        end_in(channel);
        mux_send(FRAME_EOF, channel->id, NULL, 0);
        return;
    }
    channel->credit -= (uint32_t)got;
    mux_send(FRAME_DATA, channel->id, data, (size_t)got);
}

static void write_channel(struct channel *channel)
{
    size_t part = MUX_WINDOW - channel->start < channel->length ? MUX_WINDOW - channel->start : channel->length;
    ssize_t done = write(channel->out, channel->held + channel->start, part < PIECE ? part : PIECE);
    if (done < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (done < 0) {
        /* Who writes it there learns that nobody reads. */
        mux_send(FRAME_STOP, channel->id, NULL, 0);
        give_credit(channel, (uint32_t)channel->length);
        end_out(channel);
        return;
    }
    channel->start = (channel->start + (size_t)done) % MUX_WINDOW;
    channel->length -= (size_t)done;
    give_credit(channel, (uint32_t)done);
    if (channel->length == 0 && channel->out_ended)
        end_out(channel);
}

size_t mux_poll(struct pollfd *fds, size_t used, size_t most)
{
    port_poll = NULL;
    if (!ended && used < most) {
        port_poll = &fds[used];
        fds[used++] = (struct pollfd){ .fd = port, .events = (short)(POLLIN | (queue_length > 0 ? POLLOUT : 0)) };
    }
    for (struct channel *channel = channels; channel; channel = channel->next) {
        channel->reading = channel->writing = NULL;
        if (channel->in >= 0 && channel->credit > 0 && !mux_is_full() && used < most) {
            channel->reading = &fds[used];
            fds[used++] = (struct pollfd){ .fd = channel->in, .events = POLLIN };
        }
        if (channel->out >= 0 && channel->length > 0 && used < most) {
            channel->writing = &fds[used];
            fds[used++] = (struct pollfd){ .fd = channel->out, .events = POLLOUT };
        }
    }
    return used;
}

void mux_ready(void)
{
    /* A frame may close channels: theirs first. */
    for (struct channel *channel = channels, *next; channel; channel = next) {
        next = channel->next;
        if (channel->writing && channel->writing->revents)
            write_channel(channel);
        if (channel->reading && channel->reading->revents && channel->in >= 0)
            read_channel(channel);
    }
    if (!port_poll)
        return;
    if (port_poll->revents & POLLOUT)
        write_port();
    if (port_poll->revents & (POLLIN | POLLHUP | POLLERR))
        read_port();
}
