/*
 * Numbers from outside: digits of the base and nothing else (no sign, no space, no prefix), and a bound.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

/* An id that can be given away: -1 means "none" to the kernel (CVE-2024-40635 was an id out of range). */
#define ID_MAX UINT64_C(4294967294)

bool parse_number(const char *text, int base, uint64_t most, uint64_t *number);
bool is_digits(const char *text);
