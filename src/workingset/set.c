// SPDX-License-Identifier: MIT
#include <endian.h>
#include <errno.h>
#include <stdlib.h>

#include "workingset/workingset.h"

static struct workingset *new_set(uint64_t room)
{
	struct workingset *set = malloc(sizeof(*set) + room * sizeof(set->offsets[0]));

	if (set)
		*set = (struct workingset){0};
	return set;
}

int workingset_from_order(struct workingset **out, const struct workingset_order *order, uint64_t unit, uint64_t base)
{
	uint64_t count = atomic_load_explicit(&order->count, memory_order_relaxed);
	struct workingset *set;

	count = count < order->most ? count : order->most;
	count = count < WORKINGSET_MOST ? count : WORKINGSET_MOST;
	if (!count)
		return -ENODATA;
	set = new_set(count);
	if (!set)
		return -ENOMEM;
	set->unit = unit;
	for (uint64_t i = 0; i < count; i++) {
		uint32_t number = atomic_load_explicit(&order->numbers[i], memory_order_relaxed);

		if (number)
			set->offsets[set->count++] = base + (uint64_t)(number - 1) * unit;
	}
	if (!set->count) {
		free(set);
		return -ENODATA;
	}
	*out = set;
	return 0;
}

bool workingset_fits(const struct workingset *set, uint64_t size, uint64_t print)
{
	return (!set->size || !size || set->size == size) && (!set->print || !print || set->print == print);
}

/*
 * The print.
 */

#define SAMPLES 16
#define SAMPLE  4096

int workingset_print(struct uf_store *store, uint64_t *print)
{
	uint64_t size = uf_store_size(store), sum = size, words[SAMPLE / 8];
	int err = 0;

	for (uint64_t i = 0; !err && i < SAMPLES; i++) {
		/* Rounded down, so that a server's pages are read whole. */
		uint64_t offset = (size - 1) / SAMPLES * i & ~(uint64_t)(SAMPLE - 1);

		err = uf_store_read(store, words, sizeof(words), offset);
		for (unsigned j = 0; !err && j < SAMPLE / 8; j++)
			sum = (sum ^ le64toh(words[j])) * 0x100000001b3u;
	}
	*print = sum ? sum : 1;
	return err;
}

/*
 * What is to be brought.
 */

/* True: it was not marked before. */
static bool mark(uint64_t *bits, uint64_t n)
{
	uint64_t bit = (uint64_t)1 << n % 64;
	bool fresh = !(bits[n / 64] & bit);

	bits[n / 64] |= bit;
	return fresh;
}

/* The units in which page [offset, offset + set->unit) lies, as far as it is in the place. How many of up to `most` were new. */
static uint64_t mark_page(const struct workingset_place *place, uint64_t offset, uint64_t len, uint64_t most,
                          uint64_t *units)
{
	uint64_t from = offset > place->offset ? offset : place->offset, to = offset + len, count = 0;

	to = to < place->offset + place->len ? to : place->offset + place->len;
	for (uint64_t unit = (from - place->offset) / place->unit;
	     unit <= (to - 1 - place->offset) / place->unit && count < most; unit++)
		count += mark(units, unit);
	return count;
}

static uint64_t mark_all(const struct workingset *set, const struct workingset_place *place, uint64_t most,
                         uint64_t *units, uint64_t *seen)
{
	uint64_t first = place->offset / set->unit, end = place->offset + place->len, count = 0;

	for (uint64_t i = 0; i < set->count && count < most; i++) {
		uint64_t offset = set->offsets[i];

		if (offset + set->unit <= place->offset || offset >= end)
			continue;
		/* Each page once, so that a file that names a large one again and again does not cost more. */
		if (mark(seen, offset / set->unit - first))
			count += mark_page(place, offset, set->unit, most - count, units);
	}
	return count;
}

static uint64_t *new_bits(uint64_t count)
{
	return calloc(count / 64 + 1, sizeof(uint64_t));
}

int64_t workingset_addrs(const struct workingset *set, const struct workingset_place *place, uint64_t most,
                         uint64_t **addrs)
{
	uint64_t *units = new_bits(place->len / place->unit), *seen = new_bits(place->len / set->unit + 1);
	uint64_t count = 0, *out = NULL;

	if (units && seen) {
		count = mark_all(set, place, most, units, seen);
		out = malloc(count * sizeof(*out) + 1);
	}
	/* In the order of their numbers. */
	for (uint64_t word = 0, n = 0; out && n < count; word++)
		for (uint64_t bits = units[word]; bits; bits &= bits - 1)
			out[n++] = place->addr + (word * 64 + (uint64_t)__builtin_ctzll(bits)) * place->unit;
	free(units);
	free(seen);
	*addrs = out;
	return out ? (int64_t)count : -ENOMEM;
}
