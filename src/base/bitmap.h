/* SPDX-License-Identifier: MIT */
/*
 * bitmap.h - sets of page numbers, which several threads may change at the same time
 *
 * Of 64-bit words; the caller has the memory, BITMAP_SIZE() bytes of zeros. A change releases and a look acquires: who finds a bit
 * sees what was done before it was set. Ranges are [from, end). Word by word: a range is not changed as a whole.
 */
#ifndef BASE_BITMAP_H
#define BASE_BITMAP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define BITMAP_SIZE(bits) (((bits) + 63) / 64 * sizeof(uint64_t))

static inline bool bitmap_test(const _Atomic uint64_t *map, uint64_t at)
{
	return atomic_load_explicit(&map[at / 64], memory_order_acquire) >> (at % 64) & 1;
}

/* How many were not in the set, or were in it, before. */
uint64_t bitmap_set(_Atomic uint64_t *map, uint64_t from, uint64_t end);
uint64_t bitmap_clear(_Atomic uint64_t *map, uint64_t from, uint64_t end);

uint64_t bitmap_count(const _Atomic uint64_t *map, uint64_t from, uint64_t end);

/* The first from `from` on that is in the set, or is not; `end` when there is none. */
uint64_t bitmap_next(const _Atomic uint64_t *map, uint64_t from, uint64_t end);
uint64_t bitmap_next_clear(const _Atomic uint64_t *map, uint64_t from, uint64_t end);

/*
 * Takes the run that begins at `from` out of the set, and returns its length; 0: `from` is not in it. Each member is had by one caller only.
 */
uint64_t bitmap_claim(_Atomic uint64_t *map, uint64_t from, uint64_t end);

/* Word `at` and what is in it, for those who send or receive the set. */
static inline uint64_t bitmap_word(const _Atomic uint64_t *map, uint64_t at)
{
	return atomic_load_explicit(&map[at], memory_order_acquire);
}

#endif
