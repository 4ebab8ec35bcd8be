/* The modes of `vm`. */
#pragma once

_Noreturn void run_host(const char *plan);
_Noreturn void run_guest(void);
/* Streams and status of a command in the machine of the pod whose folder is current. */
_Noreturn void run_enter(const char *app, const char *plan_fd);
