/*
 * One byte stream between a machine and its keeper on the host, carrying many: frames with a channel, and credit for
 * each channel, so that a slow reader of one never stops the others (docs/vm-agent.md, "The protocol"). Neither side
 * believes the other: every length is bounded before it is used.
 */
#pragma once
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MUX_VERSION 1u
/* Bytes of a stream that may be on their way to a reader who does not read. */
#define MUX_WINDOW (256u * 1024)
/* Of one frame. */
#define MUX_MOST_DATA (32u * 1024)
#define MUX_MOST_MESSAGE (4u * 1024 * 1024)
#define MUX_MOST_CHANNELS 256u

enum frame_type {
    FRAME_HELLO = 1, /* uint32 version */
    FRAME_FILE,      /* NAME NUL CONTENT: to the machine: a file of the pod; from it: one of rkt/ */
    FRAME_REMOVE,    /* NAME */
    FRAME_START,     /* struct start_request: all files have come */
    FRAME_DATA,
    FRAME_EOF,
    FRAME_CREDIT, /* uint32 bytes */
    FRAME_STOP,   /* who reads this channel is gone */
    FRAME_OPEN,   /* struct open_request */
    FRAME_CLOSE,  /* of a channel, or of all channels of a command */
    FRAME_STATUS, /* uint32: a command has ended */
    FRAME_RESIZE, /* struct window */
    FRAME_SIGNAL, /* uint32: for the pod's init, or for a command */
    FRAME_LOG,    /* NAME NUL BYTES */
    FRAME_END,    /* uint32 status, TEXT: what failed, or nothing */
    FRAME_POWER_OFF,
};

struct frame {
    uint32_t channel;
    uint32_t type;
    uint32_t length;
};

/* Channels of the pod's own streams; those of a command are the same from its own number on. */
enum { CHANNEL_IN, CHANNEL_OUT, CHANNEL_ERR, CHANNEL_TERMINAL, CHANNELS_OF_COMMAND };

struct window {
    uint16_t rows, columns;
};

/* Bit n: standard stream n is a terminal; nobody has anything to say to the pod. */
#define START_NO_INPUT 8u
struct start_request {
    uint32_t terminals;
    struct window window;
};

enum { OPEN_SOCKET, OPEN_COMMAND };
struct open_request {
    uint32_t kind;
    struct start_request start; /* of a command */
    char name[256];             /* a socket's path below the pod's tree, or an app */
    /* of a command: its app plan follows */
};

struct channel {
    struct channel *next;
    uint32_t id;
    int in, out; /* what is read here and sent; where what comes is written: -1 when that has ended */
    bool shared; /* `in` and `out` are one descriptor, a socket or a terminal */
    bool in_ended, out_ended, out_broken;
    uint32_t credit; /* that may still be sent */
    uint32_t owed;   /* written since the last credit given */
    char *held;
    size_t start, length;
    struct pollfd *reading, *writing;
};

/* What the agent does with frames that are not the streams' own. */
typedef void frame_handler(const struct frame *frame, const char *data);

void mux_start(int port, frame_handler *handler);
void mux_send(uint32_t type, uint32_t channel, const void *data, size_t length);
/* `name` and a NUL in front of the data. */
void mux_send_named(uint32_t type, const char *name, const void *data, size_t length);
/* More is queued than the other side has taken: what can wait should. */
bool mux_is_full(void);
/* All that was sent has left. */
bool mux_is_flushed(void);
/* The other side is gone. */
bool mux_has_ended(void);

struct channel *mux_open(uint32_t id, int in, int out);
struct channel *mux_find(uint32_t id);
/* Everything that was read has been sent and its end too; everything that came has been written. */
bool channel_is_drained(const struct channel *channel);
bool channel_is_read(const struct channel *channel);
/* All has been written that came, however much more may come. */
bool channel_is_written(const struct channel *channel);
void mux_close(struct channel *channel);
/* Of every channel. */
bool mux_is_read(void);
bool mux_is_written(void);

/* One round: fills `fds` from `used` on, and after poll() takes from there what was ready. */
size_t mux_poll(struct pollfd *fds, size_t used, size_t most);
void mux_ready(void);
