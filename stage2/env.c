/* The app's environment: exactly what its plan says, never stage2's own. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app.h"
#include "common/die.h"

static char **find(const struct app *app, const char *name)
{
    size_t length = strlen(name);
    for (size_t i = 0; i < app->env_count; i++)
        if (strncmp(app->env[i], name, length) == 0 && app->env[i][length] == '=')
            return &app->env[i];
    return NULL;
}

const char *get_env(const struct app *app, const char *name)
{
    char **entry = find(app, name);
    return entry ? *entry + strlen(name) + 1 : NULL;
}

void set_env(struct app *app, const char *name, const char *value, bool replace)
{
    char *entry;
    char **old = find(app, name);
    if (old && !replace)
        return;
    if (asprintf(&entry, "%s=%s", name, value) < 0)
        die("can't make the environment: no memory");
    if (old) {
        free(*old);
        *old = entry;
        return;
    }
    char **grown = realloc(app->env, (app->env_count + 2) * sizeof *grown);
    if (!grown)
        die("can't make the environment: no memory");
    app->env = grown;
    app->env[app->env_count++] = entry;
    app->env[app->env_count] = NULL;
}
