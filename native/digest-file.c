#define _GNU_SOURCE
#include "digest-file.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

/*
 * OpenSSL's digests, which the node executable brings and exports (as its headers do for addons); declared here to do
 * without them.
 */
typedef struct evp_md_ctx_st EVP_MD_CTX;
typedef struct evp_md_st EVP_MD;
extern EVP_MD_CTX *EVP_MD_CTX_new(void);
extern void EVP_MD_CTX_free(EVP_MD_CTX *);
extern const EVP_MD *EVP_sha256(void);
extern const EVP_MD *EVP_sha512(void);
extern int EVP_DigestInit_ex(EVP_MD_CTX *, const EVP_MD *, void *engine);
extern int EVP_DigestUpdate(EVP_MD_CTX *, const void *, size_t);
extern int EVP_DigestFinal_ex(EVP_MD_CTX *, unsigned char *, unsigned int *);

struct job {
    const unsigned char *data;
    size_t length;
};

struct digest_file {
    int fd;
    EVP_MD_CTX *hash;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct job jobs[DIGEST_FILE_JOBS];
    size_t added, done;
    bool ends, joined;
    int err; /* of the first write that failed; after it nothing is written */
};

static int write_all(int fd, const unsigned char *data, size_t length)
{
    while (length > 0) {
        ssize_t written = write(fd, data, length);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return errno;
        data += written;
        length -= (size_t)written;
    }
    return 0;
}

static void *serve(void *argument)
{
    struct digest_file *file = argument;
    pthread_mutex_lock(&file->lock);
    for (;;) {
        while (file->done == file->added && !file->ends)
            pthread_cond_wait(&file->changed, &file->lock);
        if (file->done == file->added)
            break;
        struct job job = file->jobs[file->done % DIGEST_FILE_JOBS];
        bool failed = file->err != 0;
        pthread_mutex_unlock(&file->lock);
        int err = 0;
        if (!failed) {
            err = write_all(file->fd, job.data, job.length);
            if (!err && !EVP_DigestUpdate(file->hash, job.data, job.length))
                err = ENOMEM;
        }
        pthread_mutex_lock(&file->lock);
        if (err)
            file->err = err;
        file->done++;
        pthread_cond_broadcast(&file->changed);
    }
    pthread_mutex_unlock(&file->lock);
    return NULL;
}

/* The thread takes the confinement of the one that makes it, and no signals. */
static int start_thread(struct digest_file *file)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int err = pthread_create(&file->thread, NULL, serve, file);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return err;
}

struct digest_file *digest_file_start(int fd, bool sha512)
{
    struct digest_file *file = calloc(1, sizeof *file);
    if (!file)
        return NULL;
    int err = ENOMEM;
    file->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (file->fd < 0) {
        err = errno;
    } else if ((file->hash = EVP_MD_CTX_new()) &&
               EVP_DigestInit_ex(file->hash, sha512 ? EVP_sha512() : EVP_sha256(), NULL)) {
        pthread_mutex_init(&file->lock, NULL);
        pthread_cond_init(&file->changed, NULL);
        err = start_thread(file);
        if (!err)
            return file;
    }
    if (file->fd >= 0)
        close(file->fd);
    EVP_MD_CTX_free(file->hash);
    free(file);
    errno = err;
    return NULL;
}

void digest_file_wait(struct digest_file *file)
{
    pthread_mutex_lock(&file->lock);
    while (file->added - file->done == DIGEST_FILE_JOBS)
        pthread_cond_wait(&file->changed, &file->lock);
    pthread_mutex_unlock(&file->lock);
}

void digest_file_add(struct digest_file *file, const void *data, size_t length)
{
    pthread_mutex_lock(&file->lock);
    file->jobs[file->added++ % DIGEST_FILE_JOBS] = (struct job){ data, length };
    pthread_cond_broadcast(&file->changed);
    pthread_mutex_unlock(&file->lock);
}

size_t digest_file_done(struct digest_file *file)
{
    pthread_mutex_lock(&file->lock);
    size_t done = file->done;
    pthread_mutex_unlock(&file->lock);
    return done;
}

static void join(struct digest_file *file)
{
    if (file->joined)
        return;
    pthread_mutex_lock(&file->lock);
    file->ends = true;
    pthread_cond_broadcast(&file->changed);
    pthread_mutex_unlock(&file->lock);
    pthread_join(file->thread, NULL);
    file->joined = true;
}

size_t digest_file_end(struct digest_file *file, unsigned char digest[DIGEST_MAX_BYTES])
{
    join(file);
    unsigned int length = 0;
    if (!file->err && !EVP_DigestFinal_ex(file->hash, digest, &length))
        file->err = ENOMEM;
    errno = file->err;
    return file->err ? 0 : length;
}

void digest_file_free(struct digest_file *file)
{
    join(file);
    close(file->fd);
    EVP_MD_CTX_free(file->hash);
    pthread_cond_destroy(&file->changed);
    pthread_mutex_destroy(&file->lock);
    free(file);
}
