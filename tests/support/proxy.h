/* SPDX-License-Identifier: MIT */
/*
 * proxy.h - a network that breaks
 *
 * Passes connections on to another address and cuts them after a random number of bytes: in the middle of a message, or before the first
 * byte, with or without a reset; and holds bytes back for a moment now and then. A process of its own, which ends with the test.
 */
#ifndef TESTS_SUPPORT_PROXY_H
#define TESTS_SUPPORT_PROXY_H

#include <stdatomic.h>
#include <stdint.h>

struct proxy {
	_Atomic unsigned cuts; /* so far */
	_Atomic unsigned calm; /* not 0: no more of them */
	_Atomic uint64_t most; /* bytes that a connection may pass on, at most; 0: 1 MiB */
	char address[64];      /* where it listens */
};

/* To the TCP port that `address` names, tcp://127.0.0.1:PORT. In memory that processes share. */
struct proxy *proxy_start(const char *address, uint64_t seed);

#endif
