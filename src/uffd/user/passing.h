/* SPDX-License-Identifier: MIT */
/* passing.h - messages with descriptors over a unix socket */
#ifndef UFFD_USER_PASSING_H
#define UFFD_USER_PASSING_H

#include <stddef.h>
#include <sys/types.h>

#define PASS_MAX 4

/* Sends one message, without waiting: who does not read has nothing to say. 0 or -errno. */
int user_pass(int socket, const void *data, size_t len, const int *fds, size_t count);

/*
 * Receives one message of at most `len` bytes, and at most *count descriptors (close-on-exec, the caller's); further ones are closed by
 * the kernel. Returns its length, or -errno; *count is what came.
 */
ssize_t user_receive(int socket, void *data, size_t len, int *fds, size_t *count);

#endif
