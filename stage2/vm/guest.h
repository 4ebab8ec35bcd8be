/* PID 1 of a pod's machine: docs/vm-agent.md, "In the machine". */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/plan.h"
#include "mux.h"

/* Where the pod's files lie; the names of FRAME_FILE are below it. */
#define POD "/pod"
/* The pod's own tree, which its init sees as /. */
#define TREE POD "/tree"

/* Ends the machine; the host learns why. */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void fail_errno(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* guest-machine.c: the kernel's own file systems, modules, the port; the pod's mounts. */
void set_up_machine(void);
int open_port(void);
void carry_out(const struct step *step);
void take_file(const char *data, size_t length);
void prepare_tree(void);
/* In the child that becomes init: the rest of the tree, and into it. */
void enter_tree(const char *hostname);

/* guest-net.c */
void bring_up(const char *name);
void rename_interface(const char *mac, const char *name);
void add_address(const char *name, const char *cidr);
void add_route(const char *name, const char *cidr, const char *gateway);

/* guest-process.c: what runs in the machine with streams of the host's. */
struct streams {
    int inner[3]; /* for the process */
    int terminal; /* the master of a terminal, or -1 */
};
void open_streams(struct streams *streams, uint32_t channel, const struct start_request *request);
void close_inner(struct streams *streams);
void use_streams(const struct streams *streams);
void resize_terminal(int terminal, const struct window *window);

/* guest-commands.c */
void open_requested(uint32_t channel, const char *data, size_t length);
void close_requested(uint32_t channel);
bool command_process_ended(pid_t pid, int status);
void command_signal(uint32_t channel, int number);
void command_resize(uint32_t channel, const struct window *window);
void finish_commands(void);
/* For an app that is about to start. */
bool commands_wait(void);
extern pid_t pod_init;

/* guest-files.c: what the pod's init writes. */
void watch_files(void);
void watch_log(const char *app);
size_t files_poll(struct pollfd *fds, size_t used, size_t most);
void files_ready(void);
/* Everything that is there by now has been sent. */
void flush_files(void);
