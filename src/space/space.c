// SPDX-License-Identifier: MIT
#include <errno.h>
#include <unistd.h>

#include "base/rawsys.h"
#include "space/space.h"
#include "space/states.h"
#include "space/tree.h"

#define UNIT_MIN 4096u

/* In a mapping of its own, as all that it refers to. */
struct space {
	struct space_tree tree;
	struct space_states states;
	uint64_t last_id, last_turn;
};

static struct space_range *range_at(const struct space *space, uint32_t index)
{
	return &space->tree.nodes[index].range;
}

static size_t pages_of(const struct space_range *range)
{
	return (size_t)(range->len / range->unit);
}

/* The first range that ends behind addr and starts before `end`; 0: none. */
static uint32_t next_before(const struct space *space, uint64_t addr, uint64_t end)
{
	uint32_t index = space_tree_next(&space->tree, addr);

	return index && range_at(space, index)->start < end ? index : 0;
}

static void end_range(struct space *space, uint32_t index)
{
	struct space_node *node = &space->tree.nodes[index];

	space_states_drop(&space->states, node->block, node->range.state, pages_of(&node->range));
	space_tree_remove(&space->tree, index);
}

void space_free(struct space *space)
{
	if (!space)
		return;
	for (; space->tree.count; space->tree.count--) {
		struct space_node *node = &space->tree.nodes[space->tree.count];

		space_states_drop(&space->states, node->block, node->range.state, pages_of(&node->range));
	}
	space_states_free(&space->states);
	space_tree_free(&space->tree);
	raw_unmap(space, sizeof(*space));
}

int space_new(struct space **out)
{
	struct space *space = raw_map_own(sizeof(*space));
	int err;

	if (!space)
		return -ENOMEM;
	space->states.page_size = (size_t)sysconf(_SC_PAGESIZE);
	err = space_tree_reserve(&space->tree, 0);
	if (err)
		space_free(space);
	else
		*out = space;
	return err;
}

static bool is_area(uint64_t start, uint64_t len)
{
	return len && start % UNIT_MIN == 0 && len % UNIT_MIN == 0 && start <= UINT64_MAX - len;
}

static bool is_sound(const struct space_range *range)
{
	uint64_t unit = range->unit;

	return unit >= UNIT_MIN && !(unit & (unit - 1)) && is_area(range->start, range->len) &&
	       range->start % unit == 0 && range->len % unit == 0 && range->offset <= UINT64_MAX - range->len;
}

int space_insert(struct space *space, const struct space_range *range, uint64_t *id)
{
	struct space_range own = *range;
	struct space_block *block;

	if (!is_sound(range))
		return -EINVAL;
	if (next_before(space, range->start, space_range_end(range)))
		return -EEXIST;
	if (space_tree_reserve(&space->tree, 1))
		return -ENOMEM;
	block = space_states_new(&space->states, pages_of(range), &own.state);
	if (!block)
		return -ENOMEM;
	own.id = ++space->last_id;
	own.turn = 0;
	if (id)
		*id = own.id;
	space->tree.nodes[space_tree_add(&space->tree, &own)].block = block;
	return 0;
}

bool space_next(const struct space *space, uint64_t addr, struct space_range *out)
{
	uint32_t index = space_tree_next(&space->tree, addr);

	if (index)
		*out = *range_at(space, index);
	return index;
}

bool space_find(const struct space *space, uint64_t addr, struct space_range *out)
{
	uint32_t index = space_tree_next(&space->tree, addr);

	if (!index || range_at(space, index)->start > addr)
		return false;
	*out = *range_at(space, index);
	return true;
}

/* The range that would be two if it were cut at addr; 0: none would. */
static uint32_t cut_by(const struct space *space, uint64_t addr)
{
	uint32_t index = space_tree_next(&space->tree, addr);

	return index && range_at(space, index)->start < addr ? index : 0;
}

/* No page is cut through at its ends. */
static bool can_cut_out(const struct space *space, uint64_t start, uint64_t len)
{
	uint32_t first = cut_by(space, start), last = cut_by(space, start + len);

	return (!first || start % range_at(space, first)->unit == 0) &&
	       (!last || (start + len) % range_at(space, last)->unit == 0);
}

/* There is room for one more. */
static void cut(struct space *space, uint64_t addr)
{
	uint32_t index = cut_by(space, addr);
	struct space_node *below, *above;
	struct space_range rest;
	uint64_t len;

	if (!index)
		return;
	rest = *range_at(space, index);
	len = addr - rest.start;
	rest.start = addr;
	rest.len -= len;
	rest.offset += len;
	rest.state += len / rest.unit;
	range_at(space, index)->len = len;
	above = &space->tree.nodes[space_tree_add(&space->tree, &rest)];
	below = &space->tree.nodes[index];
	above->block = below->block;
	space_states_share(above->block);
}

/* How many ranges more there are when a hole has been made there. */
static uint32_t growth(const struct space *space, uint64_t start, uint64_t len)
{
	uint32_t first = cut_by(space, start);

	return first && first == cut_by(space, start + len);
}

static void make_hole(struct space *space, uint64_t start, uint64_t len)
{
	uint32_t index;

	cut(space, start);
	cut(space, start + len);
	while ((index = next_before(space, start, start + len)))
		end_range(space, index);
}

int space_unmap(struct space *space, uint64_t start, uint64_t len)
{
	if (!is_area(start, len) || !can_cut_out(space, start, len))
		return -EINVAL;
	if (space_tree_reserve(&space->tree, growth(space, start, len)))
		return -ENOMEM;
	make_hole(space, start, len);
	return 0;
}

/* Others may change the state at the same time: what they find is either what was, or what is. */
static void make_removed(_Atomic uint8_t *state)
{
	uint8_t was = atomic_load(state);

	while (!atomic_compare_exchange_weak(state, &was, (uint8_t)(SPACE_REMOVED | (was & SPACE_PINNED))))
		;
}

int space_remove(struct space *space, uint64_t start, uint64_t len)
{
	uint64_t end = start + len;
	uint32_t index;

	if (!is_area(start, len) || !can_cut_out(space, start, len))
		return -EINVAL;
	while ((index = next_before(space, start, end))) {
		const struct space_range *range = range_at(space, index);
		uint64_t from = start > range->start ? start - range->start : 0;
		uint64_t until = end < space_range_end(range) ? end - range->start : range->len;

		for (size_t i = from / range->unit; i < until / range->unit; i++)
			make_removed(&range->state[i]);
		start = space_range_end(range);
		if (start >= end)
			break;
	}
	return 0;
}

/*
 * What somebody is about to do to a page is not done to it at its new place, and what was kept at hand was kept under the old one. True: there
 * was a page that somebody fills.
 */
static bool settle(const struct space_range *range)
{
	const unsigned half_done = 1u << SPACE_FILLING | 1u << SPACE_LEAVING | 1u << SPACE_RESTING;
	size_t count = pages_of(range);
	bool filling = false;

	for (size_t i = space_states_used(range->state, 0, count); i < count;
	     i = space_states_used(range->state, i + 1, count)) {
		uint8_t was = atomic_load(&range->state[i]);

		filling |= (was & SPACE_STATE) == SPACE_FILLING;
		while (half_done & 1u << (was & SPACE_STATE) &&
		       !atomic_compare_exchange_weak(&range->state[i], &was, (uint8_t)(was & ~SPACE_STATE)))
			;
	}
	return filling;
}

/* All of the range, whose unit is larger. There is a block for it, with room for its states. */
static void refine_range(struct space *space, uint32_t index, uint64_t unit, struct space_block *block,
                         _Atomic uint8_t *state)
{
	struct space_node *node = &space->tree.nodes[index];
	struct space_range was = node->range;
	uint64_t parts = was.unit / unit;

	settle(&was);
	for (size_t i = 0; i < pages_of(&was); i++)
		for (uint64_t part = 0; part < parts; part++)
			atomic_store_explicit(&state[i * parts + part],
			                      atomic_load_explicit(&was.state[i], memory_order_relaxed),
			                      memory_order_relaxed);
	space_states_drop(&space->states, node->block, was.state, pages_of(&was));
	node->block = block;
	node->range.state = state;
	node->range.unit = unit;
	node->range.turn = ++space->last_turn;
}

int space_refine(struct space *space, uint64_t start, uint64_t len, uint64_t unit)
{
	uint64_t end = start + len;
	uint32_t index;

	if (!is_area(start, len) || unit < UNIT_MIN || (unit & (unit - 1)))
		return -EINVAL;
	while (start < end && (index = next_before(space, start, end))) {
		struct space_range range = *range_at(space, index);
		uint64_t from = start > range.start ? start & ~(range.unit - 1) : range.start;
		uint64_t limit = space_range_end(&range), to = (end + range.unit - 1) & ~(range.unit - 1);
		struct space_block *block;
		_Atomic uint8_t *state;

		start = limit;
		if (range.unit <= unit)
			continue;
		/* At the top of the address space the end is rounded to 0. */
		if (to > limit || to < from)
			to = limit;
		if (space_tree_reserve(&space->tree, 2))
			return -ENOMEM;
		block = space_states_new(&space->states, (size_t)((to - from) / unit), &state);
		if (!block)
			return -ENOMEM;
		cut(space, from);
		cut(space, to);
		refine_range(space, space_tree_next(&space->tree, from), unit, block, state);
	}
	return 0;
}

/* All units in it divide the way that the ranges go. */
static bool can_go(const struct space *space, uint64_t from, uint64_t to, uint64_t len)
{
	uint64_t addr = from;
	uint32_t index;

	while (addr < from + len && (index = next_before(space, addr, from + len))) {
		if ((to - from) % range_at(space, index)->unit)
			return false;
		addr = space_range_end(range_at(space, index));
	}
	return true;
}

int space_move(struct space *space, uint64_t from, uint64_t to, uint64_t len)
{
	uint32_t more, index;

	if (!is_area(from, len) || !is_area(to, len) || (from < to ? to - from : from - to) < len)
		return -EINVAL;
	if (!can_cut_out(space, from, len) || !can_cut_out(space, to, len) || !can_go(space, from, to, len))
		return -EINVAL;
	more = growth(space, to, len) + !!cut_by(space, from) + !!cut_by(space, from + len);
	if (space_tree_reserve(&space->tree, more))
		return -ENOMEM;
	make_hole(space, to, len);
	cut(space, from);
	cut(space, from + len);
	while ((index = next_before(space, from, from + len))) {
		/* Filled anew, perhaps where it was before, its page is not the first filler's. */
		if (settle(range_at(space, index)))
			range_at(space, index)->turn = ++space->last_turn;
		space_tree_shift(&space->tree, index, range_at(space, index)->start - from + to);
	}
	return 0;
}

static uint64_t present_in(const struct space_range *range, uint64_t start, uint64_t end)
{
	size_t from = start > range->start ? (size_t)((start - range->start) / range->unit) : 0;
	uint64_t until = end < space_range_end(range) ? end - range->start : range->len, bytes = 0;
	size_t count = (size_t)((until + range->unit - 1) / range->unit);

	for (size_t i = space_states_used(range->state, from, count); i < count;
	     i = space_states_used(range->state, i + 1, count)) {
		unsigned page = atomic_load_explicit(&range->state[i], memory_order_relaxed) & SPACE_STATE;
		uint64_t at = range->start + i * range->unit, to = at + range->unit;

		if (page == SPACE_CLEAN || page == SPACE_DIRTY)
			bytes += (to < end ? to : end) - (at > start ? at : start);
	}
	return bytes;
}

uint64_t space_present(const struct space *space, uint64_t start, uint64_t end)
{
	uint64_t bytes = 0;
	uint32_t index;

	while (start < end && (index = next_before(space, start, end))) {
		const struct space_range *range = range_at(space, index);

		bytes += present_in(range, start, end);
		start = space_range_end(range);
	}
	return bytes;
}

size_t space_ranges(const struct space *space)
{
	return space->tree.count;
}

size_t space_memory(const struct space *space)
{
	return space->states.page_size + space_tree_memory(&space->tree) + space->states.bytes;
}
