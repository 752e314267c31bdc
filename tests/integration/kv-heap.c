// SPDX-License-Identifier: MIT
/* The allocator of examples/kv, against a model of what it has given out. */
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include "kv/heap.h"
#include "support/test.h"

enum { SIZE = 8 << 20, OBJECTS = 2000, STEPS = 200000 };

struct object {
	heap_ref ref;
	uint64_t size;
	unsigned char fill;
};

static uint64_t state = 88172645463325252ULL;

static uint64_t below(uint64_t limit)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % limit;
}

static void *map(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(memory != MAP_FAILED);
	return memory;
}

static uint64_t some_size(void)
{
	switch (below(4)) {
	case 0:
		return 1 + below(64);
	case 1:
		return 1 + below(2048);
	case 2:
		return 1 + below(20000);
	default:
		/* The ends of kinds and of pages. */
		return (16ULL << below(10)) + below(3) - 1;
	}
}

static void check_filled(const struct heap *heap, const struct object *object)
{
	const unsigned char *bytes = heap_at(heap, object->ref);

	for (uint64_t i = 0; i < object->size; i++)
		CHECK(bytes[i] == object->fill);
}

static void take(struct heap *heap, struct object *object)
{
	*object = (struct object){.size = some_size(), .fill = (unsigned char)below(256)};
	object->ref = heap_alloc(heap, object->size);
	if (!object->ref)
		return;
	CHECK_EQ(object->ref % 16, 0);
	CHECK(object->ref + object->size <= heap_size(heap));
	CHECK(heap_usable(heap, object->ref) >= object->size);
	object->size = heap_usable(heap, object->ref);
	memset(heap_at(heap, object->ref), object->fill, object->size);
}

static void give(struct heap *heap, struct object *object)
{
	check_filled(heap, object);
	heap_free(heap, object->ref);
	object->ref = 0;
}

TEST(objects_keep_what_was_written,
     "No object overlaps another one or the heap's own state, whatever is allocated and freed.")
{
	static struct object objects[OBJECTS];
	struct heap *heap = heap_init(map(SIZE / 4), SIZE / 4);
	uint64_t used = 0;
	unsigned refused = 0;

	for (unsigned step = 0; step < STEPS; step++) {
		/* Mostly full for a while, and mostly empty for a while. */
		bool fill = step / 20000 % 2 == 0;
		struct object *object = &objects[below(fill ? OBJECTS : OBJECTS / 10)];

		if (object->ref) {
			used -= object->size;
			give(heap, object);
		} else {
			take(heap, object);
			used += object->ref ? object->size : 0;
			refused += !object->ref;
		}
		CHECK_EQ(heap_used(heap), used);
		if (step % 500 == 0)
			CHECK(heap_check(heap));
	}
	CHECK(refused);
	for (unsigned i = 0; i < OBJECTS; i++)
		if (objects[i].ref)
			give(heap, &objects[i]);
	CHECK(heap_check(heap));
	CHECK_EQ(heap_used(heap), 0);
}

TEST(what_is_free_joins, "When everything has been freed, one object as large as the first can be had again.")
{
	struct heap *heap = heap_init(map(SIZE), SIZE);
	uint64_t most = SIZE;
	heap_ref refs[4096];
	unsigned count = 0;

	for (heap_ref ref = 0; !ref; most -= 4096)
		ref = heap_alloc(heap, most);
	heap_init(heap, SIZE);
	while (count < 4096 && (refs[count] = heap_alloc(heap, some_size())))
		count++;
	/* First every second one. */
	for (unsigned odd = 0; odd < 2; odd++)
		for (unsigned i = odd; i < count; i += 2)
			heap_free(heap, refs[i]);
	CHECK(heap_check(heap));
	CHECK(heap_alloc(heap, most + 4096));
}

TEST(full_heap_says_so, "An allocation that does not fit is 0, and changes nothing.")
{
	struct heap *heap = heap_init(map(HEAP_MIN_SIZE), HEAP_MIN_SIZE);
	uint64_t used;

	CHECK_EQ(heap_alloc(heap, 0), 0);
	CHECK_EQ(heap_alloc(heap, HEAP_MIN_SIZE), 0);
	CHECK_EQ(heap_alloc(heap, UINT64_MAX), 0);
	while (heap_alloc(heap, 100))
		;
	used = heap_used(heap);
	CHECK_EQ(heap_alloc(heap, 100), 0);
	CHECK_EQ(heap_alloc(heap, 4 * 4096), 0);
	CHECK_EQ(heap_used(heap), used);
	CHECK(used > HEAP_MIN_SIZE / 10 * 9);
	CHECK(heap_check(heap));
}

TEST(copy_of_a_heap_is_a_heap, "The bytes of a heap, at another address, are the same heap, and it goes on there.")
{
	char *memory = map(SIZE), *copy = map(SIZE);
	struct heap *heap = heap_init(memory, SIZE), *moved;
	struct object objects[500];

	for (unsigned i = 0; i < 500; i++)
		take(heap, &objects[i]);
	heap_set_root(heap, objects[7].ref);
	memcpy(copy, memory, SIZE);
	CHECK(!munmap(memory, SIZE));
	moved = heap_attach(copy, SIZE);
	CHECK(moved);
	CHECK(heap_check(moved));
	CHECK_EQ(heap_root(moved), objects[7].ref);
	for (unsigned i = 0; i < 500; i++)
		if (objects[i].ref)
			give(moved, &objects[i]);
	CHECK(heap_check(moved));
	CHECK_EQ(heap_used(moved), 0);
}

TEST(unused_pages_stay_untouched,
     "What was never allocated is never touched: it takes no memory, and travels as nothing.")
{
	const size_t size = 64 << 20;
	char *memory = map(size);
	struct heap *heap = heap_init(memory, size);
	size_t pages = size / page_size, resident = 0;
	static unsigned char in_core[(64 << 20) / 4096];

	for (unsigned i = 0; i < 1000; i++)
		heap_free(heap, heap_alloc(heap, 1 + below(100000)));
	CHECK(!mincore(memory, size, in_core));
	for (size_t i = 0; i < pages; i++)
		resident += in_core[i] & 1;
	CHECK(resident < 100);
}

TEST(other_memory_is_no_heap, "Memory that holds no heap, or one of another size, is not taken for one.")
{
	char *memory = map(SIZE);

	CHECK(!heap_attach(memory, SIZE));
	heap_init(memory, SIZE);
	CHECK(heap_attach(memory, SIZE));
	CHECK(!heap_attach(memory, SIZE / 2));
}
