/* SPDX-License-Identifier: MIT */
/*
 * lock.h - a mutex for code that also runs in signal handlers, and that outlives a holder that is killed
 *
 * Held with all signals blocked, so that a handler on the same thread can never want it too; short, and around nothing that can
 * wait or fault. Made of raw system calls: libc's thread state may be another task's. Not fair, not recursive.
 *
 * A task that shares this memory but is a process of its own (clone(2) with CLONE_VM) can be killed alone, at any instruction.
 * The word tells who holds the lock, and whoever has waited for long asks the kernel whether that task still lives. If not, it
 * takes the lock over and is told so: what the lock guards is then as the dead holder left it.
 */
#ifndef BASE_LOCK_H
#define BASE_LOCK_H

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/rawsys.h"

struct lock {
	_Atomic uint32_t
		word; /* futex: 0 free; else the thread id of its holder, with LOCK_WAITED once somebody waits */
};

#define LOCK_WAITED (1u << 31)

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

/* The rest of them, when there is contention. */
bool lock_wait(struct lock *lock, uint32_t self);
void lock_wake(struct lock *lock);

/*
 * With signals blocked already. Acquire: sees what the last holder did. True: the last holder was killed while it held the
 * lock, which is this thread's now.
 */
static inline bool lock_take(struct lock *lock)
{
	uint32_t free = 0, self = (uint32_t)raw_gettid();

	if (atomic_compare_exchange_strong_explicit(&lock->word, &free, self, memory_order_acquire,
	                                            memory_order_relaxed))
		return false;
	return lock_wait(lock, self);
}

static inline void lock_release(struct lock *lock)
{
	if (atomic_exchange_explicit(&lock->word, 0, memory_order_release) & LOCK_WAITED)
		lock_wake(lock);
}

#endif
