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

/*
 * scope: 0, or FUTEX_PRIVATE_FLAG where only tasks that share this memory wake, which finds it faster.
 *
 * The same, but for at most `timeout` (NULL: no limit): -ETIMEDOUT; or until a signal handler has run: -EINTR. With `restart` and no
 * timeout it goes on behind handlers that asked for that.
 */
static inline long futex_sleep_in(int scope, _Atomic uint32_t *word, uint32_t expected, const struct timespec *timeout,
                                  bool restart)
{
	/* A call with a time limit is never restarted behind a handler (signal(7)). */
	static const struct timespec ages = {.tv_sec = 1000000000};

	if (!timeout && !restart)
		timeout = &ages;
	return raw_syscall6(SYS_futex, (long)word, FUTEX_WAIT | scope, (long)expected, (long)timeout, 0, 0);
}

static inline long futex_sleep(_Atomic uint32_t *word, uint32_t expected, const struct timespec *timeout, bool restart)
{
	return futex_sleep_in(0, word, expected, timeout, restart);
}

/* Returns how many it has woken. */
static inline long futex_wake_in(int scope, _Atomic uint32_t *word, int count)
{
	return raw_syscall6(SYS_futex, (long)word, FUTEX_WAKE | scope, count, 0, 0, 0);
}

static inline long futex_wake(_Atomic uint32_t *word, int count)
{
	return futex_wake_in(0, word, count);
}

#endif
