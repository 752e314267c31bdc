/* SPDX-License-Identifier: MIT */
/*
 * hist.h - a histogram of durations, in nanoseconds
 *
 * Buckets grow geometrically: 16 to each doubling, so that a quantile is right to about 3 %. Fixed size, no allocation;
 * two of them are added bucket by bucket. One writer at a time; not safe against concurrent use.
 */
#ifndef BASE_HIST_H
#define BASE_HIST_H

#include <stdint.h>

#define HIST_SUB     16 /* buckets to each power of two */
#define HIST_BUCKETS (64 * HIST_SUB)

struct hist {
	uint64_t count;
	uint64_t sum;
	uint64_t max;
	uint64_t bucket[HIST_BUCKETS];
};

void hist_add(struct hist *hist, uint64_t ns);

/* The bucket that a value falls into, for those who count in a way of their own. */
unsigned hist_bucket(uint64_t ns);

/* The smallest value that falls into a bucket. */
uint64_t hist_start(unsigned bucket);

void hist_merge(struct hist *into, const struct hist *from);

/* The value below which a share of the samples lies; share in [0, 1]. 0 when there are none. */
uint64_t hist_quantile(const struct hist *hist, double share);

#endif
