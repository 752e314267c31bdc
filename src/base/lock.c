// SPDX-License-Identifier: MIT
#include <time.h>

#include "base/futex.h"
#include "base/lock.h"
#include "base/task.h"

/* How long a holder is trusted to live. Nothing but the time until a dead one is noticed depends on it. */
static const struct timespec patience = {.tv_nsec = 10 * 1000 * 1000};

bool lock_wait(struct lock *lock, uint32_t self)
{
	uint32_t word = atomic_load_explicit(&lock->word, memory_order_relaxed);

	for (;;) {
		/* Whoever has waited keeps the mark: others may wait still. */
		if (!word) {
			if (atomic_compare_exchange_weak_explicit(&lock->word, &word, self | LOCK_WAITED,
			                                          memory_order_acquire, memory_order_relaxed))
				return false;
			continue;
		}
		if (!(word & LOCK_WAITED) &&
		    !atomic_compare_exchange_weak_explicit(&lock->word, &word, word | LOCK_WAITED, memory_order_relaxed,
		                                           memory_order_relaxed))
			continue;
		word |= LOCK_WAITED;
		if (futex_sleep(&lock->word, word, &patience, false) == -ETIMEDOUT &&
		    task_is_gone(word & ~LOCK_WAITED) &&
		    atomic_compare_exchange_strong_explicit(&lock->word, &word, self | LOCK_WAITED,
		                                            memory_order_acquire, memory_order_relaxed))
			return true;
		word = atomic_load_explicit(&lock->word, memory_order_relaxed);
	}
}

void lock_wake(struct lock *lock)
{
	futex_wake(&lock->word, 1);
}
