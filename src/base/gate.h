/* SPDX-License-Identifier: MIT */
/*
 * gate.h - many may be inside, or one may change what is inside
 *
 * Of atomics and futexes alone, so that signal handlers may enter. Who enters has all signals blocked until it leaves, for a handler
 * on the same thread that entered once more would wait for a closer who waits for this thread. Only one may close at a time: a matter
 * of the caller's lock.
 */
#ifndef BASE_GATE_H
#define BASE_GATE_H

#include <stdbool.h>

#include "base/futex.h"

struct gate {
	_Atomic uint32_t
		word; /* futex: how many are inside, whether it is closed, and whether somebody sleeps until it is not */
};

#define GATE_CLOSED (1u << 31)
#define GATE_WAITED (1u << 30)

static inline void gate_leave(struct gate *gate)
{
	/* Release: whoever closes sees all that was done inside. */
	uint32_t before = atomic_fetch_sub_explicit(&gate->word, 1, memory_order_release);

	if ((before & ~GATE_WAITED) == (GATE_CLOSED | 1))
		futex_wake(&gate->word, INT_MAX);
}

/* Acquire: sees all that the last one who closed has changed. */
static inline void gate_enter(struct gate *gate)
{
	while (atomic_fetch_add_explicit(&gate->word, 1, memory_order_acquire) & GATE_CLOSED) {
		uint32_t seen;

		gate_leave(gate);
		/* Without trying again before it is open: whoever leaves wakes all, and they would wake one another without end. */
		while ((seen = atomic_load_explicit(&gate->word, memory_order_relaxed)) & GATE_CLOSED) {
			if (!(seen & GATE_WAITED) &&
			    !atomic_compare_exchange_weak_explicit(&gate->word, &seen, seen | GATE_WAITED,
			                                           memory_order_relaxed, memory_order_relaxed))
				continue;
			futex_wait(&gate->word, seen | GATE_WAITED);
		}
	}
}

/* False: it is closed. */
static inline bool gate_try_enter(struct gate *gate)
{
	if (!(atomic_fetch_add_explicit(&gate->word, 1, memory_order_acquire) & GATE_CLOSED))
		return true;
	gate_leave(gate);
	return false;
}

/* Returns when nobody is inside. */
static inline void gate_close(struct gate *gate)
{
	uint32_t seen = atomic_fetch_or_explicit(&gate->word, GATE_CLOSED, memory_order_acquire) | GATE_CLOSED;

	while ((seen & ~GATE_WAITED) != GATE_CLOSED) {
		futex_wait(&gate->word, seen);
		seen = atomic_load_explicit(&gate->word, memory_order_acquire);
	}
}

static inline void gate_open(struct gate *gate)
{
	uint32_t before = atomic_fetch_and_explicit(&gate->word, ~(GATE_CLOSED | GATE_WAITED), memory_order_release);

	if (before & GATE_WAITED)
		futex_wake(&gate->word, INT_MAX);
}

#endif
