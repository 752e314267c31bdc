// SPDX-License-Identifier: MIT
#include <errno.h>

#include "base/rawsys.h"
#include "workingset/workingset.h"

static size_t bits_len(const struct workingset_order *order)
{
	return (order->pages + 63) / 64 * 8;
}

int workingset_order_init(struct workingset_order *order, uint64_t pages, uint64_t most)
{
	*order = (struct workingset_order){.pages = pages, .most = most < pages ? most : pages};
	if (!order->most || pages >= UINT32_MAX)
		return -EINVAL;
	order->numbers = raw_map_own(order->most * sizeof(*order->numbers));
	order->touched = raw_map_own(bits_len(order));
	if (order->numbers && order->touched)
		return 0;
	workingset_order_end(order);
	return -ENOMEM;
}

void workingset_order_end(struct workingset_order *order)
{
	raw_unmap(order->numbers, order->most * sizeof(*order->numbers));
	raw_unmap(order->touched, bits_len(order));
	*order = (struct workingset_order){0};
}

void workingset_order_add(struct workingset_order *order, uint64_t page)
{
	uint64_t bit = (uint64_t)1 << page % 64, at;

	if (page >= order->pages ||
	    (atomic_fetch_or_explicit(&order->touched[page / 64], bit, memory_order_relaxed) & bit))
		return;
	at = atomic_fetch_add_explicit(&order->count, 1, memory_order_relaxed);
	if (at < order->most)
		atomic_store_explicit(&order->numbers[at], (uint32_t)page + 1, memory_order_relaxed);
}
