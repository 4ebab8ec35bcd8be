#define _GNU_SOURCE
#include "write-queue.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* The kernel copies 500 MB a second and core; what comes out of gunzip is less than two cores can take. */
#define THREADS 2
#define MAX_JOBS 256
#define MAX_BYTES (4u << 20)

static struct {
    pthread_mutex_t lock;
    pthread_cond_t work;  /* there is a job */
    pthread_cond_t space; /* a job was done */
    struct write_job *first;
    struct write_job **last;
    size_t jobs;  /* waiting and under way */
    size_t bytes; /* of these */
    unsigned taken; /* jobs since the last drain: taken in the order in which they came */
    bool started;
    bool failed;
    struct write_failure failure;
} queue = { .lock = PTHREAD_MUTEX_INITIALIZER,
            .work = PTHREAD_COND_INITIALIZER,
            .space = PTHREAD_COND_INITIALIZER };

struct taken {
    struct write_job *job;
    unsigned number;
};

static const char *perform(const struct write_job *job)
{
    const char *data = job->data;
    size_t left = job->length;
    off_t offset = job->offset;
    while (left > 0) {
        ssize_t written = pwrite(job->fd, data, left, offset);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return "write";
        data += written;
        offset += written;
        left -= (size_t)written;
    }
    if (!job->finishes)
        return NULL;
    if (fchown(job->fd, job->uid, job->gid) < 0)
        return "fchown";
    if (fchmod(job->fd, job->mode) < 0) /* after fchown, which clears setuid and setgid */
        return "fchmod";
    struct timespec times[2] = { job->mtime, job->mtime };
    return futimens(job->fd, times) < 0 ? "futimens" : NULL;
}

static struct taken take(void)
{
    while (!queue.first)
        pthread_cond_wait(&queue.work, &queue.lock);
    struct taken taken = { queue.first, queue.taken++ };
    queue.first = taken.job->next;
    if (!queue.first)
        queue.last = &queue.first;
    return taken;
}

static void *serve(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&queue.lock);
    for (;;) {
        struct taken taken = take();
        pthread_mutex_unlock(&queue.lock);
        const char *failed = perform(taken.job);
        int err = errno;
        if (taken.job->finishes && close(taken.job->fd) < 0 && !failed && errno != EINTR) {
            failed = "close";
            err = errno;
        }
        size_t length = taken.job->length;
        free(taken.job);
        pthread_mutex_lock(&queue.lock);
        if (failed && (!queue.failed || taken.number < queue.failure.job)) {
            queue.failed = true;
            queue.failure = (struct write_failure){ taken.number, err, failed };
        }
        queue.jobs--;
        queue.bytes -= length;
        pthread_cond_signal(&queue.space);
    }
    return NULL;
}

/* They live as long as the process, and take the confinement of the thread that makes them. */
static bool start(void)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int err = 0;
    for (int i = 0; i < THREADS && !err; i++) {
        pthread_t thread;
        err = pthread_create(&thread, NULL, serve, NULL);
        if (!err)
            pthread_detach(thread);
        else if (i > 0)
            err = 0; /* one will do */
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = err;
    return err == 0;
}

bool write_queue_add(struct write_job *job)
{
    pthread_mutex_lock(&queue.lock);
    if (!queue.started) {
        queue.last = &queue.first;
        queue.started = start();
        if (!queue.started) {
            pthread_mutex_unlock(&queue.lock);
            return false;
        }
    }
    while (queue.jobs > 0 && (queue.jobs >= MAX_JOBS || queue.bytes + job->length > MAX_BYTES))
        pthread_cond_wait(&queue.space, &queue.lock);
    job->next = NULL;
    *queue.last = job;
    queue.last = &job->next;
    queue.jobs++;
    queue.bytes += job->length;
    pthread_cond_signal(&queue.work);
    pthread_mutex_unlock(&queue.lock);
    return true;
}

bool write_queue_drain(struct write_failure *failure)
{
    pthread_mutex_lock(&queue.lock);
    while (queue.jobs > 0)
        pthread_cond_wait(&queue.space, &queue.lock);
    bool failed = queue.failed;
    if (failed)
        *failure = queue.failure;
    queue.failed = false;
    queue.taken = 0;
    pthread_mutex_unlock(&queue.lock);
    return failed;
}
