#define _GNU_SOURCE
#include "plan.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "die.h"

static const char MAGIC[8] = { 'T', 'S', 'P', 'L', 'A', 'N', '1', '\n' };

bool plan_refuse(struct plan *plan, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(plan->error, sizeof plan->error, format, args);
    va_end(args);
    return false;
}

static uint32_t read_uint32(const unsigned char *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/*
 * One walk over the bytes. With `plan->steps` NULL it only counts, so that the arrays are allocated once
 * and never larger than the bytes justify: a word takes at least 5 bytes, a step at least 9.
 */
static bool walk(struct plan *plan, const unsigned char *bytes, size_t length, size_t *words)
{
    size_t at = sizeof MAGIC, steps = 0, used = 0;
    while (at < length) {
        if (length - at < 4)
            return plan_refuse(plan, "it ends within step %zu", steps + 1);
        uint32_t count = read_uint32(bytes + at);
        at += 4;
        if (count == 0 || count > PLAN_MAX_WORDS)
            return plan_refuse(plan, "step %zu has %u words", steps + 1, count);
        if (steps == PLAN_MAX_STEPS)
            return plan_refuse(plan, "it has more than %u steps", PLAN_MAX_STEPS);
        if (plan->steps)
            plan->steps[steps] = (struct step){ .count = count, .words = plan->words + used };
        for (uint32_t i = 0; i < count; i++) {
            if (length - at < 5)
                return plan_refuse(plan, "it ends within step %zu", steps + 1);
            uint32_t size = read_uint32(bytes + at);
            at += 4;
            if (size > length - at - 1)
                return plan_refuse(plan, "it ends within step %zu", steps + 1);
            if (bytes[at + size] != '\0')
                return plan_refuse(plan, "a word of step %zu has no NUL at its end", steps + 1);
            if (plan->words)
                plan->words[used] = (struct word){ .text = (const char *)bytes + at, .length = size };
            used++;
            at += (size_t)size + 1;
        }
        steps++;
    }
    plan->count = steps;
    *words = used;
    return true;
}

bool plan_parse(struct plan *plan, const void *bytes, size_t length)
{
    *plan = (struct plan){ 0 };
    if (length > PLAN_MAX_BYTES)
        return plan_refuse(plan, "it is larger than %u bytes", PLAN_MAX_BYTES);
    if (length < sizeof MAGIC || memcmp(bytes, MAGIC, sizeof MAGIC) != 0)
        return plan_refuse(plan, "it is no launch plan of this version");
    size_t words;
    if (!walk(plan, bytes, length, &words))
        return false;
    if (plan->count == 0)
        return plan_refuse(plan, "it has no steps");
    plan->steps = calloc(plan->count, sizeof *plan->steps);
    plan->words = calloc(words, sizeof *plan->words);
    if (!plan->steps || !plan->words) {
        plan_free(plan);
        return plan_refuse(plan, "no memory");
    }
    return walk(plan, bytes, length, &words);
}

void plan_free(struct plan *plan)
{
    free(plan->steps);
    free(plan->words);
    plan->steps = NULL;
    plan->words = NULL;
    plan->count = 0;
}

char *plan_read(struct plan *plan, int fd)
{
    struct stat st;
    *plan = (struct plan){ 0 };
    if (fstat(fd, &st) < 0) {
        plan_refuse(plan, "it can't be read: %s", strerror(errno));
        return NULL;
    }
    size_t room = S_ISREG(st.st_mode) && st.st_size < (off_t)PLAN_MAX_BYTES ? (size_t)st.st_size + 1
                                                                            : PLAN_MAX_BYTES + 1;
    char *bytes = malloc(room);
    if (!bytes) {
        plan_refuse(plan, "no memory");
        return NULL;
    }
    size_t length = 0;
    while (length < room) {
        ssize_t got = read(fd, bytes + length, room - length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            plan_refuse(plan, "it can't be read: %s", strerror(errno));
            free(bytes);
            return NULL;
        }
        if (got == 0)
            break;
        length += (size_t)got;
    }
    if (plan_parse(plan, bytes, length))
        return bytes;
    free(bytes);
    return NULL;
}

void plan_load(struct plan *plan, int fd, const char *name)
{
    if (!plan_read(plan, fd))
        die("can't use %s: %s", name, plan->error);
}

const struct verb *plan_verb(struct plan *plan, size_t index, const struct verb *table)
{
    const struct word *word = &plan->steps[index].words[0];
    if (strlen(word->text) == word->length)
        for (const struct verb *verb = table; verb->name; verb++)
            if (strcmp(verb->name, word->text) == 0)
                return verb;
    plan_refuse(plan, "step %zu: unknown verb \"%.64s\"", index + 1, word->text);
    return NULL;
}

bool plan_check(struct plan *plan, const struct verb *table)
{
    for (size_t i = 0; i < plan->count; i++) {
        const struct step *step = &plan->steps[i];
        const struct verb *verb = plan_verb(plan, i, table);
        if (!verb)
            return false;
        if (step->count - 1 < verb->least || step->count - 1 > verb->most)
            return plan_refuse(plan, "step %zu: %s can't have %u words", i + 1, verb->name, step->count - 1);
        for (uint32_t w = 1; !verb->binary && w < step->count; w++)
            if (strlen(step->words[w].text) != step->words[w].length)
                return plan_refuse(plan, "step %zu: %s: a NUL byte in word %u", i + 1, verb->name, w);
        if (verb->check && !verb->check(plan, step)) {
            char why[sizeof plan->error];
            memcpy(why, plan->error, sizeof why);
            return plan_refuse(plan, "step %zu: %s: %.180s", i + 1, verb->name, why);
        }
    }
    return true;
}
