/* SPDX-License-Identifier: MIT */
/* futex.h - wait for a word to change, and wake those who do; between processes, as the words may lie in shared memory */
#ifndef BASE_FUTEX_H
#define BASE_FUTEX_H

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "base/rawsys.h"

/* Returns when woken, when the word is not `expected`, or for no reason at all: look at the word again. */
static inline void futex_wait(_Atomic uint32_t *word, uint32_t expected)
{
	raw_syscall6(SYS_futex, (long)word, FUTEX_WAIT, (long)expected, 0, 0, 0);
}

/* The same, but also returns after a signal handler has run, whether that asked for calls to be restarted or not: true then. */
static inline bool futex_wait_interruptible(_Atomic uint32_t *word, uint32_t expected)
{
	/* A call with a time limit is never restarted behind a handler (signal(7)). */
	struct timespec ages = {.tv_sec = 1000000000};

	return raw_syscall6(SYS_futex, (long)word, FUTEX_WAIT, (long)expected, (long)&ages, 0, 0) == -EINTR;
}

static inline void futex_wake(_Atomic uint32_t *word, int count)
{
	raw_syscall6(SYS_futex, (long)word, FUTEX_WAKE, count, 0, 0, 0);
}

#endif
