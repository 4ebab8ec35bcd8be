/*
 * The one way in which the C programs fail: a line `PROGRAM: <what failed>: <why>` on standard error and
 * exit status 254. Nothing here is undone by hand: what was begun (mounts, namespaces, locks) is the
 * kernel's to take back when the process ends.
 */
#pragma once
#include <stdarg.h>
#include <stdbool.h>

#define EXIT_FAILED 254

/* The prefix of every message. */
extern const char *program_name;

/* Called once with no arguments just before a failed program ends; NULL for nothing. */
extern void (*before_death)(void);

_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same with ": <text of errno>" at the end. */
_Noreturn void die_errno(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A line that is not the end. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
