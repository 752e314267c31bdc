/* SPDX-License-Identifier: MIT */
/* passing.h - descriptors and bytes over a unix socket. */
#ifndef TESTS_SUPPORT_PASSING_H
#define TESTS_SUPPORT_PASSING_H

#include <stddef.h>

/* Sends len bytes (at least one), with a descriptor unless fd is -1. */
void send_with_fd(int socket, const void *data, size_t len, int fd);

/* Receives exactly len bytes; returns the descriptor that came with them, or -1. */
int receive_with_fd(int socket, void *data, size_t len);

#endif
