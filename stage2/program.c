/*
 * From a command's first word to a file that can be executed, and the reason in words when it can't: the
 * kernel answers ENOENT for a missing interpreter just as for a missing program.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "app.h"
#include "common/die.h"

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/* 0 when this may be executed, else an errno. */
static int refusal(const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return errno;
    if (S_ISDIR(st.st_mode))
        return EISDIR;
    if (!S_ISREG(st.st_mode))
        return EACCES;
    return faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) < 0 ? errno : 0;
}

/* The interpreter of a script or of a dynamic ELF file; empty when there is none or it can't be read. */
static void read_interpreter(const char *path, char *interpreter, size_t room)
{
    char head[PATH_MAX];
    *interpreter = '\0';
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return;
    ssize_t length = pread(fd, head, sizeof head - 1, 0);
    if (length > 2 && head[0] == '#' && head[1] == '!') {
        head[length] = '\0';
        char *start = head + 2 + strspn(head + 2, " \t");
        start[strcspn(start, " \t\r\n")] = '\0';
        snprintf(interpreter, room, "%s", start);
    } else if (length >= (ssize_t)sizeof(Elf64_Ehdr) && memcmp(head, ELFMAG, SELFMAG) == 0 &&
               head[EI_CLASS] == ELFCLASS64) {
        Elf64_Ehdr elf;
        memcpy(&elf, head, sizeof elf);
        for (unsigned i = 0; elf.e_phentsize == sizeof(Elf64_Phdr) && i < elf.e_phnum && i < 64; i++) {
            Elf64_Phdr part;
            if (elf.e_phoff > INT32_MAX ||
                pread(fd, &part, sizeof part, (off_t)(elf.e_phoff + i * sizeof part)) != sizeof part)
                break;
            if (part.p_type != PT_INTERP || part.p_filesz < 2 || part.p_filesz > room || part.p_offset > INT32_MAX)
                continue;
            if (pread(fd, interpreter, part.p_filesz, (off_t)part.p_offset) == (ssize_t)part.p_filesz)
                interpreter[part.p_filesz - 1] = '\0';
            else
                *interpreter = '\0';
            break;
        }
    }
    close(fd);
}

void die_of_exec(const char *program, int reason)
{
    char interpreter[PATH_MAX];
    if (reason == ENOENT && access(program, F_OK) == 0) {
        read_interpreter(program, interpreter, sizeof interpreter);
        if (*interpreter)
            die("exec \"%s\": its interpreter \"%s\" is missing in the image", program, interpreter);
        die("exec \"%s\": its interpreter is missing in the image", program);
    }
    if (reason == ENOENT || reason == ENOTDIR)
        die("exec \"%s\": no such file in the image", program);
    if (reason == EISDIR)
        die("exec \"%s\": it is a folder", program);
    if (reason == EACCES)
        die("exec \"%s\": permission denied", program);
    if (reason == ENOEXEC)
        die("exec \"%s\": exec format error: it is no program for this machine, nor a script with #!", program);
    die("exec \"%s\": %s", program, strerror(reason));
}

/* What would come to light only at execve, where a seccomp filter may already forbid to say it. */
static void check_interpreter(const char *path)
{
    char interpreter[PATH_MAX];
    read_interpreter(path, interpreter, sizeof interpreter);
    if (*interpreter && access(interpreter, F_OK) < 0 && (errno == ENOENT || errno == ENOTDIR))
        die("exec \"%s\": its interpreter \"%s\" is missing in the image", path, interpreter);
}

const char *find_program(const struct app *app, const char *name, bool may_be_missing)
{
    int reason;
    if (strchr(name, '/')) {
        reason = refusal(name);
        if (reason == ENOENT && may_be_missing)
            return NULL;
        if (reason)
            die_of_exec(name, reason);
        check_interpreter(name);
        return name;
    }
    const char *path = get_env(app, "PATH");
    int denied = 0;
    for (const char *at = path ? path : DEFAULT_PATH;; at++) {
        static char candidate[PATH_MAX];
        size_t length = strcspn(at, ":");
        /* An empty element is the working directory (POSIX, 8.3). */
        int size = length == 0 ? snprintf(candidate, sizeof candidate, "./%s", name)
                               : snprintf(candidate, sizeof candidate, "%.*s/%s", (int)length, at, name);
        if (size > 0 && (size_t)size < sizeof candidate) {
            reason = refusal(candidate);
            if (reason == 0) {
                check_interpreter(candidate);
                return candidate;
            }
            if (reason == EACCES)
                denied = reason;
        }
        at += length;
        if (!*at)
            break;
    }
    if (may_be_missing && !denied)
        return NULL;
    if (denied)
        die("exec \"%s\": permission denied (it is in PATH, but not executable)", name);
    die("exec \"%s\": not found in PATH", name);
}
