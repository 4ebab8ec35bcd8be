/*
 * The native addon: the system calls that Node lacks, one function each, nothing else. The typed face
 * and the contract of every function: src/sys/native.ts. Node-API in C, so that one file serves every
 * Node version; an error is thrown as Node throws its own (code, errno, syscall, path).
 *
 * exec() is the odd one: it must hand the process over as if Node had never run in it. See start-state.h
 * for what the starter recorded and Node has changed since.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/fsverity.h>
#include <linux/openat2.h>
#include <node_api.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "common/close-fds.h"
#include "digest-file.h"
#include "net-namespace.h"
#include "start-state.h"
#include "unpack-filter.h"
#include "write-queue.h"

/* Exported by the node executable (libuv is part of its ABI); declared here to do without uv.h. */
extern const char *uv_err_name(int);
extern const char *uv_strerror(int);
extern int uv_tty_reset_mode(void);

#define MAX_ARGS 8
#define XATTR_MAX 65536 /* XATTR_SIZE_MAX and XATTR_LIST_MAX of the kernel */

typedef struct {
    napi_env env;
    napi_value value[MAX_ARGS];
    bool failed; /* an exception is pending */
} call;

struct path {
    char text[4096];
};

/* --- errors and arguments --- */

static napi_value fail(call *c, int err, const char *syscall_name, const char *path)
{
    if (c->failed)
        return NULL;
    c->failed = true;
    char message[4600];
    const char *name = uv_err_name(-err);
    snprintf(message, sizeof message, path ? "%s: %s, %s '%s'" : "%s: %s, %s", name,
             uv_strerror(-err), syscall_name, path);
    napi_value error, text, code, number, syscall_value, path_value;
    napi_create_string_utf8(c->env, message, NAPI_AUTO_LENGTH, &text);
    napi_create_string_utf8(c->env, name, NAPI_AUTO_LENGTH, &code);
    napi_create_error(c->env, code, text, &error);
    napi_create_int32(c->env, -err, &number);
    napi_set_named_property(c->env, error, "errno", number);
    napi_create_string_utf8(c->env, syscall_name, NAPI_AUTO_LENGTH, &syscall_value);
    napi_set_named_property(c->env, error, "syscall", syscall_value);
    if (path) {
        napi_create_string_utf8(c->env, path, NAPI_AUTO_LENGTH, &path_value);
        napi_set_named_property(c->env, error, "path", path_value);
    }
    napi_throw(c->env, error);
    return NULL;
}

static void bad_argument(call *c, int index, const char *wanted)
{
    if (c->failed)
        return;
    c->failed = true;
    char message[80];
    snprintf(message, sizeof message, "argument %d must be %s", index + 1, wanted);
    napi_throw_type_error(c->env, "ERR_INVALID_ARG_TYPE", message);
}

/* False when fewer than `count` arguments came. */
static bool begin(call *c, napi_env env, napi_callback_info info, size_t count)
{
    size_t given = MAX_ARGS;
    *c = (call){ .env = env };
    if (napi_get_cb_info(env, info, &given, c->value, NULL, NULL) != napi_ok || given < count) {
        bad_argument(c, (int)given, "given");
        return false;
    }
    return true;
}

static int64_t arg_integer(call *c, int index, int64_t low, int64_t high)
{
    double number;
    if (napi_get_value_double(c->env, c->value[index], &number) != napi_ok || !(number >= (double)low) ||
        !(number <= (double)high) || number != (double)(int64_t)number) {
        bad_argument(c, index, "an integer in range");
        return 0;
    }
    return (int64_t)number;
}

static int arg_fd(call *c, int index)
{
    return (int)arg_integer(c, index, 0, INT32_MAX);
}

static bool arg_bool(call *c, int index)
{
    bool value = false;
    if (napi_get_value_bool(c->env, c->value[index], &value) != napi_ok)
        bad_argument(c, index, "a boolean");
    return value;
}

/* The bytes of a Uint8Array or Buffer, in place. */
static bool bytes_of(call *c, napi_value value, const void **data, size_t *length)
{
    bool is_view;
    napi_typedarray_type type;
    return napi_is_typedarray(c->env, value, &is_view) == napi_ok && is_view &&
           napi_get_typedarray_info(c->env, value, &type, length, (void **)data, NULL, NULL) == napi_ok &&
           type == napi_uint8_array;
}

/* A path or name, as text or as bytes; a NUL in it would silently shorten it. */
static const char *arg_path(call *c, int index, struct path *into)
{
    size_t length = 0;
    const void *data;
    napi_valuetype type;
    napi_typeof(c->env, c->value[index], &type);
    if (type == napi_string) {
        napi_get_value_string_utf8(c->env, c->value[index], NULL, 0, &length);
        if (length < sizeof into->text)
            napi_get_value_string_utf8(c->env, c->value[index], into->text, sizeof into->text, &length);
    } else if (bytes_of(c, c->value[index], &data, &length)) {
        if (length < sizeof into->text) {
            memcpy(into->text, data, length);
            into->text[length] = '\0';
        }
    } else {
        bad_argument(c, index, "a string or a Uint8Array");
        return NULL;
    }
    if (length >= sizeof into->text) {
        fail(c, ENAMETOOLONG, "path", NULL);
        return NULL;
    }
    if (memchr(into->text, '\0', length)) {
        bad_argument(c, index, "without NUL bytes");
        return NULL;
    }
    return into->text;
}

static napi_value integer(call *c, int64_t number)
{
    napi_value value;
    napi_create_int64(c->env, number, &value);
    return value;
}

static napi_value undefined(call *c)
{
    napi_value value;
    napi_get_undefined(c->env, &value);
    return value;
}

/* The common end of a call that answers nothing. */
static napi_value done(call *c, long result, const char *syscall_name, const char *path)
{
    return result < 0 ? fail(c, errno, syscall_name, path) : undefined(c);
}

#define RETRY(expression)                                            \
    ({                                                               \
        long retry_result;                                           \
        do                                                           \
            retry_result = (long)(expression);                       \
        while (retry_result < 0 && errno == EINTR);                  \
        retry_result;                                                \
    })

#define FUNCTION(name, count)                                        \
    static napi_value name##_impl(call *c);                          \
    static napi_value name(napi_env env, napi_callback_info info)    \
    {                                                                \
        call c;                                                      \
        return begin(&c, env, info, count) ? name##_impl(&c) : NULL; \
    }                                                                \
    static napi_value name##_impl(call *c)

/* --- locks --- */

FUNCTION(js_flock, 3)
{
    int fd = arg_fd(c, 0);
    struct path mode_text;
    const char *mode = arg_path(c, 1, &mode_text);
    bool wait = arg_bool(c, 2);
    if (c->failed)
        return NULL;
    int operation = strcmp(mode, "shared") == 0      ? LOCK_SH
                    : strcmp(mode, "exclusive") == 0 ? LOCK_EX
                    : strcmp(mode, "unlock") == 0    ? LOCK_UN
                                                     : 0;
    if (operation == 0) {
        bad_argument(c, 1, "shared, exclusive or unlock");
        return NULL;
    }
    long result = RETRY(flock(fd, operation | (wait ? 0 : LOCK_NB)));
    if (result < 0 && errno != EWOULDBLOCK)
        return fail(c, errno, "flock", NULL);
    napi_value held;
    napi_get_boolean(c->env, result == 0, &held);
    return held;
}

/* --- exec --- */

static void free_strings(char **strings)
{
    if (!strings)
        return;
    for (char **s = strings; *s; s++)
        free(*s);
    free(strings);
}

/* An array of strings as execve wants it; NULL with an exception pending on failure. */
static char **arg_strings(call *c, int index)
{
    uint32_t count;
    if (napi_get_array_length(c->env, c->value[index], &count) != napi_ok) {
        bad_argument(c, index, "an array of strings");
        return NULL;
    }
    char **strings = calloc((size_t)count + 1, sizeof *strings);
    for (uint32_t i = 0; strings && i < count; i++) {
        napi_value item;
        size_t length;
        if (napi_get_element(c->env, c->value[index], i, &item) != napi_ok ||
            napi_get_value_string_utf8(c->env, item, NULL, 0, &length) != napi_ok ||
            !(strings[i] = malloc(length + 1)) ||
            napi_get_value_string_utf8(c->env, item, strings[i], length + 1, &length) != napi_ok ||
            strlen(strings[i]) != length) {
            free_strings(strings);
            bad_argument(c, index, "an array of strings without NUL bytes");
            return NULL;
        }
    }
    if (!strings)
        fail(c, ENOMEM, "execve", NULL);
    return strings;
}

static void remove_start_state(char **env)
{
    char **to = env;
    for (char **from = env; *from; from++) {
        if (strncmp(*from, START_STATE_VARIABLE "=", sizeof START_STATE_VARIABLE) == 0)
            free(*from);
        else
            *to++ = *from;
    }
    *to = NULL;
}

static void undo_node(const struct start_state *start)
{
    /* Raw mode of the terminal: libuv remembers what it was. */
    uv_tty_reset_mode();
    /* execve turns handlers into the default by itself, but keeps what is ignored, and Node ignores
     * SIGPIPE and SIGXFSZ. */
    for (int signal_number = 1; signal_number <= START_SIGNALS; signal_number++) {
        struct sigaction action = { .sa_handler = SIG_DFL };
        if (start->ignored & (UINT64_C(1) << (signal_number - 1)))
            action.sa_handler = SIG_IGN;
        sigaction(signal_number, &action, NULL); /* KILL, STOP and libc's own two can't be set */
    }
    for (int fd = 0; fd <= 2; fd++) {
        int flags = fcntl(fd, F_GETFL);
        if (flags < 0)
            continue;
        fcntl(fd, F_SETFD, 0); /* Node marks even these CLOEXEC */
        int wanted = start->nonblocking & (1u << fd) ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
        if (wanted != flags)
            fcntl(fd, F_SETFL, wanted);
    }
    struct rlimit files;
    if (start->known && getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = start->nofile < files.rlim_max ? start->nofile : files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

FUNCTION(js_exec, 4)
{
    struct path path_text;
    const char *path = arg_path(c, 0, &path_text);
    char **argv = c->failed ? NULL : arg_strings(c, 1);
    char **env = c->failed ? NULL : arg_strings(c, 2);
    uint32_t count = 0;
    int *keep = NULL;
    if (!c->failed && napi_get_array_length(c->env, c->value[3], &count) != napi_ok)
        bad_argument(c, 3, "an array of descriptors");
    if (!c->failed && !(keep = calloc((size_t)count + 1, sizeof *keep)))
        fail(c, ENOMEM, "execve", NULL);
    for (uint32_t i = 0; !c->failed && i < count; i++) {
        napi_value item;
        if (napi_get_element(c->env, c->value[3], i, &item) != napi_ok ||
            napi_get_value_int32(c->env, item, &keep[i]) != napi_ok || keep[i] < 0)
            bad_argument(c, 3, "an array of descriptors");
    }
    if (!c->failed) {
        struct start_state start;
        int bad_fd;
        read_start_state(getenv(START_STATE_VARIABLE), &start);
        remove_start_state(env);
        if ((bad_fd = keep_fds_at_exec(keep, count)) >= 0) {
            char what[32];
            snprintf(what, sizeof what, "fd %d", bad_fd);
            fail(c, errno, "fcntl", what);
        } else {
            sigset_t all, before, mask;
            sigfillset(&all);
            pthread_sigmask(SIG_SETMASK, &all, &before);
            undo_node(&start);
            sigemptyset(&mask);
            for (int s = 1; s <= START_SIGNALS; s++)
                if (start.blocked & (UINT64_C(1) << (s - 1)))
                    sigaddset(&mask, s);
            pthread_sigmask(SIG_SETMASK, &mask, NULL);
            execve(path, argv, env);
            int err = errno;
            pthread_sigmask(SIG_SETMASK, &before, NULL);
            fail(c, err, "execve", path);
        }
    }
    free(keep);
    free_strings(env);
    free_strings(argv);
    return NULL;
}

/* --- files --- */

FUNCTION(js_fsync, 1)
{
    struct path path_text;
    const char *path = arg_path(c, 0, &path_text);
    if (c->failed)
        return NULL;
    int fd = (int)RETRY(open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW));
    if (fd < 0)
        return fail(c, errno, "open", path);
    long result = RETRY(fsync(fd));
    int err = errno;
    close(fd);
    errno = err;
    return done(c, result, "fsync", path);
}

FUNCTION(js_syncfs, 1)
{
    int fd = arg_fd(c, 0);
    return c->failed ? NULL : done(c, RETRY(syncfs(fd)), "syncfs", NULL);
}

FUNCTION(js_enable_verity, 1)
{
    struct path path_text;
    const char *path = arg_path(c, 0, &path_text);
    if (c->failed)
        return NULL;
    int fd = (int)RETRY(open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW));
    if (fd < 0)
        return fail(c, errno, "open", path);
    struct fsverity_enable_arg how = {
        .version = 1,
        .hash_algorithm = FS_VERITY_HASH_ALG_SHA256,
        .block_size = 4096,
    };
    long result = RETRY(ioctl(fd, FS_IOC_ENABLE_VERITY, &how));
    int err = errno;
    close(fd);
    errno = err;
    return done(c, result, "FS_IOC_ENABLE_VERITY", path);
}

FUNCTION(js_has_verity, 1)
{
    struct path path_text;
    const char *path = arg_path(c, 0, &path_text);
    struct statx stat;
    if (c->failed)
        return NULL;
    if (RETRY(statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, 0, &stat)) < 0)
        return fail(c, errno, "statx", path);
    napi_value value;
    napi_get_boolean(c->env, (stat.stx_attributes & STATX_ATTR_VERITY) != 0, &value);
    return value;
}

FUNCTION(js_mkdir, 2)
{
    struct path path_text;
    const char *path = arg_path(c, 0, &path_text);
    mode_t mode = (mode_t)arg_integer(c, 1, 0, 07777);
    return c->failed ? NULL : done(c, mkdir(path, mode), "mkdir", path);
}

FUNCTION(js_mknod, 4)
{
    struct path path_text;
    const char *path = arg_path(c, 0, &path_text);
    mode_t mode = (mode_t)arg_integer(c, 1, 0, 0177777);
    unsigned major_number = (unsigned)arg_integer(c, 2, 0, UINT32_MAX);
    unsigned minor_number = (unsigned)arg_integer(c, 3, 0, UINT32_MAX);
    return c->failed ? NULL : done(c, mknod(path, mode, makedev(major_number, minor_number)), "mknod", path);
}

FUNCTION(js_lchown, 3)
{
    struct path path_text;
    const char *path = arg_path(c, 0, &path_text);
    /* -1 would mean "leave as it is": not an id. */
    uid_t uid = (uid_t)arg_integer(c, 1, 0, UINT32_MAX - 1);
    gid_t gid = (gid_t)arg_integer(c, 2, 0, UINT32_MAX - 1);
    return c->failed ? NULL : done(c, lchown(path, uid, gid), "lchown", path);
}

FUNCTION(js_lsetxattr, 3)
{
    struct path path_text, name_text;
    const char *path = arg_path(c, 0, &path_text);
    const char *name = arg_path(c, 1, &name_text);
    const void *data = NULL;
    size_t length = 0;
    if (!c->failed && !bytes_of(c, c->value[2], &data, &length))
        bad_argument(c, 2, "a Uint8Array");
    return c->failed ? NULL : done(c, lsetxattr(path, name, data, length, 0), "lsetxattr", path);
}

static napi_value buffer_copy(call *c, const void *data, size_t length)
{
    napi_value value;
    if (napi_create_buffer_copy(c->env, length, data, NULL, &value) != napi_ok)
        return fail(c, ENOMEM, "read", NULL);
    return value;
}

FUNCTION(js_lgetxattr, 2)
{
    struct path path_text, name_text;
    static char value[XATTR_MAX]; /* one JavaScript thread at a time calls; copied before the return */
    const char *path = arg_path(c, 0, &path_text);
    const char *name = arg_path(c, 1, &name_text);
    if (c->failed)
        return NULL;
    ssize_t length = lgetxattr(path, name, value, sizeof value);
    return length < 0 ? fail(c, errno, "lgetxattr", path) : buffer_copy(c, value, (size_t)length);
}

FUNCTION(js_llistxattr, 1)
{
    struct path path_text;
    static char list[XATTR_MAX];
    const char *path = arg_path(c, 0, &path_text);
    if (c->failed)
        return NULL;
    ssize_t length = llistxattr(path, list, sizeof list);
    if (length < 0)
        return fail(c, errno, "llistxattr", path);
    napi_value names;
    napi_create_array(c->env, &names);
    uint32_t index = 0;
    for (const char *name = list; name < list + length; name += strlen(name) + 1)
        napi_set_element(c->env, names, index++, buffer_copy(c, name, strlen(name)));
    return names;
}

static struct timespec arg_time(call *c, int index)
{
    return (struct timespec){
        .tv_sec = (time_t)arg_integer(c, index, -(INT64_C(1) << 53), INT64_C(1) << 53),
        .tv_nsec = (long)arg_integer(c, index + 1, 0, 999999999),
    };
}

FUNCTION(js_lutimes, 5)
{
    struct path path_text;
    const char *path = arg_path(c, 0, &path_text);
    struct timespec times[2] = { arg_time(c, 1), arg_time(c, 3) };
    return c->failed ? NULL : done(c, utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW), "utimensat", path);
}

FUNCTION(js_open, 3)
{
    struct path path_text;
    const char *path = arg_path(c, 0, &path_text);
    int flags = (int)arg_integer(c, 1, 0, INT32_MAX);
    mode_t mode = (mode_t)arg_integer(c, 2, 0, 07777);
    if (c->failed)
        return NULL;
    long fd = RETRY(open(path, flags | O_CLOEXEC, mode));
    return fd < 0 ? fail(c, errno, "open", path) : integer(c, fd);
}

FUNCTION(js_open_in_root, 4)
{
    int root = arg_fd(c, 0);
    struct path path_text;
    const char *path = arg_path(c, 1, &path_text);
    struct open_how how = {
        .flags = (uint64_t)arg_integer(c, 2, 0, INT32_MAX) | O_CLOEXEC,
        .mode = (uint64_t)arg_integer(c, 3, 0, 07777),
        .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
    };
    if (c->failed)
        return NULL;
    /* openat2 refuses a mode where nothing can be created. */
    if (!(how.flags & O_CREAT) && (how.flags & O_TMPFILE) != O_TMPFILE)
        how.mode = 0;
    /* EAGAIN: something was renamed during the walk, so the kernel can't vouch for it; try again. */
    long fd;
    int tries = 0;
    do
        fd = RETRY(syscall(SYS_openat2, root, path, &how, sizeof how));
    while (fd < 0 && errno == EAGAIN && ++tries < 128);
    return fd < 0 ? fail(c, errno, "openat2", path) : integer(c, fd);
}

static const char *write_regular(int fd, const char *data, size_t length, mode_t mode, uid_t uid, gid_t gid,
                                 const struct timespec times[2])
{
    while (length > 0) {
        ssize_t written = (ssize_t)RETRY(write(fd, data, length));
        if (written < 0)
            return "write";
        data += written;
        length -= (size_t)written;
    }
    if (fchown(fd, uid, gid) < 0)
        return "fchown";
    if (fchmod(fd, mode) < 0) /* after fchown, which clears setuid and setgid */
        return "fchmod";
    return futimens(fd, times) < 0 ? "futimens" : NULL;
}

FUNCTION(js_write_file, 7)
{
    struct path path_text;
    const char *path = arg_path(c, 0, &path_text);
    const void *data = NULL;
    size_t length = 0;
    if (!c->failed && !bytes_of(c, c->value[1], &data, &length))
        bad_argument(c, 1, "a Uint8Array");
    mode_t mode = (mode_t)arg_integer(c, 2, 0, 07777);
    uid_t uid = (uid_t)arg_integer(c, 3, 0, UINT32_MAX - 1);
    gid_t gid = (gid_t)arg_integer(c, 4, 0, UINT32_MAX - 1);
    struct timespec time = arg_time(c, 5);
    struct timespec times[2] = { time, time };
    if (c->failed)
        return NULL;
    int fd = (int)RETRY(open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (fd < 0)
        return fail(c, errno, "open", path);
    const char *failed = write_regular(fd, data, length, mode, uid, gid, times);
    int err = errno;
    if (close(fd) < 0 && !failed && errno != EINTR) {
        failed = "close";
        err = errno;
    }
    return failed ? fail(c, err, failed, path) : undefined(c);
}

/* A job with a copy of the bytes in argument 1; NULL when something was wrong. */
static struct write_job *new_job(call *c)
{
    int fd = arg_fd(c, 0);
    const void *data = NULL;
    size_t length = 0;
    if (!c->failed && !bytes_of(c, c->value[1], &data, &length))
        bad_argument(c, 1, "a Uint8Array");
    if (c->failed)
        return NULL;
    struct write_job *job = calloc(1, sizeof *job + length);
    if (!job) {
        fail(c, ENOMEM, "malloc", NULL);
        return NULL;
    }
    job->fd = fd;
    job->length = length;
    if (length > 0)
        memcpy(job->data, data, length);
    return job;
}

static napi_value add_job(call *c, struct write_job *job)
{
    if (!c->failed && write_queue_add(job))
        return undefined(c);
    int err = errno;
    free(job);
    return c->failed ? NULL : fail(c, err, "pthread_create", NULL);
}

FUNCTION(js_queue_write, 3)
{
    struct write_job *job = new_job(c);
    if (!job)
        return NULL;
    job->offset = (off_t)arg_integer(c, 2, 0, INT64_MAX);
    return add_job(c, job);
}

FUNCTION(js_queue_file, 7)
{
    struct write_job *job = new_job(c);
    if (!job)
        return NULL;
    job->finishes = true;
    job->mode = (mode_t)arg_integer(c, 2, 0, 07777);
    job->uid = (uid_t)arg_integer(c, 3, 0, UINT32_MAX - 1);
    job->gid = (gid_t)arg_integer(c, 4, 0, UINT32_MAX - 1);
    job->mtime = arg_time(c, 5);
    return add_job(c, job);
}

FUNCTION(js_drain_writes, 0)
{
    struct write_failure failure;
    if (!write_queue_drain(&failure))
        return undefined(c);
    fail(c, failure.err, failure.syscall, NULL);
    napi_value error, job;
    if (napi_get_and_clear_last_exception(c->env, &error) == napi_ok) {
        napi_create_uint32(c->env, failure.job, &job);
        napi_set_named_property(c->env, error, "job", job);
        napi_throw(c->env, error);
    }
    return NULL;
}

/* --- files that a thread writes and hashes --- */

/* What napi holds: the file, and the buffers that are under way. */
struct held_file {
    struct digest_file *file;
    napi_ref buffers[DIGEST_FILE_JOBS];
    size_t added, released;
    bool ended;
};

static void release(napi_env env, struct held_file *held, size_t done)
{
    while (held->released < done)
        napi_delete_reference(env, held->buffers[held->released++ % DIGEST_FILE_JOBS]);
}

static void finalize_digest_file(napi_env env, void *data, void *unused)
{
    (void)unused;
    struct held_file *held = data;
    digest_file_free(held->file);
    release(env, held, held->added);
    free(held);
}

static const napi_type_tag digest_file_tag = { 0x5f3c8a1be2d94760, 0x9a41c7d20be8f635 };

static struct held_file *arg_digest_file(call *c, int index)
{
    void *held = NULL;
    bool is_one = false;
    napi_valuetype type;
    if (napi_typeof(c->env, c->value[index], &type) != napi_ok || type != napi_external ||
        napi_check_object_type_tag(c->env, c->value[index], &digest_file_tag, &is_one) != napi_ok ||
        !is_one || napi_get_value_external(c->env, c->value[index], &held) != napi_ok ||
        ((struct held_file *)held)->ended)
        bad_argument(c, index, "an open digest file");
    return held;
}

FUNCTION(js_digest_file, 2)
{
    int fd = arg_fd(c, 0);
    struct path name_text;
    const char *name = arg_path(c, 1, &name_text);
    if (c->failed)
        return NULL;
    bool sha512 = strcmp(name, "sha512") == 0;
    if (!sha512 && strcmp(name, "sha256") != 0) {
        bad_argument(c, 1, "sha256 or sha512");
        return NULL;
    }
    struct held_file *held = calloc(1, sizeof *held);
    if (!held)
        return fail(c, ENOMEM, "malloc", NULL);
    held->file = digest_file_start(fd, sha512);
    if (!held->file) {
        int err = errno;
        free(held);
        return fail(c, err, "digest_file_start", NULL);
    }
    napi_value external;
    if (napi_create_external(c->env, held, finalize_digest_file, NULL, &external) != napi_ok) {
        digest_file_free(held->file);
        free(held);
        return fail(c, ENOMEM, "malloc", NULL);
    }
    napi_type_tag_object(c->env, external, &digest_file_tag);
    return external;
}

FUNCTION(js_digest_file_write, 2)
{
    struct held_file *held = arg_digest_file(c, 0);
    const void *data = NULL;
    size_t length = 0;
    if (!c->failed && !bytes_of(c, c->value[1], &data, &length))
        bad_argument(c, 1, "a Uint8Array");
    if (c->failed || length == 0)
        return c->failed ? NULL : undefined(c);
    /* Which job a full file waits for is its oldest: then its reference can be released. */
    digest_file_wait(held->file);
    release(c->env, held, digest_file_done(held->file));
    napi_ref *buffer = &held->buffers[held->added % DIGEST_FILE_JOBS];
    if (napi_create_reference(c->env, c->value[1], 1, buffer) != napi_ok)
        return fail(c, ENOMEM, "malloc", NULL);
    held->added++;
    digest_file_add(held->file, data, length);
    return undefined(c);
}

FUNCTION(js_digest_file_end, 1)
{
    struct held_file *held = arg_digest_file(c, 0);
    if (c->failed)
        return NULL;
    held->ended = true;
    unsigned char digest[DIGEST_MAX_BYTES];
    size_t length = digest_file_end(held->file, digest);
    int err = errno;
    release(c->env, held, held->added);
    if (length == 0)
        return fail(c, err, "write", NULL);
    char hex[2 * DIGEST_MAX_BYTES + 1];
    for (size_t i = 0; i < length; i++)
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    napi_value text;
    napi_create_string_latin1(c->env, hex, 2 * length, &text);
    return text;
}

/* --- network namespaces --- */

FUNCTION(js_pin_net_namespace, 1)
{
    struct path path_text;
    const char *path = arg_path(c, 0, &path_text);
    if (c->failed)
        return NULL;
    const char *failed = NULL;
    int err = pin_net_namespace(path, &failed);
    return err ? fail(c, err, failed, path) : undefined(c);
}

FUNCTION(js_detach_mount, 1)
{
    struct path path_text;
    const char *path = arg_path(c, 0, &path_text);
    if (c->failed)
        return NULL;
    return done(c, umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW), "umount2", path);
}

FUNCTION(js_chroot, 1)
{
    struct path path_text;
    const char *path = arg_path(c, 0, &path_text);
    if (c->failed)
        return NULL;
    if (chroot(path) < 0)
        return fail(c, errno, "chroot", path);
    /* A working directory outside would be a way out. */
    return done(c, chdir("/"), "chdir", "/");
}

/*
 * Reduces the calling thread for good. Capabilities belong to a thread: Node's own helper threads that
 * exist already keep theirs (they run the garbage collector and the compiler, no JavaScript and no file
 * call); libuv's file threads are made at their first use, so this must be called before any. The filter
 * is for all of them.
 */
FUNCTION(js_confine, 1)
{
    uint64_t mask = 0;
    bool lossless = false;
    if (napi_get_value_bigint_uint64(c->env, c->value[0], &mask, &lossless) != napi_ok || !lossless) {
        bad_argument(c, 0, "a bigint of 64 bits");
        return NULL;
    }
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return fail(c, errno, "prctl", "PR_SET_NO_NEW_PRIVS");
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
        return fail(c, errno, "prctl", "PR_CAP_AMBIENT");
    for (unsigned cap = 0; cap < 64; cap++) {
        int has = prctl(PR_CAPBSET_READ, cap, 0, 0, 0);
        if (has < 0)
            break; /* past the last one that this kernel knows */
        if (has > 0 && !(mask & (UINT64_C(1) << cap)) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
            return fail(c, errno, "prctl", "PR_CAPBSET_DROP");
    }
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct data[2];
    if (syscall(SYS_capget, &header, data) < 0)
        return fail(c, errno, "capget", NULL);
    for (int i = 0; i < 2; i++) {
        uint32_t part = (uint32_t)(mask >> (32 * i));
        data[i].permitted &= part;
        data[i].effective = data[i].permitted;
        data[i].inheritable = 0;
    }
    if (syscall(SYS_capset, &header, data) < 0)
        return fail(c, errno, "capset", NULL);
    return done(c, forbid_what_unpacking_never_needs(), "seccomp", NULL);
}

FUNCTION(js_die_with_parent, 1)
{
    pid_t parent = (pid_t)arg_integer(c, 0, 1, INT32_MAX);
    if (c->failed)
        return NULL;
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
        return fail(c, errno, "prctl", NULL);
    /* It may have died before the call: then nobody would ever be told. */
    return getppid() == parent ? undefined(c) : fail(c, ESRCH, "getppid", NULL);
}

/* --- processes --- */

FUNCTION(js_pidfd_open, 1)
{
    pid_t pid = (pid_t)arg_integer(c, 0, 1, INT32_MAX);
    if (c->failed)
        return NULL;
    long fd = syscall(SYS_pidfd_open, pid, 0);
    return fd < 0 ? fail(c, errno, "pidfd_open", NULL) : integer(c, fd);
}

FUNCTION(js_pidfd_send, 2)
{
    int fd = arg_fd(c, 0);
    int signal_number = (int)arg_integer(c, 1, 0, 64);
    return c->failed ? NULL
                     : done(c, syscall(SYS_pidfd_send_signal, fd, signal_number, NULL, 0),
                            "pidfd_send_signal", NULL);
}

FUNCTION(js_statfs_type, 1)
{
    struct path path_text;
    const char *path = arg_path(c, 0, &path_text);
    struct statfs fs;
    if (c->failed)
        return NULL;
    if (RETRY(statfs(path, &fs)) < 0)
        return fail(c, errno, "statfs", path);
    return integer(c, (int64_t)(uint32_t)fs.f_type);
}

FUNCTION(js_umask, 1)
{
    mode_t mask = (mode_t)arg_integer(c, 0, 0, 0777);
    return c->failed ? NULL : integer(c, (int64_t)umask(mask));
}

NAPI_MODULE_INIT()
{
    static const struct {
        const char *name;
        napi_callback function;
    } functions[] = {
        { "flock", js_flock },           { "exec", js_exec },
        { "fsync", js_fsync },           { "syncfs", js_syncfs },
        { "enableVerity", js_enable_verity }, { "hasVerity", js_has_verity },
        { "mkdir", js_mkdir },           { "mknod", js_mknod },
        { "lchown", js_lchown },         { "lsetxattr", js_lsetxattr },
        { "lgetxattr", js_lgetxattr },   { "llistxattr", js_llistxattr },
        { "lutimes", js_lutimes },       { "open", js_open },
        { "openInRoot", js_open_in_root }, { "writeFile", js_write_file },
        { "chroot", js_chroot },         { "confine", js_confine },
        { "dieWithParent", js_die_with_parent }, { "pidfdOpen", js_pidfd_open },
        { "pidfdSend", js_pidfd_send },  { "statfsType", js_statfs_type },
        { "umask", js_umask },           { "queueWrite", js_queue_write },
        { "queueFile", js_queue_file },  { "drainWrites", js_drain_writes },
        { "pinNetNamespace", js_pin_net_namespace }, { "detachMount", js_detach_mount },
        { "digestFile", js_digest_file }, { "digestFileWrite", js_digest_file_write },
        { "digestFileEnd", js_digest_file_end },
    };
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        napi_value function;
        if (napi_create_function(env, functions[i].name, NAPI_AUTO_LENGTH, functions[i].function, NULL,
                                 &function) != napi_ok ||
            napi_set_named_property(env, exports, functions[i].name, function) != napi_ok)
            return NULL;
    }
    return exports;
}
