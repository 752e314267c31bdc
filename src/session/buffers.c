// SPDX-License-Identifier: MIT
#include <errno.h>

#include "base/futex.h"
#include "session/buffers.h"

#define LARGE_BYTES (BUFFERS_LARGE * BUFFER_LARGE)
#define ALL_BYTES   (LARGE_BYTES + BUFFERS_SMALL * BUFFER_SMALL)

enum { SMALL, LARGE };

int buffers_init(struct session_buffers *buffers)
{
	*buffers = (struct session_buffers){.memory = raw_map_own(ALL_BYTES)};
	return buffers->memory ? 0 : -ENOMEM;
}

void buffers_end(struct session_buffers *buffers)
{
	raw_unmap(buffers->memory, ALL_BYTES);
	buffers->memory = NULL;
}

/* The lowest that is free of the first `count`; -1: none, or `limit` are taken. */
static int take_bit(_Atomic uint64_t *taken, unsigned count, unsigned limit)
{
	uint64_t seen = atomic_load_explicit(taken, memory_order_relaxed);
	unsigned bit;

	do {
		bit = (unsigned)__builtin_ctzll(~seen);
		if (bit >= count || (unsigned)__builtin_popcountll(seen) >= limit)
			return -1;
		/* Acquire: what the last owner read from it comes before what is written to it now. */
	} while (!atomic_compare_exchange_weak_explicit(taken, &seen, seen | (uint64_t)1 << bit, memory_order_acquire,
	                                                memory_order_relaxed));
	return (int)bit;
}

char *buffers_try(struct session_buffers *buffers, size_t len, unsigned limit)
{
	int bit;

	if (len <= BUFFER_SMALL) {
		bit = take_bit(&buffers->taken[SMALL], BUFFERS_SMALL, BUFFERS_SMALL);
		if (bit >= 0)
			return buffers->memory + LARGE_BYTES + (size_t)bit * BUFFER_SMALL;
	}
	bit = take_bit(&buffers->taken[LARGE], BUFFERS_LARGE, limit);
	return bit < 0 ? NULL : buffers->memory + (size_t)bit * BUFFER_LARGE;
}

static bool all_taken(struct session_buffers *buffers, size_t len)
{
	bool large = atomic_load(&buffers->taken[LARGE]) == ((uint64_t)1 << BUFFERS_LARGE) - 1;

	return large &&
	       (len > BUFFER_SMALL || atomic_load(&buffers->taken[SMALL]) == ((uint64_t)1 << BUFFERS_SMALL) - 1);
}

/* `waiting` and `given` are sequentially consistent: either the giver sees that somebody waits, or that one sees what was given. */
void buffers_wait(struct session_buffers *buffers, size_t len)
{
	uint32_t given;

	atomic_fetch_add(&buffers->waiting, 1);
	given = atomic_load(&buffers->given);
	if (all_taken(buffers, len))
		futex_wait(&buffers->given, given);
	atomic_fetch_sub(&buffers->waiting, 1);
}

char *buffers_take(struct session_buffers *buffers, size_t len, unsigned limit)
{
	char *buffer = buffers_try(buffers, len, limit);

	while (!buffer) {
		uint32_t given;

		atomic_fetch_add(&buffers->waiting, 1);
		given = atomic_load(&buffers->given);
		buffer = buffers_try(buffers, len, limit);
		if (!buffer)
			futex_wait(&buffers->given, given);
		atomic_fetch_sub(&buffers->waiting, 1);
	}
	return buffer;
}

void buffers_give(struct session_buffers *buffers, char *buffer)
{
	size_t at = (size_t)(buffer - buffers->memory);
	unsigned size = at < LARGE_BYTES ? LARGE : SMALL;
	size_t bit = size == LARGE ? at / BUFFER_LARGE : (at - LARGE_BYTES) / BUFFER_SMALL;

	atomic_fetch_and(&buffers->taken[size], ~((uint64_t)1 << bit));
	if (!atomic_load(&buffers->waiting))
		return;
	atomic_fetch_add(&buffers->given, 1);
	futex_wake(&buffers->given, INT_MAX);
}
