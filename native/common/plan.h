/*
 * Reader of plans: src/pod/launch-plan.ts describes the format. A plan is read whole and taken apart
 * whole before anything is done; its words are used in place. Nothing in here ends the process but
 * plan_load(), so that the reader can be fuzzed.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PLAN_MAX_BYTES (16u * 1024 * 1024)
#define PLAN_MAX_STEPS 65536u
#define PLAN_MAX_WORDS 65536u /* of one step */

struct word {
    const char *text; /* ends with a NUL that `length` does not count; may hold NULs when binary */
    uint32_t length;
};

struct step {
    uint32_t count; /* with the verb; never 0 */
    const struct word *words;
};

struct plan {
    size_t count;
    struct step *steps;
    struct word *words; /* of all steps */
    char error[256];    /* why the last function that answered false did so */
};

/* Takes `bytes` apart; they must outlive the plan. False with plan->error set. */
bool plan_parse(struct plan *plan, const void *bytes, size_t length);
void plan_free(struct plan *plan);

/* Reads and takes apart the plan on `fd`. The plan's bytes, to be freed after it; NULL with plan->error set. */
char *plan_read(struct plan *plan, int fd);
/* The same, for good; or dies: `name` is for the message. */
void plan_load(struct plan *plan, int fd, const char *name);

/* Sets plan->error; always false. */
bool plan_refuse(struct plan *plan, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* What a verb takes. `check` looks at the values of a step with the right number of words. */
struct verb {
    const char *name;
    uint32_t least, most; /* words after the verb */
    bool binary;          /* its words may hold NUL bytes */
    bool (*check)(struct plan *plan, const struct step *step);
    void (*run)(const struct step *step);
};
#define ANY_NUMBER PLAN_MAX_WORDS

/* The verb of a step in a table that ends with a verb without name; NULL with plan->error set. */
const struct verb *plan_verb(struct plan *plan, size_t index, const struct verb *table);
/* Every step against the table. */
bool plan_check(struct plan *plan, const struct verb *table);

static inline const char *word_text(const struct step *step, uint32_t index)
{
    return step->words[index].text;
}
