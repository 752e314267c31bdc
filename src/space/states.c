// SPDX-License-Identifier: MIT
#include <stdbool.h>
#include <string.h>

#include "base/rawsys.h"
#include "space/states.h"

struct space_block {
	size_t size;       /* of the mapping */
	size_t bytes;      /* of it that have not been given back */
	size_t count;      /* of states in it, those that were given up included */
	size_t ranges;     /* that have some of them */
	uint8_t content[]; /* the states; behind them, in a long block, a counter for each page of the mapping */
};

static struct space_block *map_block(struct space_states *states, size_t size)
{
	struct space_block *block;

	size = (size + states->page_size - 1) & ~(states->page_size - 1);
	block = raw_map_own(size);
	if (block) {
		block->size = block->bytes = size;
		states->bytes += size;
	}
	return block;
}

static void unmap_block(struct space_states *states, struct space_block *block)
{
	states->bytes -= block->bytes;
	raw_unmap(block, block->size);
}

static struct space_block *with_room(struct space_states *states, size_t count)
{
	struct space_block *block = states->open;

	if (!block || block->count + count > states->page_size - sizeof(*block)) {
		block = map_block(states, states->page_size);
		if (block)
			states->open = block;
	}
	return block;
}

static struct space_block *long_block(struct space_states *states, size_t count)
{
	size_t pages = count / states->page_size + 2; /* of states and header, at most */

	return map_block(states, sizeof(struct space_block) + count + 1 + pages * sizeof(uint16_t));
}

struct space_block *space_states_new(struct space_states *states, size_t count, _Atomic uint8_t **state)
{
	struct space_block *block;

	block = count <= states->page_size / 4 ? with_room(states, count) : long_block(states, count);
	if (!block)
		return NULL;
	*state = (_Atomic uint8_t *)(block->content + block->count);
	block->count += count;
	block->ranges++;
	return block;
}

void space_states_free(struct space_states *states)
{
	if (states->open)
		unmap_block(states, states->open);
	states->open = NULL;
}

void space_states_share(struct space_block *block)
{
	block->ranges++;
}

/* `from` and `end`: bytes from the block's start. Whatever was in those pages is not looked at again. */
static void give_back(struct space_states *states, struct space_block *block, size_t from, size_t end)
{
	if (!raw_madvise((uint64_t)(uintptr_t)block + from, end - from, MADV_DONTNEED)) {
		states->bytes -= end - from;
		block->bytes -= end - from;
	}
}

/* Within one page: that goes once all of it was given up. */
static void count_out(struct space_states *states, struct space_block *block, size_t from, size_t end)
{
	size_t behind = (block->count + 1) & ~(size_t)1, page = from / states->page_size;
	uint16_t *dead = (uint16_t *)(void *)(block->content + behind) + page;

	/* Of a page of 64 KiB the counter is 0 again then; before it was less, and is not now. */
	*dead = (uint16_t)(*dead + (end - from));
	if (*dead == (uint16_t)states->page_size)
		give_back(states, block, page * states->page_size, (page + 1) * states->page_size);
}

static void give_up(struct space_states *states, struct space_block *block, size_t from, size_t end)
{
	size_t first = (from + states->page_size - 1) & ~(states->page_size - 1), last = end & ~(states->page_size - 1);

	if (first > last) {
		count_out(states, block, from, end);
		return;
	}
	if (from < first)
		count_out(states, block, from, first);
	if (first < last)
		give_back(states, block, first, last);
	if (last < end)
		count_out(states, block, last, end);
}

void space_states_drop(struct space_states *states, struct space_block *block, const _Atomic uint8_t *state,
                       size_t count)
{
	size_t from = (size_t)((uintptr_t)state - (uintptr_t)block);

	block->ranges--;
	if (block->ranges) {
		/* A block of one page goes as a whole. */
		if (block->size > states->page_size)
			give_up(states, block, from, from + count);
	} else if (block == states->open) {
		memset(block->content, 0, block->count);
		block->count = 0;
	} else {
		unmap_block(states, block);
	}
}

/* Eight at once: most of a large space has never been touched. */
static bool eight_unused(const _Atomic uint8_t *state)
{
	typedef uint64_t __attribute__((may_alias)) word;

	return !__atomic_load_n((const word *)(const void *)state, __ATOMIC_RELAXED);
}

size_t space_states_used(const _Atomic uint8_t *state, size_t from, size_t count)
{
	size_t i = from;

	while (i < count) {
		if (!((uintptr_t)(state + i) % 8) && count - i >= 8 && eight_unused(state + i))
			i += 8;
		else if (!atomic_load_explicit(state + i, memory_order_relaxed))
			i++;
		else
			break;
	}
	return i;
}
