/* What `vm enter` and the machine's keeper say to each other on the socket of commands. */
#pragma once
#include <stdint.h>

#include "mux.h"

/* Of the pod's folder. */
#define COMMAND_SOCKET "machine-commands"

/*
 * First `struct open_request` with four descriptors: the standard streams (one end of a socket pair where a stream is a
 * terminal) and the app plan. Then any number of these; the answer is the command's status, uint32.
 */
struct command_message {
    uint32_t type; /* FRAME_RESIZE or FRAME_SIGNAL */
    struct window window;
    uint32_t signal;
};
