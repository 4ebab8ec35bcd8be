/* What /proc says about a process; a process is named by its pid and its start time, for pids come again. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Field 22 of /proc/PID/stat, in clock ticks since the boot; false when there is no such process. */
bool process_start_time(const char *pid, uint64_t *ticks);

/* "PID" or "PID:STARTTIME"; *ticks is 0 without one. */
bool parse_process(const char *text, pid_t *pid, uint64_t *ticks);

/* A whole small file, NUL-terminated; its length, or -1 with errno (EFBIG when it does not fit). */
ssize_t read_small_file(int folder, const char *path, char *into, size_t room);

/* Dies by SIGKILL when the environment's TSPOD_FAULT is `name`: crash tests. See src/sys/fault.ts. */
void fault_point(const char *name);
