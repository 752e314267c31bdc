// SPDX-License-Identifier: MIT
#include "base/bitmap.h"

/* Those of the bits [from, end) that are in the word of `from`. */
static uint64_t mask_of(uint64_t from, uint64_t end)
{
	uint64_t mask = ~(uint64_t)0 << (from % 64), next = (from / 64 + 1) * 64;

	if (end < next)
		mask &= ~(~(uint64_t)0 << (end % 64));
	return mask;
}

static uint64_t next_word(uint64_t at)
{
	return (at / 64 + 1) * 64;
}

uint64_t bitmap_set(_Atomic uint64_t *map, uint64_t from, uint64_t end)
{
	uint64_t count = 0;

	for (uint64_t at = from; at < end; at = next_word(at)) {
		uint64_t mask = mask_of(at, end);
		uint64_t before = atomic_fetch_or_explicit(&map[at / 64], mask, memory_order_acq_rel);

		count += (uint64_t)__builtin_popcountll(mask & ~before);
	}
	return count;
}

uint64_t bitmap_clear(_Atomic uint64_t *map, uint64_t from, uint64_t end)
{
	uint64_t count = 0;

	for (uint64_t at = from; at < end; at = next_word(at)) {
		uint64_t mask = mask_of(at, end);
		uint64_t before = atomic_fetch_and_explicit(&map[at / 64], ~mask, memory_order_acq_rel);

		count += (uint64_t)__builtin_popcountll(mask & before);
	}
	return count;
}

uint64_t bitmap_count(const _Atomic uint64_t *map, uint64_t from, uint64_t end)
{
	uint64_t count = 0;

	for (uint64_t at = from; at < end; at = next_word(at))
		count += (uint64_t)__builtin_popcountll(bitmap_word(map, at / 64) & mask_of(at, end));
	return count;
}

/* The first bit that is set in the words, or with `flip` the first that is not. */
static uint64_t find(const _Atomic uint64_t *map, uint64_t from, uint64_t end, uint64_t flip)
{
	for (uint64_t at = from; at < end; at = next_word(at)) {
		uint64_t found = (bitmap_word(map, at / 64) ^ flip) & mask_of(at, end);

		if (found)
			return at / 64 * 64 + (uint64_t)__builtin_ctzll(found);
	}
	return end;
}

uint64_t bitmap_next(const _Atomic uint64_t *map, uint64_t from, uint64_t end)
{
	return find(map, from, end, 0);
}

uint64_t bitmap_next_clear(const _Atomic uint64_t *map, uint64_t from, uint64_t end)
{
	return find(map, from, end, ~(uint64_t)0);
}

/* The bits of `word` that follow one another from bit `at` on. */
static uint64_t run_of(uint64_t word, unsigned at)
{
	uint64_t rest = ~(word >> at);
	unsigned length = rest ? (unsigned)__builtin_ctzll(rest) : 64;

	return (length == 64 ? ~(uint64_t)0 : ((uint64_t)1 << length) - 1) << at;
}

uint64_t bitmap_claim(_Atomic uint64_t *map, uint64_t from, uint64_t end)
{
	uint64_t at = from;

	while (at < end) {
		_Atomic uint64_t *word = &map[at / 64];
		uint64_t seen = bitmap_word(map, at / 64), mask = mask_of(at, end), run;

		/* Never more than what is returned: whoever asks for another of them meanwhile must find it. */
		do
			run = run_of(seen, at % 64) & mask;
		while (run && !atomic_compare_exchange_weak_explicit(word, &seen, seen & ~run, memory_order_acq_rel,
		                                                     memory_order_acquire));
		at += (uint64_t)__builtin_popcountll(run);
		if (run != mask)
			break;
	}
	return at - from;
}
