// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdatomic.h>

#include "preload/map-ranges.h"

static struct {
	struct lock lock;
	struct map_range *list;
	size_t count, capacity;
	/* All of them lie in [low, high). Relaxed: who asks about a range that is changed at that moment is a race of the program. */
	_Atomic uint64_t low, high;
} ranges;

signal_mask map_lock(void)
{
	signal_mask before = block_signals();

	lock_take(&ranges.lock);
	return before;
}

void map_unlock(signal_mask before)
{
	uint64_t low = UINT64_MAX, high = 0;

	for (size_t i = 0; i < ranges.count; i++) {
		low = ranges.list[i].start < low ? ranges.list[i].start : low;
		high = ranges.list[i].end > high ? ranges.list[i].end : high;
	}
	atomic_store_explicit(&ranges.low, low, memory_order_relaxed);
	atomic_store_explicit(&ranges.high, high, memory_order_relaxed);
	lock_release(&ranges.lock);
	restore_signals(before);
}

bool map_ranges_reach(uint64_t start, uint64_t end)
{
	return start < atomic_load_explicit(&ranges.high, memory_order_relaxed) &&
	       end > atomic_load_explicit(&ranges.low, memory_order_relaxed);
}

bool map_ranges_bounds(uint64_t *low, uint64_t *high)
{
	*low = atomic_load_explicit(&ranges.low, memory_order_relaxed);
	*high = atomic_load_explicit(&ranges.high, memory_order_relaxed);
	return *low < *high;
}

int map_ranges_reserve(size_t count)
{
	size_t capacity = ranges.capacity ? 2 * ranges.capacity : 128;
	struct map_range *list;

	if (ranges.count + count <= ranges.capacity)
		return 0;
	list = raw_map_own(capacity * sizeof(*list));
	if (!list)
		return -ENOMEM;
	for (size_t i = 0; i < ranges.count; i++)
		list[i] = ranges.list[i];
	raw_unmap(ranges.list, ranges.capacity * sizeof(*list));
	ranges.list = list;
	ranges.capacity = capacity;
	return 0;
}

void map_ranges_add(const struct map_range *range)
{
	ranges.list[ranges.count++] = *range;
}

/* No range reaches over `at` afterwards. */
static void cut(uint64_t at)
{
	for (size_t i = 0; i < ranges.count; i++) {
		struct map_range behind = ranges.list[i];

		if (behind.start >= at || behind.end <= at)
			continue;
		ranges.list[i].end = at;
		behind.offset += at - behind.start;
		behind.start = at;
		map_ranges_add(&behind);
		return;
	}
}

static bool lies_in(const struct map_range *range, uint64_t start, uint64_t end)
{
	return range->start >= start && range->end <= end;
}

void map_ranges_drop(uint64_t start, uint64_t end)
{
	cut(start);
	cut(end);
	for (size_t i = 0; i < ranges.count;)
		if (lies_in(&ranges.list[i], start, end))
			ranges.list[i] = ranges.list[--ranges.count];
		else
			i++;
}

void map_ranges_move(uint64_t start, uint64_t end, uint64_t to)
{
	cut(start);
	cut(end);
	for (size_t i = 0; i < ranges.count; i++) {
		struct map_range *range = &ranges.list[i];

		if (!lies_in(range, start, end))
			continue;
		range->start += to - start;
		range->end += to - start;
	}
}

void map_ranges_unfork(uint64_t start, uint64_t end, bool unforked)
{
	cut(start);
	cut(end);
	for (size_t i = 0; i < ranges.count; i++)
		if (lies_in(&ranges.list[i], start, end))
			ranges.list[i].unforked = unforked;
}

size_t map_ranges_count(void)
{
	return ranges.count;
}

struct map_range *map_ranges_at(size_t index)
{
	return &ranges.list[index];
}

struct map_range *map_ranges_in(uint64_t start, uint64_t end)
{
	for (size_t i = 0; i < ranges.count; i++)
		if (ranges.list[i].start < end && ranges.list[i].end > start)
			return &ranges.list[i];
	return NULL;
}
