/*
 * The control socket: one message, one answer, each with its length before it (uint32, little-endian). It lies
 * outside every app's root; only root can reach it. While an answer is owed nothing more is read from that client.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/die.h"
#include "common/numbers.h"
#include "init.h"

#define PATH "/rkt/control"
#define MESSAGE (64 * 1024)
#define LENGTH 4 /* bytes of it */
#define MAGIC "TSPLAN1\n"
#define MAGIC_LENGTH 8
#define CLIENTS 32
#define MOST_SECONDS 86400u

struct client {
    struct watch watch;      /* fd -1: free */
    struct app *waiting_for; /* its `stop` is answered when the app has ended */
    unsigned char head[LENGTH];
    size_t got;       /* of the head and the message */
    size_t length;    /* of the message */
    char *message;    /* the plan's magic, then the message; NULL until the head is whole */
};

static struct client clients[CLIENTS];
static struct watch listener = { .fd = -1 };

struct answer {
    unsigned char bytes[LENGTH + MESSAGE];
    size_t used; /* with the length */
    uint32_t words;
    bool full;
};

static void put_number(unsigned char *at, uint32_t number)
{
    for (int i = 0; i < 4; i++)
        at[i] = (unsigned char)(number >> (8 * i));
}

static void add_word(struct answer *answer, const char *text)
{
    size_t length = strlen(text);
    if (answer->used == 0)
        answer->used = LENGTH + 4; /* and the number of words */
    if (answer->used + 4 + length + 1 > sizeof answer->bytes) {
        answer->full = true;
        return;
    }
    put_number(answer->bytes + answer->used, (uint32_t)length);
    memcpy(answer->bytes + answer->used + 4, text, length + 1);
    answer->used += 4 + length + 1;
    answer->words++;
}

static void drop(struct client *client)
{
    if (client->watch.fd < 0)
        return;
    watch_remove(&client->watch);
    close(client->watch.fd);
    free(client->message);
    *client = (struct client){ .watch = { .fd = -1 } };
}

static void send_answer(struct client *client, struct answer *answer)
{
    put_number(answer->bytes, (uint32_t)(answer->used - LENGTH));
    put_number(answer->bytes + LENGTH, answer->words);
    /* One that does not read its answers is let go. */
    if (send(client->watch.fd, answer->bytes, answer->used, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)answer->used)
        drop(client);
}

static void send_words(struct client *client, const char *first, const char *second)
{
    struct answer answer;
    answer.used = 0;
    answer.words = 0;
    answer.full = false;
    add_word(&answer, first);
    if (second)
        add_word(&answer, second);
    send_answer(client, &answer);
}

static void tell_status(struct client *client)
{
    static struct answer answer;
    answer.used = 0;
    answer.words = 0;
    answer.full = false;
    add_word(&answer, "ok");
    for (struct app *app = pod.apps; app; app = app->next) {
        char pid[16], status[16] = "-", restarts[16];
        snprintf(pid, sizeof pid, "%d", (int)app->pid);
        if (app->status >= 0)
            snprintf(status, sizeof status, "%d", app->status);
        snprintf(restarts, sizeof restarts, "%u", app->restarts);
        add_word(&answer, app->name);
        add_word(&answer, state_name(app->state));
        add_word(&answer, pid);
        add_word(&answer, status);
        add_word(&answer, restarts);
        add_word(&answer, app_is_ready(app) ? "1" : "0");
    }
    if (answer.full)
        send_words(client, "error", "the answer does not fit");
    else
        send_answer(client, &answer);
}

static const char *word(const struct step *step, uint32_t index)
{
    return index < step->count ? word_text(step, index) : NULL;
}

/* -1 where the word is missing; false when it is no number. */
static bool seconds(const char *text, int64_t *ms)
{
    uint64_t number;
    *ms = -1;
    if (!text)
        return true;
    if (!parse_number(text, 10, MOST_SECONDS, &number))
        return false;
    *ms = (int64_t)number * 1000;
    return true;
}

static void add_app(struct client *client, const char *name)
{
    char path[512], error[256];
    if (!*name || strchr(name, '/') || name[0] == '.' || strlen(name) > 200) {
        send_words(client, "error", "that is no app name");
        return;
    }
    if (find_app(name)) {
        send_words(client, "error", "there is an app of that name");
        return;
    }
    snprintf(path, sizeof path, "/rkt/apps/%s/init-plan", name);
    struct app *app = read_added_app(path, name, error);
    if (app)
        write_status(name, "-created", "");
    send_words(client, app ? "ok" : "error", app ? NULL : error);
}

static void resize(struct client *client, struct app *app, const struct step *step)
{
    uint64_t rows, columns;
    char error[256];
    if (!parse_number(word(step, 2), 10, UINT16_MAX, &rows) || !parse_number(word(step, 3), 10, UINT16_MAX, &columns))
        send_words(client, "error", "the size is no number of rows and columns");
    else if (resize_terminal(app, (unsigned)rows, (unsigned)columns, error))
        send_words(client, "ok", NULL);
    else
        send_words(client, "error", error);
}

static void about_app(struct client *client, const char *request, struct app *app, const struct step *step)
{
    char error[256] = "";
    int64_t timeout;
    uint64_t number;
    if (strcmp(request, "start") == 0) {
        if (start_app_by_request(app, error))
            send_words(client, "ok", NULL);
        else
            send_words(client, "error", error);
    } else if (strcmp(request, "stop") == 0) {
        if (!seconds(word(step, 2), &timeout)) {
            send_words(client, "error", "the time-out is no number of seconds");
            return;
        }
        if (app->state == STATE_CREATED || app->state == STATE_EXITED) {
            send_words(client, "ok", NULL);
            return;
        }
        client->waiting_for = app;
        stop_app(app, timeout, true);
    } else if (strcmp(request, "kill") == 0) {
        if (!word(step, 2) || !parse_number(word(step, 2), 10, 64, &number) || number == 0) {
            send_words(client, "error", "that is no signal");
            return;
        }
        signal_app(app, (int)number);
        send_words(client, "ok", NULL);
    } else if (strcmp(request, "resize") == 0) {
        resize(client, app, step);
    } else if (app->state != STATE_CREATED && app->state != STATE_EXITED) {
        send_words(client, "error", "it runs");
    } else {
        finish_streams(app);
        remove_app_cgroup(app);
        forget_app(app);
        send_words(client, "ok", NULL);
    }
}

static void serve(struct client *client, const struct step *step)
{
    const char *request = word_text(step, 0), *name = word(step, 1);
    int64_t timeout;
    if (strcmp(request, "status") == 0 && step->count == 1) {
        tell_status(client);
    } else if (strcmp(request, "stop-pod") == 0 && step->count <= 2) {
        if (!seconds(name, &timeout)) {
            send_words(client, "error", "the time-out is no number of seconds");
            return;
        }
        send_words(client, "ok", NULL);
        end_pod(-1, timeout);
    } else if (strcmp(request, "add") == 0 && step->count == 2) {
        add_app(client, name);
    } else if ((step->count == 2 && (strcmp(request, "start") == 0 || strcmp(request, "remove") == 0)) ||
               (step->count == 3 && strcmp(request, "kill") == 0) ||
               (step->count == 4 && strcmp(request, "resize") == 0) ||
               (step->count >= 2 && step->count <= 3 && strcmp(request, "stop") == 0)) {
        struct app *app = find_app(name);
        if (app)
            about_app(client, request, app, step);
        else
            send_words(client, "error", "there is no app of that name");
    } else {
        send_words(client, "error", "the request is not understood");
    }
}

/* 1: so much was read; 0: nothing is there now; -1: the client is gone. */
static int take(struct client *client, void *into, size_t length)
{
    ssize_t got = recv(client->watch.fd, into, length, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (got <= 0)
        return -1;
    client->got += (size_t)got;
    return 1;
}

/* As `take`; 1 when the message is whole. */
static int take_message(struct client *client)
{
    while (client->got < LENGTH) {
        int taken = take(client, client->head + client->got, LENGTH - client->got);
        if (taken <= 0)
            return taken;
    }
    if (!client->message) {
        const unsigned char *head = client->head;
        client->length = head[0] | (size_t)head[1] << 8 | (size_t)head[2] << 16 | (size_t)head[3] << 24;
        if (client->length > MESSAGE)
            return -1;
        client->message = malloc(MAGIC_LENGTH + client->length + 1);
        if (!client->message)
            return -1;
        memcpy(client->message, MAGIC, MAGIC_LENGTH);
    }
    while (client->got < LENGTH + client->length) {
        size_t done = client->got - LENGTH;
        int taken = take(client, client->message + MAGIC_LENGTH + done, client->length - done);
        if (taken <= 0)
            return taken;
    }
    return 1;
}

static bool is_text(const struct step *step)
{
    for (uint32_t i = 0; i < step->count; i++)
        if (strlen(word_text(step, i)) != step->words[i].length)
            return false;
    return true;
}

static void client_ready(struct watch *watch, uint32_t events)
{
    struct client *client = (struct client *)watch;
    struct plan plan = { 0 };
    if (client->waiting_for) {
        if (events & (EPOLLHUP | EPOLLERR))
            drop(client);
        return;
    }
    int taken = take_message(client);
    if (taken < 0)
        drop(client);
    if (taken <= 0)
        return;
    char *message = client->message;
    client->message = NULL;
    client->got = 0;
    if (!plan_parse(&plan, message, MAGIC_LENGTH + client->length) || plan.count != 1 ||
        !is_text(&plan.steps[0]))
        send_words(client, "error", "the request is malformed");
    else
        serve(client, &plan.steps[0]);
    plan_free(&plan);
    free(message);
    if (client->watch.fd >= 0 && client->waiting_for)
        watch_change(&client->watch, 0);
}

static void listener_ready(struct watch *watch, uint32_t events)
{
    (void)events;
    int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    for (size_t i = 0; i < CLIENTS; i++)
        if (clients[i].watch.fd < 0) {
            clients[i] = (struct client){ .watch = { client_ready, fd } };
            watch_add(&clients[i].watch, EPOLLIN);
            return;
        }
    close(fd); /* too many at once; who asks again gets his turn */
}

void app_has_stopped(struct app *app)
{
    for (size_t i = 0; i < CLIENTS; i++)
        if (clients[i].watch.fd >= 0 && clients[i].waiting_for == app) {
            clients[i].waiting_for = NULL;
            watch_change(&clients[i].watch, EPOLLIN);
            send_words(&clients[i], "ok", NULL);
        }
}

void open_control(void)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = PATH };
    for (size_t i = 0; i < CLIENTS; i++)
        clients[i].watch.fd = -1;
    unlink(PATH);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    mode_t mask = umask(0177);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, CLIENTS) < 0)
        die_errno("can't open the control socket " PATH);
    umask(mask);
    listener = (struct watch){ listener_ready, fd };
    watch_add(&listener, EPOLLIN);
}

void close_control(void)
{
    if (listener.fd >= 0)
        unlink(PATH);
}
