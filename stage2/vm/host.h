/* The keeper of a machine on the host: docs/vm-agent.md, "On the host". The parts of `vm host`. */
#pragma once
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/plan.h"
#include "mux.h"

/* Where a pod's files of its init lie, in the pod's folder: the same as under every flavor with an init. */
#define POD_FILES "stage1/rootfs/rkt"
#define MOST_POLLED 1024

struct machine {
    pid_t qemu;
    bool qemu_ended;
    int qemu_status;
    pid_t server; /* of files; 0: none */
    bool server_ended;
    int server_status;
    bool started, ended; /* FRAME_HELLO, FRAME_END */
    int status;
    bool interactive;
    int64_t stop_ms, deadline;
};
extern struct machine machine;

int64_t now_ms(void);

/* host-files.c: what the machine says about the pod. */
void send_pod_file(const char *path, const char *name);
void take_pod_file(const char *data, size_t length, bool removed);
void log_for(const char *app, uint64_t most, unsigned kept);
void take_log(const char *data, size_t length);
void write_failure(const char *text, const char *console, size_t length);

/* host-start.c: QEMU and what it needs. Numbers of descriptors replace the words @port@, @share@, @console@ and what the
 * plan names; @folder@ is the pod's folder. */
void start_machine(struct plan *plan, int *port, int *console, int *errors);
void end_machine(void);

/* host-sockets.c: who comes to the pod's sockets. */
void listen_at(const char *path, const char *inside);
void listen_for_commands(const char *path);
/* The pod's init takes connections now; an app can be entered. */
void open_sockets(bool has_started);
size_t sockets_poll(struct pollfd *fds, size_t used, size_t most);
void sockets_ready(void);
void command_ended(uint32_t channel, uint32_t status);
void channel_closed(uint32_t channel);
void close_sockets(void);

/* host-terminal.c */
uint32_t own_terminals(struct window *window);
void raw_terminal(void);
void restore_terminal(void);
bool terminal_window(int fd, struct window *window);
