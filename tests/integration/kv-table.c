// SPDX-License-Identifier: MIT
/* The hash table of examples/kv, against a model. */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "kv/hash.h"
#include "kv/table.h"
#include "support/test.h"

enum { SIZE = 32 << 20, KEYS = 4000, STEPS = 300000 };

static const uint64_t seed[2] = {1, 2};

static uint64_t state = 88172645463325252ULL;

static uint64_t below(uint64_t limit)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % limit;
}

static struct heap *new_table_in(size_t size, const uint64_t with[2])
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct heap *heap;

	CHECK(memory != MAP_FAILED);
	heap = heap_init(memory, size);
	CHECK_EQ(table_init(heap, with), 0);
	return heap;
}

static struct heap *new_table(void)
{
	return new_table_in(SIZE, seed);
}

static struct slice text(const char *string)
{
	return (struct slice){string, strlen(string)};
}

static struct slice key_of(unsigned number, char name[16])
{
	return (struct slice){name, (size_t)snprintf(name, 16, "key %u", number)};
}

struct model {
	bool there;
	size_t len;
	char bytes[600];
};

static struct slice some_value(char bytes[300])
{
	size_t len = below(300);

	memset(bytes, (int)below(256), len);
	return (struct slice){bytes, len};
}

static void step(struct heap *heap, unsigned number, struct model *model)
{
	char name[16], bytes[300];
	struct slice key = key_of(number, name), value = some_value(bytes), got;

	switch (below(4)) {
	case 0:
		CHECK_EQ(table_delete(heap, key), model->there);
		model->there = false;
		return;
	case 1:
		if (model->there && model->len + value.len > sizeof(model->bytes))
			return;
		CHECK_EQ(table_append(heap, key, value), 0);
		model->len = model->there ? model->len : 0;
		memcpy(model->bytes + model->len, value.data, value.len);
		model->len += value.len;
		model->there = true;
		return;
	case 2:
		CHECK_EQ(table_set(heap, key, value), 0);
		memcpy(model->bytes, value.data, value.len);
		model->len = value.len;
		model->there = true;
		return;
	default:
		CHECK_EQ(table_get(heap, key, &got), model->there);
		if (model->there)
			CHECK(got.len == model->len && !memcmp(got.data, model->bytes, got.len));
	}
}

TEST(table_is_its_model, "Whatever is set, appended and deleted, every key has the value that it should, and none is "
                         "there that should not.")
{
	static struct model models[KEYS];
	struct heap *heap = new_table();
	uint64_t count = 0;
	char name[16];

	for (unsigned i = 0; i < STEPS; i++) {
		unsigned number = (unsigned)below(KEYS);

		step(heap, number, &models[number]);
	}
	for (unsigned i = 0; i < KEYS; i++) {
		struct slice got;

		CHECK_EQ(table_get(heap, key_of(i, name), &got), models[i].there);
		if (models[i].there)
			CHECK(got.len == models[i].len && !memcmp(got.data, models[i].bytes, got.len));
		count += models[i].there;
	}
	CHECK_EQ(table_count(heap), count);
	CHECK(table_check(heap));
}

TEST(table_grows, "With a hundred thousand keys each is found where it should be.")
{
	struct heap *heap = new_table();
	char name[16];

	for (unsigned i = 0; i < 100000; i++)
		CHECK_EQ(table_set(heap, key_of(i, name), text("value")), 0);
	CHECK_EQ(table_count(heap), 100000);
	CHECK(table_check(heap));
}

TEST(full_table_keeps_what_it_has,
     "When the heap is full, what is refused changes nothing, and there is room again after deletions.")
{
	struct heap *heap = new_table_in(HEAP_MIN_SIZE, seed);
	static char large[5000];
	struct slice value = {large, sizeof(large)}, got;
	unsigned count = 0;
	char name[16];

	while (!table_set(heap, key_of(count, name), value))
		count++;
	CHECK(count > 100);
	CHECK_EQ(table_count(heap), count);
	CHECK(!table_get(heap, key_of(count, name), NULL));
	CHECK_EQ(table_append(heap, key_of(count, name), value), -ENOMEM);
	CHECK(!table_get(heap, key_of(count, name), NULL));
	CHECK_EQ(table_append(heap, key_of(0, name), value), -ENOMEM);
	CHECK(table_get(heap, key_of(0, name), &got) && got.len == sizeof(large));
	CHECK(table_check(heap));
	CHECK(table_delete(heap, key_of(1, name)));
	CHECK_EQ(table_set(heap, key_of(count, name), value), 0);
	CHECK(table_check(heap));
}

TEST(clear_forgets_all, "After a clear nothing is there, and the heap is as empty as at first.")
{
	struct heap *heap = new_table();
	uint64_t empty = heap_used(heap);
	char name[16];

	for (unsigned i = 0; i < 10000; i++)
		CHECK_EQ(table_set(heap, key_of(i, name), text("value")), 0);
	table_clear(heap);
	CHECK_EQ(heap_used(heap), empty);
	CHECK_EQ(table_count(heap), 0);
	CHECK(!table_get(heap, key_of(1, name), NULL));
	CHECK_EQ(table_set(heap, key_of(1, name), text("value")), 0);
	CHECK(table_check(heap));
}

TEST(digest_depends_on_content_only,
     "Two tables with the same keys and values have one digest, whatever their order, seed and size.")
{
	struct heap *one = new_table(), *other = new_table_in(SIZE / 2, (const uint64_t[]){3, 4});
	uint64_t first[2], second[2];
	char name[16];

	for (unsigned i = 0; i < 3000; i++) {
		CHECK_EQ(table_set(one, key_of(i, name), text("value")), 0);
		CHECK_EQ(table_set(other, key_of(2999 - i, name), text("other")), 0);
		CHECK_EQ(table_set(other, key_of(2999 - i, name), text("value")), 0);
	}
	table_digest(one, first);
	table_digest(other, second);
	CHECK(first[0] == second[0] && first[1] == second[1]);
}

TEST(digest_sees_each_change, "A byte that changes, or moves from a key to its value, changes the digest.")
{
	const char *const pairs[][2] = {{"ab", "c"}, {"a", "bc"}, {"c", "ab"}, {"", "abc"}, {"abc", ""}, {"ab", "d"}};
	uint64_t digests[6][2];

	for (unsigned i = 0; i < 6; i++) {
		struct heap *heap = new_table();

		CHECK_EQ(table_set(heap, text("same"), text("everywhere")), 0);
		CHECK_EQ(table_set(heap, text(pairs[i][0]), text(pairs[i][1])), 0);
		table_digest(heap, digests[i]);
		for (unsigned k = 0; k < i; k++)
			CHECK(digests[i][0] != digests[k][0] && digests[i][1] != digests[k][1]);
	}
}

TEST(hash_is_siphash, "The hash is SipHash-2-4: two of its authors' test vectors.")
{
	const uint64_t key[2] = {0x0706050403020100ULL, 0x0f0e0d0c0b0a0908ULL};
	unsigned char bytes[15];

	for (unsigned i = 0; i < 15; i++)
		bytes[i] = (unsigned char)i;
	CHECK(hash_bytes(key, bytes, 0) == 0x726fdb47dd0e0e31ULL);
	CHECK(hash_bytes(key, bytes, 15) == 0xa129ca6149be45e5ULL);
}
