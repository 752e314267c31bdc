// SPDX-License-Identifier: MIT
/*
 * Any bytes as the file of a working set; checked is what workingset.h promises of those that are taken, and of what is made of them. The
 * sum is put right first, as no fuzzer would find it, but for every input that ends with an odd byte.
 */
#include <endian.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "workingset/workingset.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(condition)           \
	do {                      \
		if (!(condition)) \
			abort();  \
	} while (0)

/* The print is not fuzzed. */
uint64_t uf_store_size(const struct uf_store *store)
{
	(void)store;
	return 1;
}

int uf_store_read(struct uf_store *store, void *buf, size_t len, uint64_t offset)
{
	(void)store;
	(void)offset;
	memset(buf, 0, len);
	return 0;
}

static void seal(uint8_t *bytes, size_t size)
{
	uint64_t sum = 0xcbf29ce484222325u, word;
	size_t at;

	if (size < 8 || size % 8 || bytes[size - 1] % 2)
		return;
	for (at = 0; at + 8 < size; at += 8) {
		memcpy(&word, bytes + at, 8);
		sum = (sum ^ le64toh(word)) * 0x100000001b3u;
	}
	word = htole64(sum);
	memcpy(bytes + at, &word, 8);
}

static void check_set(const struct workingset *set)
{
	MUST(set->unit >= WORKINGSET_UNIT_MIN && set->unit <= WORKINGSET_UNIT_MAX && !(set->unit & (set->unit - 1)));
	MUST(set->count <= WORKINGSET_MOST);
	for (uint64_t i = 0; i < set->count; i++)
		MUST(!(set->offsets[i] % set->unit) && (!set->size || set->offsets[i] < set->size) &&
		     set->offsets[i] + set->unit <= INT64_MAX);
}

/* Written and read again it is the same. */
static void check_round(const struct workingset *set)
{
	struct workingset *again;
	void *bytes;
	size_t len;

	MUST(!workingset_format(set, &bytes, &len));
	MUST(!workingset_parse(&again, bytes, len));
	MUST(!memcmp(set, again, sizeof(*set) + set->count * sizeof(set->offsets[0])));
	free(again);
	free(bytes);
}

static bool names(const struct workingset *set, uint64_t offset, uint64_t len)
{
	for (uint64_t i = 0; i < set->count; i++)
		if (set->offsets[i] < offset + len && set->offsets[i] + set->unit > offset)
			return true;
	return false;
}

static void check_addrs(const struct workingset *set, struct workingset_place place, uint64_t most)
{
	uint64_t *addrs, before = 0;
	int64_t count = workingset_addrs(set, &place, most, &addrs);

	MUST(count >= 0 && (uint64_t)count <= most);
	for (int64_t i = 0; i < count; i++) {
		uint64_t at = addrs[i] - place.addr;

		MUST(addrs[i] > before && !(at % place.unit) && at < place.len);
		MUST(names(set, place.offset + at, place.unit));
		before = addrs[i];
	}
	free(addrs);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct workingset *set;
	uint8_t *bytes = malloc(size + 1);
	uint64_t offset;

	memcpy(bytes, data, size);
	seal(bytes, size);
	if (!workingset_parse(&set, bytes, size)) {
		check_set(set);
		check_round(set);
		offset = set->count ? set->offsets[set->count / 2] & ~(uint64_t)0xffff : 0;
		check_addrs(set, (struct workingset_place){4096, 0, 1 << 24, 4096}, 1000);
		check_addrs(set, (struct workingset_place){1 << 21, offset, 1 << 24, 1 << 16}, 7);
		free(set);
	}
	free(bytes);
	return 0;
}
