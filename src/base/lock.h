/* SPDX-License-Identifier: MIT */
/*
 * lock.h - a mutex for code that also runs in signal handlers
 *
 * Held with all signals blocked, so that a handler on the same thread can never want it too; short, and around nothing that can
 * wait or fault. Made of raw system calls: libc's thread state may be another task's. Not fair, not recursive.
 */
#ifndef BASE_LOCK_H
#define BASE_LOCK_H

#include <signal.h>
#include <stdatomic.h>
#include <string.h>

#include "base/futex.h"
#include "base/rawsys.h"

struct lock {
	_Atomic uint32_t word; /* futex: 0 free, 1 held, 2 held and waited for */
};

/* The kernel's signal set: smaller than libc's. */
typedef uint64_t signal_mask;

static inline signal_mask block_signals(void)
{
	signal_mask all = ~(signal_mask)0, before = 0;

	raw_syscall6(SYS_rt_sigprocmask, SIG_BLOCK, (long)&all, (long)&before, sizeof(all), 0, 0);
	return before;
}

static inline void restore_signals(signal_mask before)
{
	raw_syscall6(SYS_rt_sigprocmask, SIG_SETMASK, (long)&before, 0, sizeof(before), 0, 0);
}

/* With signals blocked already. Acquire: sees what the last holder did. */
static inline void lock_take(struct lock *lock)
{
	uint32_t free = 0;

	if (atomic_compare_exchange_strong_explicit(&lock->word, &free, 1, memory_order_acquire, memory_order_relaxed))
		return;
	while (atomic_exchange_explicit(&lock->word, 2, memory_order_acquire) != 0)
		futex_wait(&lock->word, 2);
}

static inline void lock_release(struct lock *lock)
{
	if (atomic_exchange_explicit(&lock->word, 0, memory_order_release) == 2)
		futex_wake(&lock->word, 1);
}

#endif
