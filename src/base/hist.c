// SPDX-License-Identifier: MIT
#include "base/hist.h"

/* Values below HIST_SUB have a bucket each; above, the four bits after the leading one choose among HIST_SUB. */
unsigned hist_bucket(uint64_t ns)
{
	unsigned shift;

	if (ns < HIST_SUB)
		return (unsigned)ns;
	shift = 63u - (unsigned)__builtin_clzll(ns) - 4;
	return (shift + 1) * HIST_SUB + (unsigned)(ns >> shift) - HIST_SUB;
}

/* How many bits of a bucket's values do not count. */
static unsigned shift_of(unsigned bucket)
{
	return bucket < HIST_SUB ? 0 : bucket / HIST_SUB - 1;
}

uint64_t hist_start(unsigned bucket)
{
	return bucket < HIST_SUB ? bucket : (uint64_t)(bucket % HIST_SUB + HIST_SUB) << shift_of(bucket);
}

/* The middle of what falls into a bucket. */
static uint64_t value_of(unsigned bucket)
{
	return hist_start(bucket) + (((uint64_t)1 << shift_of(bucket)) >> 1);
}

void hist_add(struct hist *hist, uint64_t ns)
{
	hist->count++;
	hist->sum += ns;
	if (ns > hist->max)
		hist->max = ns;
	hist->bucket[hist_bucket(ns)]++;
}

void hist_merge(struct hist *into, const struct hist *from)
{
	into->count += from->count;
	into->sum += from->sum;
	if (from->max > into->max)
		into->max = from->max;
	for (unsigned i = 0; i < HIST_BUCKETS; i++)
		into->bucket[i] += from->bucket[i];
}

uint64_t hist_quantile(const struct hist *hist, double share)
{
	uint64_t rank = (uint64_t)(share * (double)hist->count), seen = 0;

	if (!hist->count)
		return 0;
	if (rank >= hist->count)
		return hist->max;
	for (unsigned i = 0; i < HIST_BUCKETS; i++) {
		seen += hist->bucket[i];
		if (seen > rank) {
			uint64_t value = value_of(i);

			return value < hist->max ? value : hist->max;
		}
	}
	return hist->max;
}
