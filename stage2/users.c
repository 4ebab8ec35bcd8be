/*
 * Users and groups of an image, read by ourselves inside its root: libc's functions would load the
 * image's libraries (CVE-2019-14271). The files are an attacker's: regular files only (a FIFO would hang
 * us, CVE-2024-9676), with bounds on size, line and entries (CVE-2026-47262); digits are always a number
 * (CVE-2016-3697), and an id out of range is an error, not 0 (CVE-2024-40635).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "app.h"
#include "common/die.h"
#include "common/in-root.h"
#include "common/numbers.h"

#define FILE_MAX (4u * 1024 * 1024)
#define LINE_MAX_BYTES 65536u /* a group with thousands of members is one line */
#define ENTRIES_MAX 65536u

struct database {
    const char *path;
    char *text, *at;
    size_t entries;
};

static void open_database(struct database *db, const char *path)
{
    *db = (struct database){ .path = path };
    /* The working directory is the root here. No magic links: /proc/1/root would be the host. */
    int fd = open_in_root(AT_FDCWD, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    if (fd < 0) {
        if (errno == ENOENT || errno == ENOTDIR)
            return; /* an image without users: numbers still work */
        die_errno("can't read the image's %s", path);
    }
    struct stat st;
    if (fstat(fd, &st) < 0)
        die_errno("can't read the image's %s", path);
    if (!S_ISREG(st.st_mode))
        die("can't read the image's %s: it is not a regular file", path);
    if (st.st_size > (off_t)FILE_MAX)
        die("can't read the image's %s: it is larger than %u bytes", path, FILE_MAX);
    db->text = malloc((size_t)st.st_size + 1);
    if (!db->text)
        die("can't read the image's %s: no memory", path);
    size_t length = 0;
    while (length < (size_t)st.st_size) {
        ssize_t got = read(fd, db->text + length, (size_t)st.st_size - length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            die_errno("can't read the image's %s", path);
        if (got == 0)
            break;
        length += (size_t)got;
    }
    db->text[length] = '\0';
    if (strlen(db->text) != length)
        die("can't read the image's %s: there is a NUL byte in it", path);
    close(fd);
    db->at = db->text;
}

static void close_database(struct database *db)
{
    free(db->text);
    db->text = db->at = NULL;
}

/* The next line's fields in place; 0 at the end. Lines that are no entries (empty, comments) are skipped. */
static size_t next_entry(struct database *db, char *fields[], size_t most)
{
    while (db->at && *db->at) {
        char *line = db->at;
        size_t length = strcspn(line, "\n");
        if (length > LINE_MAX_BYTES)
            die("can't read the image's %s: a line is longer than %u bytes", db->path, LINE_MAX_BYTES);
        if (++db->entries > ENTRIES_MAX)
            die("can't read the image's %s: it has more than %u lines", db->path, ENTRIES_MAX);
        db->at = line + length + (line[length] == '\n');
        line[length] = '\0';
        if (!*line || *line == '#' || *line == '+' || *line == '-')
            continue;
        size_t count = 0;
        while (count < most) {
            fields[count++] = line;
            char *colon = strchr(line, ':');
            if (!colon || count == most)
                break;
            *colon = '\0';
            line = colon + 1;
        }
        return count;
    }
    return 0;
}

static uint32_t id_of(const struct database *db, const char *entry, const char *text)
{
    uint64_t id;
    if (!parse_number(text, 10, ID_MAX, &id))
        die("can't read the image's %s: \"%.64s\" has the id \"%.64s\", which is no number from 0 to 4294967294",
            db->path, entry, text);
    return (uint32_t)id;
}

static void copy_field(char *into, size_t room, const char *text, const char *what)
{
    if (strlen(text) >= room)
        die("can't read the image's /etc/passwd: the %s of the user is longer than %zu bytes", what, room - 1);
    strcpy(into, text);
}

/* By name or, when `name` is NULL, by identity->uid. The first entry that fits counts, as in libc. */
static bool look_up_user(const char *name, struct identity *identity)
{
    struct database db;
    char *fields[7];
    size_t count;
    open_database(&db, "/etc/passwd");
    while ((count = next_entry(&db, fields, 7)) > 0) {
        uint64_t id;
        if (count < 4)
            continue;
        if (name ? strcmp(fields[0], name) != 0
                 : !parse_number(fields[2], 10, ID_MAX, &id) || id != identity->uid)
            continue;
        identity->uid = id_of(&db, fields[0], fields[2]);
        identity->gid = id_of(&db, fields[0], fields[3]);
        copy_field(identity->name, sizeof identity->name, fields[0], "name");
        copy_field(identity->home, sizeof identity->home, count > 5 ? fields[5] : "", "home");
        copy_field(identity->shell, sizeof identity->shell, count > 6 ? fields[6] : "", "shell");
        identity->has_entry = true;
        break;
    }
    close_database(&db);
    return identity->has_entry;
}

static bool look_up_group(const char *name, gid_t *gid)
{
    struct database db;
    char *fields[4];
    size_t count;
    bool found = false;
    open_database(&db, "/etc/group");
    while (!found && (count = next_entry(&db, fields, 4)) > 0) {
        if (count < 3 || strcmp(fields[0], name) != 0)
            continue;
        *gid = id_of(&db, fields[0], fields[2]);
        found = true;
    }
    close_database(&db);
    return found;
}

static bool lists_member(const char *members, const char *name)
{
    size_t length = strlen(name);
    for (const char *at = members; *at;) {
        size_t size = strcspn(at, ",");
        if (size == length && strncmp(at, name, size) == 0)
            return true;
        at += size + (at[size] == ',');
    }
    return false;
}

static void add_group(struct identity *identity, gid_t gid)
{
    for (size_t i = 0; i < identity->group_count; i++)
        if (identity->groups[i] == gid)
            return;
    if (identity->group_count == MAX_GROUPS)
        die("can't set the groups: there are more than %d", MAX_GROUPS);
    gid_t *grown = realloc(identity->groups, (identity->group_count + 1) * sizeof *grown);
    if (!grown)
        die("can't set the groups: no memory");
    identity->groups = grown;
    grown[identity->group_count++] = gid;
}

static void add_image_groups(struct identity *identity)
{
    struct database db;
    char *fields[4];
    size_t count;
    open_database(&db, "/etc/group");
    while ((count = next_entry(&db, fields, 4)) > 0)
        if (count == 4 && lists_member(fields[3], identity->name))
            add_group(identity, id_of(&db, fields[0], fields[2]));
    close_database(&db);
}

static void stat_owner(const char *path, const char *what, struct stat *st)
{
    int fd = open_in_root(AT_FDCWD, path, O_PATH, 0);
    if (fd < 0 || fstat(fd, st) < 0)
        die_errno("can't find the %s: can't read the owner of \"%s\" in the image", what, path);
    close(fd);
}

void find_identity(const struct app *app, struct identity *identity)
{
    const char *user = app->user ? app->user : "0";
    struct stat st;
    uint64_t id;
    *identity = (struct identity){ 0 };
    if (*user == '/' || is_digits(user)) {
        if (*user == '/')
            stat_owner(user, "user", &st);
        else if (!parse_number(user, 10, ID_MAX, &id))
            die("can't find the user \"%s\": a number must be from 0 to 4294967294", user);
        identity->uid = *user == '/' ? st.st_uid : (uid_t)id;
        if (!app->group || app->env_from_user || app->image_groups)
            look_up_user(NULL, identity);
    } else if (!look_up_user(user, identity)) {
        die("can't find the user \"%s\": it is not in the image's /etc/passwd", user);
    }

    const char *group = app->group;
    if (group && *group == '/') {
        stat_owner(group, "group", &st);
        identity->gid = st.st_gid;
    } else if (group && is_digits(group)) {
        if (!parse_number(group, 10, ID_MAX, &id))
            die("can't find the group \"%s\": a number must be from 0 to 4294967294", group);
        identity->gid = (gid_t)id;
    } else if (group && !look_up_group(group, &identity->gid)) {
        die("can't find the group \"%s\": it is not in the image's /etc/group", group);
    }

    for (size_t i = 0; i < app->group_count; i++)
        add_group(identity, app->groups[i]);
    if (app->image_groups && identity->has_entry)
        add_image_groups(identity);
}
