// SPDX-License-Identifier: MIT
#include "base/clock.h"
#include "migrate/limit.h"

/* What was not used is not saved up for longer than this. */
#define BURST_NS 10000000u

uint64_t limit_pass(struct limit *limit, uint64_t bytes)
{
	uint64_t now;

	if (!limit->rate)
		return 0;
	now = now_ns();
	if (limit->free_ns + BURST_NS < now)
		limit->free_ns = now - BURST_NS;
	limit->free_ns += (uint64_t)((double)bytes * 1e9 / (double)limit->rate);
	return limit->free_ns > now ? limit->free_ns - now : 0;
}
