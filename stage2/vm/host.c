/* `vm host PLAN`: starts a pod's machine, keeps it, and ends as the pod ends. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/die.h"
#include "common/numbers.h"
#include "enter.h"
#include "host.h"
#include "run-vm.h"

/* What is remembered of what the machine's kernel said, and QEMU. */
#define REMEMBERED 16384
/* From a stop that is refused any time to the end. */
#define FORCED_MS 3000
#define LAST_WORDS_MS 200
/* For who is attached, after the end. */
#define ATTACHED_MS 2000
/* What the machine itself may take beyond the pod's own time to stop. */
#define MARGIN_MS 15000

struct machine machine;

struct memory {
    char text[REMEMBERED + 1];
    size_t length;
};
static struct memory console, errors;
static int console_fd, errors_fd, signals;
static char reason[512];

int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static bool check_name(struct plan *plan, const struct step *step)
{
    return strlen(word_text(step, 1)) < 200 || plan_refuse(plan, "too long");
}

static const struct verb VERBS[] = {
    { .name = "program", .least = 1, .most = 1 },
    { .name = "file", .least = 2, .most = 2, .check = check_name },
    { .name = "interactive" },
    { .name = "listen", .least = 2, .most = 2 },
    { .name = "log", .least = 3, .most = 3, .check = check_name },
    { .name = "stop-timeout", .least = 1, .most = 1 },
    { .name = "user", .least = 2, .most = 2 },
    { .name = "network-namespace", .least = 1, .most = 1 },
    { .name = "tap", .least = 1, .most = 1, .check = check_name },
    { .name = "open", .least = 3, .most = 3, .check = check_name },
    { .name = "share", .least = 1, .most = 500 },
    { .name = "qemu", .least = 1, .most = 500 },
    { 0 },
};

static uint64_t number_of(const struct step *step, uint32_t index, uint64_t most)
{
    uint64_t number;
    if (!parse_number(word_text(step, index), 10, most, &number))
        die("can't use the machine's plan: %s: \"%s\" is no number", word_text(step, 0), word_text(step, index));
    return number;
}

static void send_files(const struct plan *plan)
{
    for (size_t i = 0; i < plan->count; i++)
        if (strcmp(word_text(&plan->steps[i], 0), "file") == 0)
            send_pod_file(word_text(&plan->steps[i], 1), word_text(&plan->steps[i], 2));
}

static struct plan plan;

static void start_pod(const char *data, size_t length)
{
    struct start_request request = { 0 };
    uint32_t version = 0;
    if (machine.started)
        return;
    if (length >= sizeof version)
        memcpy(&version, data, sizeof version);
    if (version != MUX_VERSION)
        die("can't talk to the machine: it speaks version %u, this is %u: build stage1 kvm again", version, MUX_VERSION);
    machine.started = true;
    send_files(&plan);
    if (machine.interactive)
        request.terminals = own_terminals(&request.window);
    if (request.terminals & 1)
        raw_terminal();
    /* With the kind of the caller's terminal. */
    char message[sizeof request + 64];
    const char *term = getenv("TERM");
    size_t used = term && request.terminals && strlen(term) < 50 ? strlen(term) : 0;
    if (!machine.interactive)
        request.terminals |= START_NO_INPUT;
    memcpy(message, &request, sizeof request);
    memcpy(message + sizeof request, term ? term : "", used);
    mux_send(FRAME_START, 0, message, sizeof request + used);
    request.terminals &= ~START_NO_INPUT;
    if (request.terminals)
        mux_open(CHANNEL_TERMINAL, request.terminals & 1 ? STDIN_FILENO : -1,
                 request.terminals & 2 ? STDOUT_FILENO : request.terminals & 4 ? STDERR_FILENO : STDIN_FILENO);
    /* Copies: the end of a stream is not the end of what this process itself has to say. */
    for (int fd = 0; fd < 3; fd++) {
        if (request.terminals & 1u << fd || (fd == 0 && !machine.interactive))
            continue;
        int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        mux_open((uint32_t)fd, fd == 0 ? copy : -1, fd == 0 ? -1 : copy);
    }
}

static void take_end(const char *data, size_t length)
{
    uint32_t status = EXIT_FAILED;
    if (length < sizeof status)
        return;
    memcpy(&status, data, sizeof status);
    machine.ended = true;
    machine.status = (int)(status & 0xff);
    if (length > sizeof status) {
        size_t text = length - sizeof status;
        snprintf(reason, sizeof reason, "%.*s", (int)(text < 400 ? text : 400), data + sizeof status);
        for (char *c = reason; *c; c++)
            if ((unsigned char)*c < ' ' || *c == 127)
                *c = ' ';
    }
}

static void handle_frame(const struct frame *frame, const char *data)
{
    uint32_t number = 0;
    if (frame->length >= sizeof number)
        memcpy(&number, data, sizeof number);
    if (frame->type == FRAME_HELLO)
        start_pod(data, frame->length);
    else if (!machine.started)
        return;
    else if (frame->type == FRAME_FILE)
        take_pod_file(data, frame->length, false);
    else if (frame->type == FRAME_REMOVE)
        take_pod_file(data, frame->length, true);
    else if (frame->type == FRAME_LOG)
        take_log(data, frame->length);
    else if (frame->type == FRAME_STATUS)
        command_ended(frame->channel, number);
    else if (frame->type == FRAME_CLOSE)
        channel_closed(frame->channel);
    else if (frame->type == FRAME_END)
        take_end(data, frame->length);
}

static void remember(struct memory *memory, const char *text, size_t length)
{
    if (length > REMEMBERED)
        length = REMEMBERED;
    if (memory->length + length > REMEMBERED) {
        size_t gone = memory->length + length - REMEMBERED;
        memmove(memory->text, memory->text + gone, memory->length - gone);
        memory->length -= gone;
    }
    memcpy(memory->text + memory->length, text, length);
    memory->length += length;
    memory->text[memory->length] = '\0';
}

/* False at its end. */
static bool hear(int fd, struct memory *memory)
{
    char text[4096];
    ssize_t got = read(fd, text, sizeof text);
    if (got > 0)
        remember(memory, text, (size_t)got);
    return got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR));
}

static void stop_pod(int number)
{
    uint32_t signal = (uint32_t)number;
    if (!machine.started) {
        end_machine();
        snprintf(reason, sizeof reason, "it was stopped before it had booted");
        machine.status = 128 + number;
        machine.ended = true;
        return;
    }
    mux_send(FRAME_SIGNAL, 0, &signal, sizeof signal);
    int64_t deadline = now_ms() + (number == SIGQUIT ? FORCED_MS : machine.stop_ms + MARGIN_MS);
    if (machine.deadline == 0 || deadline < machine.deadline)
        machine.deadline = deadline;
}

static void take_signals(void)
{
    struct signalfd_siginfo info;
    while (read(signals, &info, sizeof info) == (ssize_t)sizeof info) {
        int number = (int)info.ssi_signo;
        uint32_t signal = info.ssi_signo;
        struct window window;
        if (number == SIGTERM || number == SIGINT || number == SIGQUIT)
            stop_pod(number);
        else if (number == SIGWINCH && machine.started && own_terminals(&window))
            mux_send(FRAME_RESIZE, 0, &window, sizeof window);
        else if ((number == SIGHUP || number == SIGUSR1 || number == SIGUSR2) && machine.started)
            mux_send(FRAME_SIGNAL, 0, &signal, sizeof signal);
        else if (number == SIGCHLD) {
            if (!machine.qemu_ended && waitpid(machine.qemu, &machine.qemu_status, WNOHANG) == machine.qemu)
                machine.qemu_ended = true;
            if (machine.server > 0 && !machine.server_ended &&
                waitpid(machine.server, &machine.server_status, WNOHANG) == machine.server)
                machine.server_ended = true;
        }
    }
}

/* The last line of QEMU's or the kernel's that says why, without its time. */
static void quote(const char *from)
{
    char line[200];
    size_t length = strcspn(from, "\r\n");
    snprintf(line, sizeof line, "%.*s", (int)(length < 180 ? length : 180), from);
    for (char *c = line; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 127)
            *c = ' ';
    size_t used = strlen(reason);
    snprintf(reason + used, sizeof reason - used, ": %s", line);
}

static void quote_errors(void)
{
    while (errors.length > 0 && errors.text[errors.length - 1] == '\n')
        errors.text[--errors.length] = '\0';
    const char *last = strrchr(errors.text, '\n');
    if (errors.length > 0)
        quote(last ? last + 1 : errors.text);
}

/* QEMU has ended, and the pod had not. */
static void find_reason(bool late)
{
    /* What they said last may still be there. */
    while (hear(console_fd, &console) && poll(&(struct pollfd){ .fd = console_fd, .events = POLLIN }, 1, 0) > 0)
        ;
    while (poll(&(struct pollfd){ .fd = errors_fd, .events = POLLIN }, 1, 0) > 0 && hear(errors_fd, &errors))
        ;
    const char *panic = strstr(console.text, "Kernel panic - not syncing");
    bool was_killed = machine.qemu_ended && WIFSIGNALED(machine.qemu_status);
    if (machine.server_ended && machine.server_status != 0 && !was_killed) {
        snprintf(reason, sizeof reason, "the file server of its volumes ended with status %d",
                 WIFSIGNALED(machine.server_status) ? 128 + WTERMSIG(machine.server_status) : WEXITSTATUS(machine.server_status));
        quote_errors();
    } else if (late)
        snprintf(reason, sizeof reason, "it did not stop in time and was ended");
    else if (panic) {
        snprintf(reason, sizeof reason, "its kernel panicked");
        quote(panic + strlen("Kernel panic - not syncing: "));
    } else if (WIFSIGNALED(machine.qemu_status))
        snprintf(reason, sizeof reason, "QEMU was killed by signal %d (%s)", WTERMSIG(machine.qemu_status),
                 strsignal(WTERMSIG(machine.qemu_status)));
    else if (WEXITSTATUS(machine.qemu_status) != 0) {
        snprintf(reason, sizeof reason, "QEMU ended with status %d", WEXITSTATUS(machine.qemu_status));
        quote_errors();
    } else
        snprintf(reason, sizeof reason, machine.started ? "it was reset or switched off from inside"
                                                         : "it ended before it had booted");
}

static bool streams_are_written(void)
{
    for (uint32_t id = CHANNEL_OUT; id < CHANNELS_OF_COMMAND; id++) {
        struct channel *channel = mux_find(id);
        if (channel && !channel_is_written(channel))
            return false;
    }
    return true;
}

static void read_plan(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        die_errno("can't read the machine's plan %s", path);
    plan_load(&plan, fd, "the machine's plan");
    close(fd);
    if (!plan_check(&plan, VERBS))
        die("can't use the machine's plan: %s", plan.error);
    for (size_t i = 0; i < plan.count; i++) {
        const struct step *step = &plan.steps[i];
        const char *verb = word_text(step, 0);
        if (strcmp(verb, "program") == 0)
            program_name = word_text(step, 1);
        else if (strcmp(verb, "interactive") == 0)
            machine.interactive = true;
        else if (strcmp(verb, "listen") == 0)
            listen_at(word_text(step, 1), word_text(step, 2));
        else if (strcmp(verb, "log") == 0)
            log_for(word_text(step, 1), number_of(step, 2, INT64_MAX), (unsigned)number_of(step, 3, 100));
        else if (strcmp(verb, "stop-timeout") == 0)
            machine.stop_ms = (int64_t)number_of(step, 1, 1000000) * 1000;
    }
}

static void clean_up(void)
{
    restore_terminal();
    end_machine();
}

_Noreturn static void leave(void)
{
    clean_up();
    close_sockets();
    if (*reason) {
        write_failure(reason, console.text, console.length);
        die("the machine failed: %s", reason);
    }
    exit(machine.status);
}

_Noreturn void run_host(const char *path)
{
    struct pollfd fds[MOST_POLLED];
    sigset_t all;
    int port;
    machine.stop_ms = 10000;
    listen_for_commands(COMMAND_SOCKET);
    read_plan(path);
    before_death = clean_up;
    const char *listen_pid = getenv("LISTEN_PID");
    if (listen_pid && atoi(listen_pid) == (int)getpid())
        die("can't start the machine: sockets of socket activation can't reach it; let its unit have none");
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    signals = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        die_errno("can't keep a machine");
    start_machine(&plan, &port, &console_fd, &errors_fd);
    fcntl(port, F_SETFL, O_NONBLOCK);
    fcntl(console_fd, F_SETFL, O_NONBLOCK);
    mux_start(port, handle_frame);
    bool hears_console = true, hears_errors = true;
    int64_t ended_ms = 0;
    for (;;) {
        if (machine.ended && ended_ms == 0)
            ended_ms = now_ms();
        /* Who is attached may read too slowly; what the pod itself wrote is waited for. */
        if (machine.ended &&
            (*reason || (streams_are_written() && (mux_is_written() || now_ms() - ended_ms > ATTACHED_MS))))
            leave();
        if (machine.qemu_ended && !machine.ended && mux_has_ended()) {
            find_reason(false);
            machine.ended = true;
            continue;
        }
        if (machine.server_ended && !machine.ended) {
            /* It ends with QEMU, too: who was first? */
            if (!machine.qemu_ended)
                poll(NULL, 0, LAST_WORDS_MS);
            take_signals();
            find_reason(false);
            machine.ended = true;
            continue;
        }
        int64_t left = machine.deadline == 0 ? -1 : machine.deadline - now_ms();
        if (ended_ms != 0)
            left = ATTACHED_MS / 10;
        if (machine.deadline != 0 && ended_ms == 0 && left <= 0) {
            end_machine();
            find_reason(true);
            machine.ended = true;
            continue;
        }
        size_t used = 0;
        fds[used++] = (struct pollfd){ .fd = signals, .events = POLLIN };
        fds[used++] = (struct pollfd){ .fd = hears_console ? console_fd : -1, .events = POLLIN };
        fds[used++] = (struct pollfd){ .fd = hears_errors ? errors_fd : -1, .events = POLLIN };
        used = sockets_poll(fds, used, MOST_POLLED);
        used = mux_poll(fds, used, MOST_POLLED);
        if (poll(fds, used, left < 0 ? -1 : left > 60000 ? 60000 : (int)left) < 0 && errno != EINTR)
            die_errno("can't wait for the machine");
        if (fds[0].revents)
            take_signals();
        if (fds[1].revents && hears_console)
            hears_console = hear(console_fd, &console);
        if (fds[2].revents && hears_errors)
            hears_errors = hear(errors_fd, &errors);
        mux_ready();
        sockets_ready();
    }
}
