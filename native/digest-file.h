/*
 * A file that is written and hashed by a thread of its own, behind the back of the one thread that looks at what the
 * bytes mean. Buffers are handed over, not copied.
 */
#ifndef TSPOD_DIGEST_FILE_H
#define TSPOD_DIGEST_FILE_H

#include <stdbool.h>
#include <stddef.h>

#define DIGEST_FILE_JOBS 16
#define DIGEST_MAX_BYTES 64 /* SHA-512 */

struct digest_file;

/*
 * Takes over a duplicate of fd, which it writes to from its position on. NULL with errno set. `sha512` false: SHA-256.
 */
struct digest_file *digest_file_start(int fd, bool sha512);

/* Waits while DIGEST_FILE_JOBS are under way. */
void digest_file_wait(struct digest_file *file);

/* After digest_file_wait. The bytes must stay until digest_file_done says that as many jobs are done. */
void digest_file_add(struct digest_file *file, const void *data, size_t length);

/* How many jobs are done, from the beginning. */
size_t digest_file_done(struct digest_file *file);

/*
 * Waits for all and ends the thread. The length of the digest; 0 with errno set when a write failed. May be called once.
 */
size_t digest_file_end(struct digest_file *file, unsigned char digest[DIGEST_MAX_BYTES]);

/* After digest_file_end, or instead of it: what is under way is waited for, too. */
void digest_file_free(struct digest_file *file);

#endif
